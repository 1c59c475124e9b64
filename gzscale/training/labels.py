"""Labels of Galaxy Zoo 2 from tables, and which galaxies are held back.

Two tables are read: the 37 columns of the Kaggle scheme (``Class1.1`` ... ``Class11.6``),
and the released votes (``t01_smooth_or_features_a01_smooth_weighted_fraction`` ...), whose
conditional fractions are multiplied down the tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_joint

__all__ = ["Labels", "held_out", "read_labels"]

#: Columns that may name the image of a galaxy, in the order in which they are looked for.
ID_COLUMNS = ("asset_id", "GalaxyID", "object_id", "dr7objid")
#: Share of galaxies that training never sees.
HELD_OUT_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Labels:
    """The votes on some galaxies.

    Attributes
    ----------
    names
        Identifier of each galaxy, which is the stem of its image's file name.
    joint
        Joint fractions in the Kaggle scheme, float32, shape (n, 37).
    """

    names: tuple[str, ...]
    joint: NDArray[np.float32]


def read_labels(path: str | Path, kind: str = "weighted_fraction") -> Labels:
    """Read the labels of a CSV table.

    Parameters
    ----------
    path
        The table.
    kind
        Suffix of the vote columns that are used where the table has released votes:
        ``weighted_fraction``, ``fraction`` or ``debiased``.

    Returns
    -------
    Labels
        In the table's order. A question that nobody was asked is 0 in all its answers.

    Raises
    ------
    CatalogError
        If the table has no identifier or neither set of columns, an identifier twice, or a
        fraction that is missing or not in [0, 1].
    """
    table = pd.read_csv(path, dtype=dict.fromkeys(ID_COLUMNS, str))
    name = next((column for column in ID_COLUMNS if column in table.columns), None)
    if name is None:
        raise CatalogError(f"{path}: none of the identifiers {', '.join(ID_COLUMNS)}")
    names = tuple(table[name])
    if len(set(names)) != len(names):
        raise CatalogError(f"{path}: {len(names) - len(set(names))} rows repeat an earlier {name}")
    if set(KAGGLE_NAMES) <= set(table.columns):
        joint = table[list(KAGGLE_NAMES)].to_numpy(np.float64)
    else:
        columns = [f"{answer}_{kind}" for answer in ANSWERS]
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise CatalogError(
                f"{path}: neither {KAGGLE_NAMES[0]} ... {KAGGLE_NAMES[-1]} nor the released votes: "
                f"{len(missing)} columns are missing, the first is {missing[0]!r}"
            )
        joint = to_joint(_normalised(table[columns].to_numpy(np.float64)))
    bad = ~((joint >= 0) & (joint <= 1 + 1e-6)).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise CatalogError(
            f"{path}: {int(bad.sum())} rows have a fraction that is missing or not in [0, 1]; "
            f"the first is row {first} ({name} {names[first]})"
        )
    return Labels(names, joint.astype(np.float32))


def _normalised(conditional: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the answers of each question sum to 1; all are 0 where no answer was counted.

    The table has such questions even where the answer that leads there has votes: the
    weights of those few who were asked came to nothing. It also rounds to 0.001.
    """
    result = conditional.copy()
    for question in QUESTIONS:
        total = conditional[:, question.answers].sum(axis=1, keepdims=True)
        result[:, question.answers] /= np.where(total > 0, total, 1)
    return result


def held_out(names: Sequence[str], share: float = HELD_OUT_SHARE) -> NDArray[np.bool_]:
    """Say which galaxies are held back from training.

    It depends on the name alone, so that a galaxy stays on its side however many others
    there are.

    Parameters
    ----------
    names
        Identifiers.
    share
        Share that is held back.

    Returns
    -------
    NDArray[np.bool_]
        True for those held back, shape (n,).
    """
    hashes = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in names]
    return np.array([value < share * 2.0**64 for value in hashes], dtype=bool)
