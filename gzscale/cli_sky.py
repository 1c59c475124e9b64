"""The commands of ``gzscale sky``: what a synthetic sky is good for besides a night on it."""

from __future__ import annotations

import sys

import click

__all__ = ["sky"]


@click.group()
def sky() -> None:
    """Make training samples from the synthetic sky."""


@sky.command()
@click.argument("out")
@click.option("--survey", type=click.Choice(["sdss"]), default="sdss", show_default=True)
@click.option("--objects", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; one a core by default.")
def sample(out: str, survey: str, objects: int, seed: int, workers: int | None) -> None:
    """Write galaxies of known redshift as cutouts, with a truth table, without frames."""
    from gzscale.sky.blocks import Request
    from gzscale.sky.samples import write_sample

    with click.progressbar(length=objects, label="drawing galaxies", file=sys.stderr) as bar:
        write_sample(out, Request(survey, objects, seed), workers, lambda done, _: bar.update(done - bar.pos))
    click.echo(f"drew {objects} galaxies: {out}/sample.json")
