"""Arithmetic of redshift PDFs on a grid: cumulative, quantiles, summaries, recalibration.

A PDF is the probability of each of a grid's bins, and constant within a bin, so that the cumulative
distribution is linear in between: what qp calls a histogram. All functions take n PDFs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ODDS_WIDTH",
    "Summaries",
    "cumulative",
    "cumulative_at",
    "densities",
    "quantiles",
    "recalibrate",
    "summarise",
]

#: Half the interval around the mode whose probability the odds are, in units of 1 + z (Benitez 2000,
#: ApJ 536, 571, Section 2.2, where it is twice the usual error): twice the 0.015 of photometry.
ODDS_WIDTH = 0.03


@dataclass(frozen=True)
class Summaries:
    """What is said of each PDF in one number, float64, shape (n,).

    Attributes
    ----------
    mode
        Centre of the most probable bin.
    mean, median
        Of the distribution.
    low68, high68
        The 16 and 84 % quantiles.
    std
        Standard deviation.
    odds
        Probability within `ODDS_WIDTH` (1 + mode) of the mode.
    """

    mode: NDArray[np.float64]
    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    low68: NDArray[np.float64]
    high68: NDArray[np.float64]
    std: NDArray[np.float64]
    odds: NDArray[np.float64]


def cumulative(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cumulative distribution at the edges, shape (n, bins + 1), from 0 to exactly 1."""
    total = np.zeros((len(probabilities), probabilities.shape[1] + 1))
    np.cumsum(probabilities, axis=1, dtype=np.float64, out=total[:, 1:])
    total /= total[:, -1:]
    return total


def densities(probabilities: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability density in each bin, shape (n, bins)."""
    return np.diff(cumulative(probabilities), axis=1) / np.diff(edges)


def quantiles(
    total: NDArray[np.float64], edges: NDArray[np.floating], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Return where the cumulative distributions reach some levels, shape (n, levels).

    Parameters
    ----------
    total
        See `cumulative`.
    edges
        Of the bins, ascending, shape (bins + 1,).
    levels
        Each between 0 and 1.
    """
    found = np.empty((len(total), len(levels)))
    rows = np.arange(len(total))
    for column, level in enumerate(levels):
        place = np.minimum((total[:, 1:] < level).sum(axis=1), len(edges) - 2)
        below, above = total[rows, place], total[rows, place + 1]
        part = np.where(above > below, (level - below) / np.where(above > below, above - below, 1), 0.5)
        found[:, column] = edges[place] + np.clip(part, 0, 1) * np.diff(edges)[place]
    return found


def cumulative_at(
    total: NDArray[np.float64], edges: NDArray[np.floating], where: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return each cumulative distribution at a redshift of its own, shape (n,): 0 below the grid, 1 above."""
    place = np.clip(np.searchsorted(edges, where, side="right") - 1, 0, len(edges) - 2)
    part = np.clip((where - edges[place]) / np.diff(edges)[place], 0, 1)
    rows = np.arange(len(total))
    return total[rows, place] + part * (total[rows, place + 1] - total[rows, place])


def summarise(probabilities: NDArray[np.floating], edges: NDArray[np.floating]) -> Summaries:
    """Return the numbers that stand for each PDF.

    Parameters
    ----------
    probabilities
        Of the bins, finite and not negative, with a positive sum, shape (n, bins).
    edges
        Of the bins, ascending, shape (bins + 1,).
    """
    total = cumulative(probabilities)
    share = np.diff(total, axis=1)
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    mode = centres[np.argmax(share / widths, axis=1)]
    mean = share @ centres
    # Within a bin the distribution is flat: its own variance is width^2 / 12.
    variance = np.maximum(share @ (centres**2 + widths**2 / 12) - mean**2, 0)
    low, median, high = quantiles(total, edges, (0.16, 0.5, 0.84)).T
    reach = ODDS_WIDTH * (1 + mode)
    odds = cumulative_at(total, edges, mode + reach) - cumulative_at(total, edges, mode - reach)
    return Summaries(mode, mean, median, low, high, np.sqrt(variance), odds)


def recalibrate(
    probabilities: NDArray[np.floating], temperature: float, pit: Sequence[float]
) -> NDArray[np.float64]:
    """Return PDFs that are as wide as they should be.

    Each PDF is raised to the power 1 / ``temperature``; then its cumulative distribution F is replaced by
    G(F), G the distribution of F at the true redshifts of galaxies that were held back, so that there it
    becomes uniform (Bordoloi et al. 2010, MNRAS 406, 881).

    Parameters
    ----------
    probabilities
        Shape (n, bins).
    temperature
        Positive; more than 1 widens.
    pit
        G at equal steps from 0 to 1: ascending from 0 to 1.
    """
    sharp = np.power(np.maximum(np.asarray(probabilities, np.float64), 1e-30), 1 / temperature)
    total = cumulative(sharp)
    knots = np.linspace(0, 1, len(pit))
    return np.diff(np.interp(total, knots, np.asarray(pit, np.float64)), axis=1)
