"""From which distance on an image counts as unlike those that a committee has learnt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["USUAL_SHARE", "usual_distance"]

#: Share of galaxies such as those learnt whose distance counts as usual.
USUAL_SHARE = 0.99


def usual_distance(
    distance: NDArray[np.floating], fold: NDArray[np.integer], share: float = USUAL_SHARE
) -> float:
    """Return the limit of a committee's distance.

    What is compared with the limit is the mean distance of all members, to an image that none has learnt.
    No galaxy of the training set has been left out by all. So each member's distance to a galaxy that it
    has learnt is replaced by the one of the same rank among those that it has not: the members' means then
    scatter as they would for new galaxies, with what the members have in common.

    Parameters
    ----------
    distance
        Of each galaxy from the training set of each member, shape (members, n).
    fold
        Of each galaxy, shape (n,): the member that has not learnt it.
    share
        Share of new galaxies of the same kind that lie below the limit.
    """
    as_new = np.array(distance, np.float64)
    for number, own in enumerate(as_new):
        unseen = fold == number
        if not unseen.any() or unseen.all():
            continue
        learnt, new = np.sort(own[~unseen]), np.sort(own[unseen])
        rank = (np.searchsorted(learnt, own[~unseen]) + 0.5) / len(learnt)
        own[~unseen] = np.interp(rank, (np.arange(len(new)) + 0.5) / len(new), new)
    return float(np.quantile(as_new.mean(axis=0), share))
