"""What a lens finder's chances mean, learnt from examples that its networks have not learnt.

A logistic regression (Platt 1999) of what an example is on the network's logit, on the seeing, and on whether
the image is of a sample or of the sky: in samples more looks doubtful. What is stated holds for the sky,
where there are images of it among the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.tasks.lenses import blur

__all__ = ["Unseen", "fit_calibration"]

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
    """

    chance: NDArray[np.float32]
    lens: NDArray[np.bool_]
    seeing: NDArray[np.float64]
    simulated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.chance)

    @classmethod
    def nothing(cls) -> Unseen:
        """Return no example."""
        empty = np.empty(0)
        return cls(empty.astype(np.float32), empty.astype(bool), empty, empty.astype(bool))

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
    columns = [np.log(safe / (1 - safe)), np.ones(len(safe))]
    mixed = 0 < int(unseen.simulated.sum()) < len(unseen)
    known = unseen.seeing[np.isfinite(unseen.seeing)]
    usual = float(np.median(known)) if len(known) else 1.0
    columns.append(blur(unseen.seeing, usual))
    # Thousands of examples of a few images tell nothing of what hangs on the image.
    varied = len(np.unique(known)) >= _IMAGES and float(np.std(columns[-1])) > _SCATTER
    if not varied:
        columns.pop()
    if mixed:
        columns.append(unseen.simulated.astype(np.float64))
    found = _regress(np.stack(columns, axis=1), unseen.lens)
    told: dict[str, Any] = {"slope": float(found[0]), "offset": float(found[1])}
    if varied:
        told["seeing"] = {"slope": float(found[2]), "usual": usual}
    return told


def _regress(design: NDArray[np.float64], lens: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression; the first column is what is to be calibrated."""
    # Platt's targets: a little less than certain, so that a perfect separation has a finite slope.
    many, few = int(lens.sum()), int((~lens).sum())
    target = np.where(lens, (many + 1) / (many + 2), 1 / (few + 2))
    found = np.zeros(design.shape[1])
    found[0] = 1.0
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-(design @ found)))
        weight = predicted * (1 - predicted) + 1e-9
        step = np.linalg.solve((design * weight[:, None]).T @ design, design.T @ (target - predicted))
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return found
