"""The report's sections on candidates: the head of each review list, and what the finder misses."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gzscale.night.charts import COLOURS, INK, drawing, to_svg
from gzscale.night.findings import Findings
from gzscale.night.page import Markup, escape, join, number, section, tag

__all__ = ["completeness_chart", "completeness_section", "review_section"]

_MAP = LinearSegmentedColormap.from_list("completeness", ["#f2f4f6", COLOURS[0]])
_NAMES = {
    "einstein_radius": "Einstein radius / arcsec",
    "arc_magnitude": "r magnitude of all images",
    "deflector_redshift": "redshift of the deflector",
}
#: Cells with fewer lenses say nothing.
_FEWEST = 5


def review_section(found: Findings) -> Markup:
    """Show the head of each review list: the candidates, and where the network saw them."""
    parts: list[object] = []
    for name, table in found.reviews.items():
        columns = found.tasks[name].columns if name in found.tasks else ()
        rows = table.to_pylist()
        figures = [_candidate(row, [column.name for column in columns]) for row in rows]
        note = (
            f"The {number(len(rows))} highest of {name}; all are in the release's {name}_review.parquet. "
            "Right of each: where the network saw it, white for, black against."
        )
        parts += [tag("h3", f"Task {name}"), tag("p", note, "note"), tag("div", join(figures), "sheet")]
    return section("Review lists", *parts) if parts else Markup()


def _candidate(row: Mapping[str, Any], columns: list[str]) -> Markup:
    pictures = join(
        Markup(
            f'<img src="data:image/png;base64,{base64.b64encode(row[key]).decode()}" '
            f'alt="{escape(what)} of object {row["object_id"]}" loading="lazy" '
            'style="width:50%;display:inline-block;image-rendering:pixelated">'
        )
        for key, what in (("picture", "cutout"), ("evidence_picture", "evidence"))
    )
    lines = [
        tag("b", f"{row['rank']}: {row['object_id']}"),
        f"{row['ra']:.5f} {row['dec']:+.5f}",
        *(f"{name} {_value(row[name])}" for name in columns),
    ]
    return tag("figure", join((pictures, tag("figcaption", join(lines, Markup("<br>"))))))


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def completeness_section(found: Findings) -> Markup:
    """Show which of the lenses that were put into the night's cutouts would be on its list."""
    measured = found.completeness
    if measured is None:
        return Markup()
    note = (
        f"{number(measured['injections'])} lenses put into the cutouts of {number(measured['deflectors'])} "
        f"bright red galaxies of this night that lie in no crowd of stars; {number(measured['found'])} have "
        f"a score of at least {measured['threshold']:.3g}, that of the last object on the review list. "
        "In each cell: per cent found."
    )
    charts = [Markup(completeness_chart(measured, other)) for other in measured["maps"]]
    return section("Completeness", tag("p", note, "note"), *charts)


def completeness_chart(measured: Mapping[str, Any], other: str) -> str:
    """Draw the share of lenses found by Einstein radius and another axis.

    Parameters
    ----------
    measured
        See `gzscale.night.completeness.measure_completeness`.
    other
        A key of its ``maps``.
    """
    radius, edges = (np.array(measured["axes"][name]) for name in ("einstein_radius", other))
    put, seen = (np.array(measured["maps"][other][key], float) for key in ("put", "found"))
    share = np.divide(seen, put, out=np.full(put.shape, np.nan), where=put >= _FEWEST)
    with drawing():
        figure = Figure(figsize=(7.0, 3.6))
        axes = figure.add_axes((0.09, 0.14, 0.88, 0.82))
        # Cells of equal size: the edges are written between them.
        axes.imshow(
            share.T, cmap=_MAP, vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest"
        )
        _write_numbers(axes, share)
        axes.set_xticks(np.arange(len(radius)) - 0.5, [f"{edge:g}" for edge in radius])
        axes.set_yticks(np.arange(len(edges)) - 0.5, [f"{edge:g}" for edge in edges])
        axes.set(xlabel=_NAMES["einstein_radius"], ylabel=_NAMES.get(other, other))
        return to_svg(figure, f"completeness-{other}", f"Completeness by Einstein radius and {other}")


def _write_numbers(axes: Any, share: NDArray[np.float64]) -> None:
    for (column, row), value in np.ndenumerate(share):
        if np.isfinite(value):
            colour = "white" if value > 0.6 else INK
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=7.5)
