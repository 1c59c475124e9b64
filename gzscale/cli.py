"""The ``gzscale`` command: thin, no logic.

Exit codes: 0, all is accounted for and nothing failed; 1, something failed or was
found damaged; 2, the command or its input cannot be used.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

import gzscale
from gzscale.cli_sky import sky
from gzscale.cli_training import debias, evaluate, train
from gzscale.errors import GzscaleError

__all__ = ["main"]

_SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any key of CONFIG.")
_OUTPUT = click.option("--output", metavar="URL", help="Folder or s3:// URL of the night's output.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
#: Failed partitions whose errors are printed; the account as JSON and the report have more.
_MOST_FAILURES = 5


class _Group(click.Group):
    """Prints gzscale's own errors as one message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GzscaleError as error:
            click.echo(f"gzscale: {error.code}: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gzscale.__version__, prog_name="gzscale")
def main() -> None:
    """From a survey's pixels to galaxy catalogs overnight."""


for _command in (sky, train, evaluate, debias):
    main.add_command(_command)


def _all_settings(settings: tuple[str, ...], output: str | None, cluster: str | None = None) -> list[str]:
    """Join ``--set`` with the options that have a name of their own."""
    given = {"output": output, "cluster": cluster}
    return [*settings, *(f"{key}={json.dumps(value)}" for key, value in given.items() if value)]


@main.command()
@click.argument("out", type=click.Path())
@click.option("--survey", type=click.Choice(["sdss", "rubin"]), default="sdss", show_default=True)
@click.option("--objects", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--per-field",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Objects of a field or patch: it takes objects / this many of them.",
)
@click.option(
    "--registry",
    metavar="URL",
    help="Rubin: make the Butler's registry in postgresql://user@host:port/database, not in SQLite.",
)
@click.option("--schema", default="gzscale_simulated", show_default=True, help="Schema of that registry.")
def simulate(
    out: str, survey: str, objects: int, seed: int, per_field: int, registry: str | None, schema: str
) -> None:
    """Write a sky whose truth is known: images, catalog, truth, night.yaml."""
    from gzscale.progress import Meter
    from gzscale.sky.rubin_repository import Registry
    from gzscale.sky.write import write_sky

    made = Registry(registry, schema) if registry else None
    with Meter("simulate", "images") as meter:
        write_sky(out, survey, objects, seed, progress=meter.show, per_field=per_field, registry=made)
    click.echo(f"simulated {objects} objects: {out}/night.yaml")


@main.command()
@click.argument("config")
@_SET
@_OUTPUT
def plan(config: str, settings: tuple[str, ...], output: str | None) -> None:
    """Say what a night would do: partitions, images, bytes, GPU-hours. Touches nothing."""
    from gzscale.config import load_config
    from gzscale.night.forecast import forecast

    for name, value in forecast(load_config(config, _all_settings(settings, output))).items():
        click.echo(f"{name:<24} {value}")


@main.command()
@click.argument("config")
@_SET
@_OUTPUT
@click.option("--cluster", metavar="NAME", help="A preset's name or path, or an address.")
@click.option("--night", "name", metavar="ID", help="Name of the run; the UTC time by default.")
def night(
    config: str, settings: tuple[str, ...], output: str | None, cluster: str | None, name: str | None
) -> None:
    """Run one night: plan, cut, predict, release, report."""
    from gzscale.memory import keep_one_arena

    # Before the first thread.
    keep_one_arena()
    from gzscale.config import load_config
    from gzscale.night.accounting import accounting
    from gzscale.night.plan import check, is_done

    given = _all_settings(settings, output, cluster)
    loaded = load_config(config, given)
    last = is_done(loaded, check(loaded))
    if last is not None:
        click.echo("nothing to do: catalog, images, bundles and code are those of the last night")
        _print_account(accounting(last), loaded.output)
        return
    from flows.nightly import FailedNight, nightly

    try:
        account = nightly(config, given, name)
    except FailedNight as error:
        account = error.account
    _print_account(account, loaded.output)
    if account["failed"]:
        sys.exit(1)


@main.command()
@click.argument("output")
@_JSON
@click.option("--night", "name", metavar="ID", help="Name of the run; the last one by default.")
def status(output: str, as_json: bool, name: str | None) -> None:
    """Print the account of the last night."""
    from gzscale.night.accounting import status as read_status

    account = read_status(output, name)
    if as_json:
        click.echo(json.dumps(account))
    else:
        _print_account(account, output)
    if account["failed"] or account["state"] == "failed":
        sys.exit(1)


@main.command()
@click.argument("output")
@click.option("--night", "name", metavar="ID", help="Name of the run; the last one by default.")
def report(output: str, name: str | None) -> None:
    """Write the report's page again."""
    from gzscale.night.report import write_report

    click.echo(write_report(output, name))


@main.command()
@click.argument("output")
@click.option("--injections", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--night", "name", metavar="ID", help="Name of the run; the last one by default.")
def completeness(output: str, injections: int, seed: int, name: str | None) -> None:
    """Put lenses into a night's cutouts, count those found, and show it in the report."""
    from gzscale.night.completeness import measure_completeness
    from gzscale.night.report import write_report

    found = measure_completeness(output, injections, seed, name)
    click.echo(
        f"{found['found']} of {found['injections']} lenses found, scores from {found['threshold']:.3g}"
    )
    click.echo(write_report(output, name))


@main.command()
@click.argument("output")
@click.option("--repair", "mend", is_flag=True, help="Remove what is damaged; the next night makes it anew.")
def verify(output: str, mend: bool) -> None:
    """Re-hash everything that was committed."""
    from gzscale.night.verify import verify as find_damage
    from gzscale.night.verify import verify_and_repair
    from gzscale.progress import Meter

    removed = 0
    with Meter("verify", "files") as meter:
        if mend:
            findings, removed = verify_and_repair(output, meter.add)
        else:
            findings = find_damage(output, meter.add)
    for finding in findings:
        click.echo(f"{finding.where}: {finding.what}")
    click.echo(f"{meter.done} files read, {len(findings)} finding(s)")
    if findings and mend:
        click.echo(f"{removed} file(s) removed; run the night again")
    if findings:
        sys.exit(1)


@main.command()
@click.argument("output")
@click.argument("object_id", type=int)
@_JSON
def explain(output: str, object_id: int, as_json: bool) -> None:
    """Tell the whole story of one object."""
    import yaml

    from gzscale.night.explain import explain as tell

    story = tell(output, object_id)
    if as_json:
        click.echo(json.dumps(story))
    else:
        click.echo(yaml.safe_dump(story, sort_keys=False, allow_unicode=True, width=110), nl=False)


@main.command()
@click.argument("task")
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="TABLE", help=".csv or .parquet")
@click.option("--bundle", metavar="PATH", help="Another bundle than the shipped one.")
@click.option(
    "--scheme",
    type=click.Choice(["tree", "kaggle", "kaggle-tree"]),
    default="tree",
    show_default=True,
    help="tree: all columns. kaggle, kaggle-tree: Class1.1 to Class11.6 only, without unlike_training.",
)
def predict(task: str, images: tuple[str, ...], output: str, bundle: str | None, scheme: str) -> None:
    """Predict a folder of JPEG, PNG or FITS cutouts, no survey needed."""
    from gzscale.folder import predict_folder
    from gzscale.progress import Meter

    with Meter("predict", "images") as meter:
        result = predict_folder(task, images, output, scheme=scheme, bundle=bundle, progress=meter.show)
    for detail in result.details:
        click.echo(detail, err=True)
    refused = ", ".join(f"{number} {reason}" for reason, number in sorted(result.refused.items()))
    others = f"; no images by their names: {result.passed_over} entries" if result.passed_over else ""
    click.echo(f"{result.found} images: {result.done} predicted, refused: {refused or 0}{others}")
    click.echo(output)


@main.command()
def doctor() -> None:
    """Say what works here: GPU, S3, Prefect, extras."""
    from gzscale.doctor import examine

    for name, verdict in examine():
        click.echo(f"{name:<24} {verdict}")


def _account_line(account: dict[str, Any]) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in account["quarantined"].items())
    total = sum(account["quarantined"].values())
    pending = f" + pending {account['pending']}" if account.get("pending") else ""
    return (
        f"planned {account['planned']} = done {account['done']} + quarantined {total}"
        f"{f' ({reasons})' if reasons else ''} + failed {account['failed']}{pending}"
    )


def _changes_line(changes: dict[str, int]) -> str:
    rows = ("new", "changed", "unchanged", "stale", "removed", "quarantined")
    return (
        f"given {changes['given']} = {' + '.join(f'{name} {changes[name]}' for name in rows)}; "
        f"moved {changes['moved']}, kept {changes['kept']}, vanished {changes['vanished']}"
    )


def _print_account(account: dict[str, Any], output: str) -> None:
    click.echo(f"night     {account['night']} ({account['state']})")
    click.echo(f"objects   {_account_line(account)}")
    failures = account["failures"]
    for failure in failures[:_MOST_FAILURES]:
        where = f"{failure['partition'] or 'the night'} ({failure['rows']} objects)"
        click.echo(f"failed    {where}: {failure['error']}")
    if len(failures) > _MOST_FAILURES:
        click.echo(f"failed    {len(failures) - _MOST_FAILURES} more partitions: see the report")
    if account.get("changes"):
        click.echo(f"catalog   {_changes_line(account['changes'])}")
    if account.get("images"):
        from gzscale.night.openings import openings_text

        click.echo(f"images    {openings_text(account['images'])}")
    if account["release"]:
        click.echo(f"release   {output}/releases/{account['release']}")
    click.echo(f"report    {output}/reports/{account['night']}/report.html")


if __name__ == "__main__":
    main()
