"""What a lens finder's chances mean, learnt from examples that its networks have not learnt.

A logistic regression (Platt 1999) of what an example is on the network's logit, and on whether the image is
of a sample or of the sky: in samples more looks doubtful. What is stated holds for the sky, where there are
images of it among the examples. A term of the seeing is found before, and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.tasks.lenses import RADIUS_EDGES, blur, radius_quantiles, tempered

__all__ = ["Unseen", "fit_calibration", "fit_temperature"]

#: Radii from which on a temperature is fitted, its range, and the share of a central interval.
_RADII, _TEMPERATURES, _CENTRAL = 50, (0.4, 2.5), 0.68
#: Different seeings, and their scatter (ln), from which on what depends on them can be told from chance.
_IMAGES, _SCATTER = 10, 0.03


@dataclass(frozen=True)
class Unseen:
    """What a network says of examples that it has not learnt.

    Attributes
    ----------
    chance
        Of a lens, float32, shape (m,).
    lens
        What they are, shape (m,).
    seeing
        Full width at half maximum of a star in arcsec, shape (m,), NaN where it is not known.
    simulated
        Whether their images are of a sample, not of the sky, shape (m,).
    share
        Probability of each bin of the Einstein radius, float32, shape (m, 21).
    radius
        Einstein radius in arcsec, float32, shape (m,), NaN where there is none.
    weight
        How much each radius counts, float32, shape (m,).
    """

    chance: NDArray[np.float32]
    lens: NDArray[np.bool_]
    seeing: NDArray[np.float64]
    simulated: NDArray[np.bool_]
    share: NDArray[np.float32]
    radius: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.chance)

    @classmethod
    def nothing(cls) -> Unseen:
        """Return no example."""
        number, truth = np.empty(0, np.float32), np.empty(0, bool)
        bins = np.empty((0, len(RADIUS_EDGES) - 1), np.float32)
        return cls(number, truth, np.empty(0), truth, bins, number, number)

    @classmethod
    def joined(cls, parts: Sequence[Unseen]) -> Unseen:
        """Return those of several in a row."""
        return cls(
            **{
                item.name: np.concatenate([getattr(part, item.name) for part in parts])
                for item in fields(cls)
            }
        )

    def take(self, rows: NDArray) -> Unseen:
        """Return some of them."""
        return Unseen(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


def fit_calibration(unseen: Unseen) -> dict[str, Any]:
    """Fit slope and offset of the logit, and how it depends on the seeing, by Newton's method.

    How it depends on the seeing samples tell, where theirs differs enough: their fields are many, and differ
    in noise and dust beside, whereas a few real fields differ in much else. Without such samples the sky's
    images tell it, if they are enough.

    Parameters
    ----------
    unseen
        Half of them or so lenses.

    Returns
    -------
    dict
        ``slope`` and ``offset`` of the calibrated logit, and where the seeing differs among the examples
        ``seeing``: ``slope`` by ln(seeing / usual), and ``usual``, arcsec; see
        `gzscale.tasks.lenses.calibrated_chance`.
    """
    safe = np.clip(unseen.chance.astype(np.float64), 1e-7, 1 - 1e-7)
    logit = np.log(safe / (1 - safe))
    known = unseen.seeing[np.isfinite(unseen.seeing)]
    usual = float(np.median(known)) if len(known) else 1.0
    relative = blur(unseen.seeing, usual)
    columns = [logit, np.ones(len(logit))]
    term = None
    for rows in (unseen.simulated, ~unseen.simulated):
        if term is None and _varied(unseen.seeing[rows], relative[rows]):
            chosen = np.stack([*columns, relative], axis=1)[rows]
            term = float(_regress(chosen, unseen.lens[rows])[2])
    if 0 < unseen.simulated.sum() < len(unseen):
        columns.append(unseen.simulated.astype(np.float64))
    found = _regress(np.stack(columns, axis=1), unseen.lens, (term or 0.0) * relative)
    told: dict[str, Any] = {"slope": float(found[0]), "offset": float(found[1])}
    if term is not None:
        told["seeing"] = {"slope": term, "usual": usual}
    return told


def _varied(seeing: NDArray[np.float64], relative: NDArray[np.float64]) -> bool:
    """Tell whether the seeing differs enough: thousands of examples of a few images tell nothing of it."""
    return len(np.unique(seeing[np.isfinite(seeing)])) >= _IMAGES and float(np.std(relative)) > _SCATTER


def fit_temperature(unseen: Unseen) -> float:
    """Find the temperature at which a network's central intervals hold as many Einstein radii as they say.

    Those of several networks' mean are a little wider: each is fitted where it has not learnt, and there is
    nothing that none has learnt.

    Parameters
    ----------
    unseen
        Examples, lenses with known radii among them.

    Returns
    -------
    float
        From 0.4 to 2.5; 1 where there are too few radii to tell.
    """
    known = np.flatnonzero(np.isfinite(unseen.radius))
    if len(known) < _RADII:
        return 1.0
    share, radius, weight = unseen.share[known], unseen.radius[known], unseen.weight[known]

    def held(logarithm: float) -> float:
        level = radius_quantiles(tempered(share, {"radius_temperature": np.exp(logarithm)}), (0.16, 0.84))
        inside = (level[:, 0] < radius) & (radius < level[:, 1])
        return float(np.average(inside, weights=weight))

    low, high = np.log(_TEMPERATURES)
    # The colder, the narrower the intervals.
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < _CENTRAL else (low, middle)
    return round(float(np.exp((low + high) / 2)), 4)


def _regress(
    design: NDArray[np.float64], lens: NDArray[np.bool_], known: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression; the first column is what is to be calibrated.

    ``known`` is a part of the logit that is not fitted.
    """
    # Platt's targets: a little less than certain, so that a perfect separation has a finite slope.
    many, few = int(lens.sum()), int((~lens).sum())
    target = np.where(lens, (many + 1) / (many + 2), 1 / (few + 2))
    found = np.zeros(design.shape[1])
    found[0] = 1.0
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-(design @ found + known)))
        weight = predicted * (1 - predicted) + 1e-9
        step = np.linalg.solve((design * weight[:, None]).T @ design, design.T @ (target - predicted))
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return found
