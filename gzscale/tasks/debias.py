"""Votes corrected for what distance hides, from a catalog's own nearest galaxies.

The same galaxy further away is smaller and fainter: its arms are not seen, and it gets more votes for
"smooth". Hart et al. 2016 [1]_ correct for this by matching distributions: for each answer, the
fractions at a redshift are mapped onto those of the nearest galaxies of the sample, rank by rank. So it is
done here, in bins of equal numbers of galaxies, question by question: a galaxy keeps its rank among those
at its redshift who were asked the question, and takes the fraction that this rank has in the nearest bin;
the answers are then made to sum to 1.

What it assumes, and where it fails:

- that galaxies at all redshifts of the sample are alike but for their distance. A sample limited in
  magnitude is not: its far galaxies are more luminous. Bin in luminosity first, or give a sample
  limited in volume;
- it corrects a sample, not a galaxy: of two far galaxies that look alike, one may have arms;
- few galaxies that were asked a question in a bin say nothing of it: below `LEAST` it stays as it was.

References
----------
.. [1] Hart et al. 2016, MNRAS 461, 3663, Section 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.votes import QUESTIONS, asked, to_joint

__all__ = ["BINS", "LEAST", "debias"]

#: Bins of redshift, at most, and galaxies of a bin, at least, that were asked a question.
BINS, LEAST = 20, 50
#: A galaxy counts as asked a question where this share of volunteers was (Willett et al. 2013 use 0.5).
ASKED_SHARE = 0.5


def debias(
    conditional: NDArray[np.floating], redshift: NDArray[np.floating], bins: int = BINS
) -> NDArray[np.float64]:
    """Map the vote fractions of each redshift onto those of the nearest galaxies.

    Parameters
    ----------
    conditional
        Conditional fractions, shape (n, 37).
    redshift
        Shape (n,); galaxies where it is not finite or not positive keep their fractions.
    bins
        Of redshift, with equal numbers of galaxies.

    Returns
    -------
    NDArray[np.float64]
        Debiased conditional fractions, shape (n, 37); the answers of each question sum to 1.

    Raises
    ------
    CatalogError
        If fewer than two bins of `LEAST` galaxies have a redshift.
    """
    known = np.flatnonzero(np.isfinite(redshift) & (redshift > 0))
    bins = min(bins, len(known) // LEAST)
    if bins < 2:
        raise CatalogError(
            f"{len(known)} galaxies have a redshift, {2 * LEAST} are needed: distributions cannot be compared"
        )
    order = known[np.argsort(redshift[known], kind="stable")]
    members = np.array_split(order, bins)
    result = np.nan_to_num(np.asarray(conditional, np.float64))
    shares = asked(to_joint(result))
    for index, question in enumerate(QUESTIONS):
        used = shares[:, index] >= ASKED_SHARE
        nearest = members[0][used[members[0]]]
        if len(nearest) < LEAST:
            continue
        for answer in range(question.start, question.stop):
            truth = np.sort(np.asarray(conditional, np.float64)[nearest, answer])
            for group in members[1:]:
                chosen = group[used[group]]
                if len(chosen) >= LEAST:
                    result[chosen, answer] = _matched(np.asarray(conditional)[chosen, answer], truth)
        total = result[:, question.answers].sum(axis=1, keepdims=True)
        result[:, question.answers] /= np.where(total > 0, total, 1)
    return result


def _matched(values: NDArray[np.floating], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each value the one of the same rank in another sample; equal values get equal ones."""
    ordered = np.sort(values)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    rank = (low + high) / 2 / len(values)
    matched: NDArray[np.float64] = np.interp(rank, (np.arange(len(truth)) + 0.5) / len(truth), truth)
    return matched
