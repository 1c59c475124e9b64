"""The picture of an evaluation: finders at low rates of false positives, and whether chances are honest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gzscale.training.lens_evaluate import LARGE, LensEvaluation, LensTest
from gzscale.training.lens_metrics import Reliability

__all__ = ["draw_evaluation"]

_COLOURS = {"network": "#4477aa", "colour and arc filter": "#ee6677"}


def draw_evaluation(found: LensEvaluation, test: LensTest, path: str | Path) -> None:
    """Write the picture.

    Parameters
    ----------
    found
        What was found.
    test
        On what.
    path
        A ``.png`` or ``.svg`` file.
    """
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_rates(left, found, test)
    _draw_reliability(middle, found.diagrams[0], "at the training prevalence", logarithmic=False)
    _draw_reliability(right, found.diagrams[1], "at the stated prevalence", logarithmic=True)
    figure.savefig(path, dpi=150)


def _draw_rates(axes: Axes, found: LensEvaluation, test: LensTest) -> None:
    """Draw the share of lenses found against the rate of false positives, which is what limits a list."""
    # Others without a score, at 0, cannot be false positives.
    lens, other = test.lens, ~test.lens & (found.chance > 0)
    large = lens & (test.radius > LARGE)
    for name, scores in (("network", found.chance), ("colour and arc filter", found.arc_filter)):
        for chosen, line, words in ((lens, "--", "all"), (large, "-", f'> {LARGE:g}"')):
            if chosen.any():
                rate, share = _rates(scores[chosen], scores[other])
                axes.plot(rate, share, line, color=_COLOURS[name], lw=1.4, label=f"{name}, {words}")
    axes.set(
        xscale="log",
        xlim=(0.5 / max(1, int(other.sum())), 1),
        ylim=(0, 1),
        xlabel="rate of false positives",
        ylabel="share of lenses found",
    )
    axes.legend(fontsize=6.5, frameon=False)


def _rates(
    lenses: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    thresholds = np.sort(others)[::-1]
    share = 1 - np.searchsorted(np.sort(lenses), thresholds, side="right") / len(lenses)
    # No false positive at all is drawn at half of one.
    rate = np.maximum(np.arange(len(others)), 0.5) / len(others)
    return rate, share


def _draw_reliability(axes: Axes, diagram: Reliability, words: str, logarithmic: bool) -> None:
    low = max(1e-5, float(diagram.predicted.min()) / 2) if logarithmic else 0.0
    axes.plot([low, 1], [low, 1], color="#999999", lw=0.8)
    axes.errorbar(
        diagram.predicted, diagram.observed, diagram.error, fmt="o", ms=4, color=_COLOURS["network"]
    )
    axes.set(xlabel="predicted chance", ylabel="share of lenses", title=words, xlim=(low, 1), ylim=(low, 1))
    axes.title.set_fontsize(8.5)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
