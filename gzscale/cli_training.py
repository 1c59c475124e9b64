"""The commands that learn from labels, score, and correct: ``gzscale train``, ``evaluate`` and ``debias``."""

from __future__ import annotations

import json

import click
from click.core import ParameterSource

__all__ = ["debias", "evaluate", "train"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("debias")
@click.argument("table")
@click.option("--redshift", required=True, metavar="COLUMN", help="Column of TABLE with the redshifts.")
@click.option("-o", "--output", required=True, metavar="TABLE", help=".csv or .parquet")
def debias(table: str, redshift: str, output: str) -> None:
    """Correct a predicted or released TABLE of votes for what distance hides.

    Each answer's fractions are mapped, rank by rank, onto those of the nearest galaxies of the table (after
    Hart et al. 2016). Added are the debiased fractions; class strings and clean flags are made of them.

    This takes the galaxies of all redshifts to be alike but for their distance: in a sample limited in
    magnitude they are not, so give one limited in volume, or one bin of luminosity at a time. It corrects
    a sample, not a galaxy. Galaxies without a positive redshift, and questions that fewer than 50 galaxies
    of a bin were asked, keep their fractions.
    """
    from gzscale.debiased import debias_table

    rows, corrected = debias_table(table, redshift, output)
    click.echo(f"{rows} galaxies: {corrected} with a redshift were compared, {rows - corrected} kept as seen")
    click.echo(output)


_LABELS = click.option(
    "--labels",
    metavar="TABLE",
    help="Votes in Galaxy Zoo 2's or Kaggle's columns; redshifts: object_id, z and, if known, ebv; lenses: "
    "object_id and lens (0 or 1), or none: then lenses are put into the images.",
)
_IMAGES = click.option(
    "--images",
    multiple=True,
    metavar="DIR|STORE",
    help="Pictures named by identifier, a night's output, or the Bologna challenge; for lenses several.",
)
_KIND = click.option(
    "--kind",
    type=click.Choice(["weighted_fraction", "fraction", "debiased", "count", "weight"]),
    default="weighted_fraction",
    show_default=True,
    help="Morphology: what is taken of each answer in Galaxy Zoo 2's columns.",
)
_GEOMETRY = click.option(
    "--geometry",
    metavar="NAME",
    help="Which of a store's cutouts: by default galaxy for morphology, else sky.",
)
_MAPPING = click.option("--mapping", metavar="TABLE", help="objid, sample, asset_id: names of the images.")


@click.command()
@click.argument("task", type=click.Choice(["morphology", "lenses", "redshifts", "sketches"]))
@_LABELS
@_IMAGES
@_KIND
@_MAPPING
@_GEOMETRY
@click.option(
    "--survey",
    type=click.Choice(["sdss", "rubin"]),
    default="sdss",
    show_default=True,
    help="Lenses and redshifts: whose bands, pixels and depth the recipe is for.",
)
@click.option("-o", "--output", required=True, metavar="BUNDLE")
@click.option("--name", default="own-1", show_default=True, help="Name of the model, with its version.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any key of the recipe: fit.epochs=40."
)
@click.option(
    "--search", type=click.IntRange(min=0), default=0, help="Trials of a search for better settings first."
)
@click.option(
    "--cluster", default="local", show_default=True, metavar="NAME", help="Where the trials of --search run."
)
@click.pass_context
def train(
    context: click.Context,
    task: str,
    labels: str | None,
    images: tuple[str, ...],
    kind: str,
    mapping: str | None,
    geometry: str | None,
    survey: str,
    output: str,
    name: str,
    settings: tuple[str, ...],
    search: int,
    cluster: str,
) -> None:
    """Train a bundle on a survey's own labels, or on injections; killed and started again, it goes on.

    sketches makes the bundle that morphology starts from, of drawn galaxies alone.

    Morphology on several GPUs: torchrun --nproc-per-node=4 --no-python gzscale train ...
    """
    _refuse_unused(context, task, {*_TRAINED_WITH[task], "task", "output", "name", "settings"})
    if not search:
        _refuse_unused(context, "without --search", {*context.params} - {"cluster"})
    if task == "sketches":
        from gzscale.training.command import train_sketch_bundle

        lines = train_sketch_bundle(output, name, settings)
    elif task == "lenses":
        from gzscale.training.lens_command import train_lens_bundle

        if labels is not None:
            _only(images)
        lines = train_lens_bundle(_shown(images), labels, output, name, settings, geometry or "sky", survey)
    elif task == "redshifts":
        from gzscale.training.redshift_command import train_redshift_bundle

        lines = train_redshift_bundle(
            _needed(labels), _only(images), geometry or "sky", output, name, settings, survey
        )
    else:
        from gzscale.training.command import train_bundle

        lines = train_bundle(
            _needed(labels),
            _only(images),
            kind,
            mapping,
            output,
            name,
            settings,
            search,
            cluster,
            geometry,
        )
    for line in lines:
        click.echo(line)


#: Which options each task's training, and its scoring, has a use for.
_TRAINED_WITH = {
    "morphology": {"labels", "images", "kind", "mapping", "geometry", "search", "cluster"},
    "lenses": {"labels", "images", "geometry", "survey"},
    "redshifts": {"labels", "images", "geometry", "survey"},
    "sketches": set[str](),
}
_SCORED_WITH = {
    "morphology": {"labels", "images", "kind", "mapping", "geometry"},
    "lenses": {"labels", "images", "geometry", "others", "picture"},
    "redshifts": {"labels", "images", "geometry"},
}


def _refuse_unused(context: click.Context, task: str, used: set[str]) -> None:
    """Refuse options that were given and would change nothing.

    Raises
    ------
    click.UsageError
        With their names.
    """
    unused = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in used
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if unused:
        raise click.UsageError(f"{task}: no use for {', '.join(unused)}")


def _only(images: tuple[str, ...]) -> str:
    if len(_shown(images)) > 1:
        raise click.UsageError(f"--images {len(images)} times: several are for lenses without --labels")
    return images[0]


def _needed(labels: str | None) -> str:
    if labels is None:
        raise click.UsageError("morphology and redshifts need --labels")
    return labels


def _shown(images: tuple[str, ...]) -> tuple[str, ...]:
    if not images:
        raise click.UsageError("Missing option '--images'.")
    return images


@click.command()
@click.argument("bundle")
@_LABELS
@_IMAGES
@_KIND
@_MAPPING
@_GEOMETRY
@click.option("--picture", metavar="FILE", help="Lenses: a picture of rates and reliability, .png or .svg.")
@click.option("--others", metavar="STORE", multiple=True, help="Lenses: more cutouts, that show no lens.")
@_JSON
@click.pass_context
def evaluate(
    context: click.Context,
    bundle: str,
    labels: str | None,
    images: tuple[str, ...],
    others: tuple[str, ...],
    kind: str,
    mapping: str | None,
    geometry: str | None,
    picture: str | None,
    as_json: bool,
) -> None:
    """Score a bundle beside what one would use without it: a random forest, total colours, an arc filter."""
    from gzscale.models.bundle import load_bundle

    loaded = load_bundle(bundle)
    _refuse_unused(context, loaded.task, {*_SCORED_WITH.get(loaded.task, set()), "bundle", "as_json"})
    if loaded.task == "lenses":
        from gzscale.training.lens_command import evaluate_lens_bundle

        if labels is not None:
            _only(images)
            _refuse_unused(context, "lenses with --labels", {*context.params} - {"others"})
        story, lines = evaluate_lens_bundle(
            loaded, _shown(images), labels, geometry or "sky", picture, others
        )
    elif loaded.task == "redshifts":
        from gzscale.training.redshift_command import evaluate_redshift_bundle

        story, lines = evaluate_redshift_bundle(loaded, _needed(labels), _only(images), geometry or "sky")
    else:
        from gzscale.training.command import evaluate_bundle

        story, lines = evaluate_bundle(bundle, _needed(labels), _only(images), kind, mapping, geometry)
    click.echo(json.dumps(story) if as_json else "\n".join(lines))
