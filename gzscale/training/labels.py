"""The votes on labelled galaxies, and on which side of a split each stands.

See `gzscale.training.label_tables` for the tables that they are read from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.votes import asked

__all__ = [
    "LEAST_LABELS",
    "Labels",
    "Refusal",
    "folds",
    "name_hashes",
    "require_enough",
]

#: With fewer galaxies nothing is trained or scored.
LEAST_LABELS = 50
#: Volunteers of a galaxy whose table does not say: Galaxy Zoo 2's median (Willett et al. 2013, Section 2.3).
USUAL_VOTES = 44.0


class Refusal(StrEnum):
    """Why a row of a label table, or an image, is not used."""

    MISSING_ID = "MISSING_ID"
    """The row has no identifier."""
    DUPLICATE_ID = "DUPLICATE_ID"
    """An earlier row has the same identifier."""
    MISSING_FRACTION = "MISSING_FRACTION"
    """A vote fraction is NaN or no number."""
    BAD_FRACTION = "BAD_FRACTION"
    """A vote fraction is not within 0 and 1."""
    BAD_SUM = "BAD_SUM"
    """The fractions of a question do not sum to the share that was asked it."""
    NO_IMAGE = "NO_IMAGE"
    """There is no image of the galaxy."""
    NO_LABEL = "NO_LABEL"
    """There is no label for the image."""
    MISSING_REDSHIFT = "MISSING_REDSHIFT"
    """The redshift is NaN, null or no number."""
    BAD_REDSHIFT = "BAD_REDSHIFT"
    """The redshift is not positive, as -9 and 0 stand for none, or not that of any galaxy."""
    BEYOND_GRID = "BEYOND_GRID"
    """The redshift is above the last bin of the bundle's grid."""
    UNUSABLE_IMAGE = "UNUSABLE_IMAGE"
    """A band that is needed was not measured, or has no flux."""


@dataclass(frozen=True)
class Labels:
    """The votes on some galaxies.

    Attributes
    ----------
    names
        Identifier of each galaxy, which is the stem of its image's file name.
    joint
        Joint fractions in the Kaggle scheme, float32, shape (n, 37).
    volunteers
        How many looked at each galaxy, float32, shape (n,); NaN where the table does not say.
    ra, dec
        Degrees, shape (n,); NaN where the table does not say.
    redshift
        Shape (n,); NaN where the table does not say.
    refused
        Rows of the table that are not here, by reason (`Refusal`).
    """

    names: tuple[str, ...]
    joint: NDArray[np.float32]
    volunteers: NDArray[np.float32]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    redshift: NDArray[np.float32]
    refused: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: NDArray[np.integer]) -> Labels:
        """Return the galaxies at some positions, in that order."""
        return Labels(
            tuple(self.names[i] for i in index),
            self.joint[index],
            self.volunteers[index],
            self.ra[index],
            self.dec[index],
            self.redshift[index],
            Counter(self.refused),
        )

    def votes(self) -> NDArray[np.float32]:
        """Return how many were asked each question, shape (n, 11); `USUAL_VOTES` galaxies' where unknown."""
        volunteers = np.where(np.isfinite(self.volunteers), self.volunteers, USUAL_VOTES)
        return (volunteers[:, None] * asked(self.joint)).astype(np.float32)


def require_enough(labels: Labels, what: str) -> None:
    """Refuse to train on, or to score with, too few galaxies.

    Raises
    ------
    CatalogError
        If there are fewer than `LEAST_LABELS`, with what was refused.
    """
    if len(labels) < LEAST_LABELS:
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(labels.refused.items()))
        raise CatalogError(
            f"{what}: {len(labels)} labelled galaxies with an image, at least {LEAST_LABELS} are needed"
            f"{f'; not used: {refused}' if refused else ''}"
        )


def name_hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of the SHA-256 of each name, shape (n,)."""
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def positions(names: Sequence[str]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each name, its hash over 2**64, shape (n,).

    It depends on the name alone: a galaxy stays on its side of a split however many others there are.
    """
    return name_hashes(names).astype(np.float64) / 2.0**64


def folds(names: Sequence[str], count: int = 5) -> NDArray[np.int64]:
    """Return the fold of each galaxy, 0 to ``count`` - 1, shape (n,): its position times ``count``."""
    return np.minimum((positions(names) * count).astype(np.int64), count - 1)
