"""The commands ``gzscale sky ...``: what is made from skies whose truth is known."""

from __future__ import annotations

import click

__all__ = ["sky"]


_SURVEY = click.option(
    "--survey",
    type=click.Choice(["sdss", "rubin"]),
    default="sdss",
    show_default=True,
    help="Whose filters, camera and depth.",
)


@click.group()
def sky() -> None:
    """Make samples and injections whose truth is known."""


@sky.command()
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT", help="Folder or URL of the new cutout store.")
@click.option("--lenses", type=click.IntRange(min=0), default=1000, show_default=True)
@click.option("--mimics", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--geometry", default="sky", show_default=True, help="Which geometry of the store.")
@click.option("--radii", type=(float, float), default=(0.5, 4.0), show_default=True, metavar="LOW HIGH")
@click.option(
    "--prior",
    type=click.Choice(["luminosity", "uniform"]),
    default="luminosity",
    show_default=True,
    help="Where Einstein radii come from.",
)
@click.option("--visible", is_flag=True, help="Keep only lenses whose arcs can be seen.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@_SURVEY
def inject(
    store: str,
    output: str,
    lenses: int,
    mimics: int,
    geometry: str,
    radii: tuple[float, float],
    prior: str,
    visible: bool,
    seed: int,
    survey: str,
) -> None:
    """Put lensed arcs, in flux, into the cutouts of STORE; write a new store with its truth."""
    from gzscale.sky.inject_store import Injection, inject_store

    injection = Injection(
        lenses,
        mimics,
        geometry,
        radii,
        prior,  # type: ignore[arg-type]
        visible,
        seed=seed,
        survey=survey,
    )
    made = inject_store(store, output, injection)
    click.echo(f"{made} lenses and {mimics} mimics: {output}, {output}/truth.parquet")


@sky.command()
@click.argument("out")
@_SURVEY
@click.option("--objects", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--seeing", type=float, default=1.0, show_default=True, help="Factor of the camera's median seeing."
)
@click.option("--seeing-scatter", type=float, help="Scatter of ln(seeing) from field to field.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; one a core by default.")
def sample(
    out: str,
    survey: str,
    objects: int,
    seed: int,
    seeing: float,
    seeing_scatter: float | None,
    workers: int | None,
) -> None:
    """Write galaxies of known redshift as cutouts, with a truth table, without frames."""
    from gzscale.progress import Meter
    from gzscale.sky.blocks import Request
    from gzscale.sky.samples import write_sample

    with Meter("draw", "galaxies", objects) as meter:
        request = Request(survey, objects, seed, seeing=seeing, seeing_scatter=seeing_scatter)
        write_sample(out, request, workers, meter.show)
    click.echo(f"drew {objects} galaxies: {out}/sample.json")
