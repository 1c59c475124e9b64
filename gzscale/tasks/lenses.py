"""Strong lenses: the chance that a galaxy is one, at a stated prevalence, and its Einstein radius."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LENS", "RADIUS", "RADIUS_EDGES", "calibrated", "radius_bin"]

#: The head that has the chance of a lens at the training prevalence.
LENS = "lens"
#: The head that has the probability of each bin of the Einstein radius, given a lens.
RADIUS = "einstein_radius"
#: Edges of these bins in arcsec.
RADIUS_EDGES = np.geomspace(0.5, 4.0, 22)


def radius_bin(radius: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the bin of each Einstein radius in arcsec; those outside belong to the first or the last."""
    place = np.searchsorted(RADIUS_EDGES, radius, side="right") - 1
    return np.clip(place, 0, len(RADIUS_EDGES) - 2).astype(np.int64)
