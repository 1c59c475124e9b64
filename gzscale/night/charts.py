"""The report's charts as inline SVG that follows the page's colours and depends on the numbers alone."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gzscale.night.overview import Histogram

__all__ = [
    "COLOURS",
    "INK",
    "MUTED",
    "RULE",
    "drawing",
    "probability_histograms",
    "stacked_bar",
    "to_svg",
    "vote_histograms",
]

#: Colours that stand for the page's own, so that a chart reads in light and in dark.
INK, MUTED, RULE = "#010203", "#040506", "#070809"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}
#: Tol's "bright" scheme, told apart by the colour blind and on both grounds (P. Tol, SRON/EPS/TN/09-002).
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")

#: Whatever a user's own settings say, a chart looks the same.
_STYLE: tuple[Any, ...] = (
    "default",
    {
        "svg.hashsalt": "gzscale",
        "svg.fonttype": "path",
        "font.size": 8.5,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.6,
        "axes.titlesize": 8.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "legend.fontsize": 7.5,
    },
)
_PER_ROW = 3
#: More answers than this are drawn as lines alone: filled, they would hide each other.
_FILLED = 3


def drawing() -> Any:
    """Return the context in which every chart is made and encoded."""
    return matplotlib.style.context(list(_STYLE))


def to_svg(figure: Figure, name: str, text: str) -> str:
    """Encode a figure for a page.

    Parameters
    ----------
    figure
        Transparent.
    name
        Put in front of every id, so that charts of one page do not collide.
    text
        What the chart shows, for those who cannot see it.
    """
    sink = io.StringIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure)
    figure.savefig(sink, format="svg", transparent=True, metadata=empty)
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'(\bid="|\burl\(#|href="#)', rf"\1{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = html.escape(text)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" class="chart" ', 1)


def stacked_bar(parts: Mapping[str, float], colours: Mapping[str, str]) -> str:
    """Draw the workers' time by step as one horizontal bar.

    Parameters
    ----------
    parts
        Step -> seconds, not all 0.
    colours
        Step -> colour.
    """
    total = sum(parts.values())
    with drawing():
        figure = Figure(figsize=(9.4, 0.72))
        axes = figure.add_axes((0.005, 0.45, 0.99, 0.5))
        left = 0.0
        for step, seconds in parts.items():
            share = seconds / total
            axes.barh(0, share, left=left, color=colours[step], edgecolor="none")
            if share > 0.07:
                axes.text(left + share / 2, 0, step, ha="center", va="center", color="white", weight="bold")
            left += share
        axes.set(xlim=(0, 1), ylim=(-0.4, 0.4), yticks=[])
        axes.set_xticks(np.linspace(0, 1, 11), [f"{tick} %" for tick in range(0, 101, 10)])
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.spines[:].set_visible(False)
        return to_svg(figure, "steps", "Share of the workers' time by step")


def vote_histograms(task: str, histograms: Sequence[Histogram]) -> str:
    """Draw small multiples: for each panel, how its answers' fractions are distributed.

    Parameters
    ----------
    task
        Its name.
    histograms
        One for each panel, at least one.
    """
    return _small_multiples(f"votes-{task}", f"Histograms of the vote fractions of {task}", histograms)


def probability_histograms(task: str, histograms: Sequence[Histogram]) -> str:
    """Draw how a task's probabilities are distributed, by the logarithm of their odds.

    Shares are logarithmic too, as few objects have high ones. Of the bins those are drawn, in whole
    decades, that hold objects.

    Parameters
    ----------
    task, histograms
        See `vote_histograms`.
    """
    name, title = f"probabilities-{task}", f"Histograms of the probabilities of {task}"
    return _small_multiples(name, title, histograms, of="probability", yscale="log")


def _small_multiples(
    name: str, title: str, histograms: Sequence[Histogram], of: str = "vote fraction", yscale: str = "linear"
) -> str:
    rows = -(-len(histograms) // _PER_ROW)
    with drawing():
        figure = Figure(figsize=(9.4, 2.15 * rows))
        figure.subplots_adjust(
            # Powers of ten are wider than whole numbers.
            left=0.062 if yscale == "log" else 0.045,
            right=0.985,
            top=1 - 0.3 / (2.15 * rows),
            bottom=0.45 / (2.15 * rows),
            hspace=0.62,
        )
        for place, histogram in enumerate(histograms):
            axes = figure.add_subplot(rows, _PER_ROW, place + 1)
            _draw_histogram(axes, histogram, yscale)
            if place % _PER_ROW == 0:
                axes.set_ylabel("% of galaxies", fontsize=7.5)
            if place >= len(histograms) - _PER_ROW:
                axes.set_xlabel(of, fontsize=7.5)
        return to_svg(figure, name, title)


def _draw_histogram(axes: Axes, histogram: Histogram, yscale: str) -> None:
    axes.set_title(_wrapped(histogram.panel.title), loc="left", color=INK, pad=4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    edges = histogram.edges
    if histogram.panel.odds:
        edges = np.log10(edges / (1 - edges))
        _scale_to_odds(axes, edges, histogram.counts.sum(axis=0))
    else:
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    if not histogram.objects:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "asked of no galaxy", transform=axes.transAxes, ha="center", color=MUTED)
        return
    shares = 100 * histogram.counts / histogram.objects
    for row, label in enumerate(histogram.panel.labels):
        colour = COLOURS[row % len(COLOURS)]
        axes.stairs(shares[row], edges, color=colour, linewidth=1.3, label=label)
        if len(shares) <= _FILLED:
            axes.stairs(shares[row], edges, color=colour, alpha=0.13, fill=True)
    top = shares.max(initial=0.0)
    if yscale == "log":
        # Down to half of what one object is.
        axes.set(yscale="log", ylim=(50 / histogram.objects, 150))
    else:
        axes.set_ylim(0, 1.08 * top or 1.0)
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    asked = "asked of" if histogram.panel.asked_by else "of"
    title = f"{asked} {histogram.objects:,}"
    legend = axes.legend(title=title, title_fontsize=7, loc="best", handlelength=1.0, labelspacing=0.2)
    legend.get_title().set_color(MUTED)


def _scale_to_odds(axes: Axes, edges: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    """Show the decades of the odds that hold objects, with the probability below each second one or so."""
    filled = np.flatnonzero(counts)
    low, high = (edges[filled[0]], edges[filled[-1] + 1]) if len(filled) else (-1.0, 1.0)
    low, high = np.floor(low + 1e-6), np.ceil(high - 1e-6)
    axes.set_xlim(low, high)
    step = -(-int(high - low) // 6)
    decades = [int(decade) for decade in np.arange(low, high + 1) if decade % step == 0]
    axes.set_xticks(decades, [_probability(decade) for decade in decades])


def _probability(decade: int) -> str:
    """Write the probability whose odds are a power of ten: one or two digits of it."""
    if abs(decade) < 2:
        return ("0.09", "0.5", "0.91")[decade + 1]
    if decade > 0:
        return f"{1 - 10.0**-decade:.{decade}f}"
    return f"{10.0**decade:g}" if decade > -4 else f"$10^{{{decade}}}$"


def _wrapped(title: str, width: int = 46) -> str:
    """Break a title in two lines of about the same length where it is too long for one."""
    if len(title) <= width:
        return title
    spaces = [place for place, letter in enumerate(title) if letter == " "]
    middle = min(spaces, key=lambda place: abs(place - len(title) / 2), default=None)
    return title if middle is None else f"{title[:middle]}\n{title[middle + 1 :]}"
