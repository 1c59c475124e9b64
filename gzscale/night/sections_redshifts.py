"""The report's section on redshifts: their distribution, and how many carry which flag."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from gzscale.night.charts import COLOURS, drawing, to_svg
from gzscale.night.page import Markup, join, number, section, table, tag
from gzscale.night.photoz_counts import STEP, RedshiftCounts

__all__ = ["redshifts_section"]

#: Bins of the drawn histogram, about.
_DRAWN = 40


def redshifts_section(found: dict[str, RedshiftCounts]) -> Markup:
    """Show the distribution of the redshifts and the flags of each task that has them."""
    parts: list[object] = []
    for task, counts in found.items():
        if not counts.objects:
            continue
        rows = [
            (str(flag.value), flag.sentence, number(many), f"{100 * many / counts.objects:.1f} %")
            for flag, many in counts.flags.items()
        ]
        note = (
            f"{number(counts.objects)} objects with a PDF; {number(counts.without)} of them were given no "
            "redshift, since the PDF is flat or the reference band cannot be used."
        )
        parts += [tag("h3", f"Task {task}"), tag("p", note, "note"), Markup(_chart(task, counts))]
        parts.append(table(("bit of z_flags", "meaning", "objects", "share"), rows, (0, 2, 3)))
    return section("Redshifts", join(parts)) if parts else Markup()


def _chart(task: str, counts: RedshiftCounts) -> str:
    filled = np.flatnonzero(counts.counts)
    last = int(filled[-1]) + 1 if len(filled) else 1
    joined = max(1, round(last / _DRAWN))
    bars = -(-last // joined)
    values = np.zeros(bars * joined, np.int64)
    values[:last] = counts.counts[:last]
    with drawing():
        figure = Figure(figsize=(9.4, 2.4))
        axes = figure.add_axes((0.06, 0.2, 0.93, 0.75))
        edges = np.arange(bars + 1) * joined * STEP
        axes.stairs(values.reshape(bars, joined).sum(axis=1), edges, fill=True, color=COLOURS[0], alpha=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlim=(0, edges[-1]), xlabel="median redshift", ylabel="objects")
        return to_svg(figure, f"redshifts-{task}", f"Histogram of the median redshifts of {task}")
