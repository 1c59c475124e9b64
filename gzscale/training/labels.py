"""The votes on labelled galaxies, and on which side of a split each stands.

See `gzscale.training.label_tables` for the tables that they are read from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.votes import QUESTIONS, USUAL_VOTES, asked

__all__ = [
    "LEAST_LABELS",
    "USUAL_VOTES",
    "Labels",
    "Refusal",
    "folds",
    "name_hashes",
    "require_enough",
]

#: With fewer galaxies nothing is trained or scored.
LEAST_LABELS = 50


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
    BAD_VOLUNTEERS = "BAD_VOLUNTEERS"
    """The number of volunteers is not positive and finite."""
    NO_IMAGE = "NO_IMAGE"
    """There is no image of the galaxy."""
    OTHER_SAMPLE = "OTHER_SAMPLE"
    """The mapping has images of the galaxy, but none of the sample that it was voted on in."""
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
    DUPLICATE_IMAGE = "DUPLICATE_IMAGE"
    """The galaxy has another image: of its identifier, or nearer to its position."""
    APART = "APART"
    """The image with the galaxy's identifier is of another position."""


@dataclass(frozen=True)
class Flags:
    """Of which answers' clean samples galaxies are.

    Attributes
    ----------
    flagged
        bool, shape (n, 37).
    unclear
        Flags that say neither yes nor no; they are not set. One without a value is not set, either.
    """

    flagged: NDArray[np.bool_]
    unclear: int = 0


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
    object_names
        Identifier of each galaxy in the survey's catalog where the table has one beside its name, else
        None; empty where the table has no such column.
    named_by
        The column that the names come from.
    kind
        Which fractions of the table they are: one of `gzscale.training.label_tables.KINDS`, or ``joint``.
    counted
        How many answers to each question the table counts, float32, shape (n, 11), NaN where it does not say;
        None where nothing is known.
    flags
        Of which answers' clean samples the table says that they are; None where it has no flags.
    refused_names, refused_objects
        Names of the rows that are not here, and their identifiers in the survey's catalog, if they have any.
    """

    names: tuple[str, ...]
    joint: NDArray[np.float32]
    volunteers: NDArray[np.float32]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    redshift: NDArray[np.float32]
    refused: Counter[str] = field(default_factory=Counter)
    object_names: tuple[str | None, ...] = ()
    named_by: str = ""
    kind: str = ""
    counted: NDArray[np.float32] | None = None
    flags: Flags | None = None
    refused_names: frozenset[str] = frozenset()
    refused_objects: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.names)

    def split_names(self) -> list[str]:
        """Return the name that each galaxy is split by: its own, or the least of those of the same object.

        A galaxy of Stripe 82 was voted on in several images; all stay on one side. Where one that the table
        did not have before comes to them, they may change sides together. Numbers below 1 name no object.
        """
        objects = [_object(known) for known in self.object_names] or [None] * len(self)
        least: dict[str, str] = {}
        for name, known in zip(self.names, objects, strict=True):
            if known:
                least[known] = min(name, least.get(known, name))
        return [least[known] if known else name for name, known in zip(self.names, objects, strict=True)]

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
            tuple(self.object_names[i] for i in index) if self.object_names else (),
            self.named_by,
            self.kind,
            None if self.counted is None else self.counted[index],
            None if self.flags is None else replace(self.flags, flagged=self.flags.flagged[index]),
            self.refused_names,
            self.refused_objects,
        )

    def votes(self) -> NDArray[np.float32]:
        """Return how many answers to each question were counted, shape (n, 11).

        Where the table does not count them they follow from the fractions and the number of volunteers, and
        where those are not known there were `USUAL_VOTES`. A question none of whose answers has a fraction
        has 0 votes, also where its parent has some: the weights of those who answered came to nothing.
        """
        volunteers = np.where(np.isfinite(self.volunteers), self.volunteers, USUAL_VOTES)
        answered = np.stack([self.joint[:, question.answers].any(axis=1) for question in QUESTIONS], axis=1)
        votes = volunteers[:, None] * asked(self.joint)
        if self.counted is not None:
            votes = np.where(np.isfinite(self.counted), self.counted, votes)
        return (votes * answered).astype(np.float32)

    def says_votes(self) -> NDArray[np.bool_]:
        """Tell of which galaxies the table says how many voted, shape (n,)."""
        known: NDArray[np.bool_] = np.isfinite(self.volunteers)
        return known if self.counted is None else known | np.isfinite(self.counted).any(axis=1)

    def digest(self) -> str:
        """Return the SHA-256 of names, fractions and numbers of votes, in this order of galaxies."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(np.ascontiguousarray(self.joint, "<f4").tobytes())
        digest.update(np.ascontiguousarray(self.volunteers, "<f4").tobytes())
        if self.counted is not None and np.isfinite(self.counted).any():
            digest.update(np.ascontiguousarray(self.counted, "<f4").tobytes())
        return digest.hexdigest()


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


def _object(identifier: str | None) -> str | None:
    """Return an object's identifier, None for what tables write where there is none: 0, -1, -999."""
    number = (identifier or "").removeprefix("-")
    return None if number.isdecimal() and (identifier != number or int(number) == 0) else identifier


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
