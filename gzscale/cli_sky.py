"""The commands ``gzscale sky ...``: what is made from skies whose truth is known."""

from __future__ import annotations

import click

__all__ = ["sky"]


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
) -> None:
    """Put lensed arcs, in flux, into the cutouts of STORE; write a new store with its truth."""
    from gzscale.sky.inject_store import Injection, inject_store

    injection = Injection(lenses, mimics, geometry, radii, prior, visible, None, seed)  # type: ignore[arg-type]
    made = inject_store(store, output, injection)
    click.echo(f"{made} lenses and {mimics} mimics: {output}, {output}/truth.parquet")
