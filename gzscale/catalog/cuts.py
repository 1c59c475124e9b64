"""Cuts on an input catalog's own columns: which rows are the night's objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.catalog.canonical import to_floats

__all__ = ["Cut", "parse_cuts", "passing"]

_COMPARISONS = {
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
    "!=": pc.not_equal,
    "<": pc.less,
    ">": pc.greater,
    "=": pc.equal,
}
_CUT = re.compile(r"\s*(\w[\w.]*)\s*(<=|>=|!=|<|>|==?)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Cut:
    """One comparison of a column with a number."""

    column: str
    comparison: str
    value: float


def parse_cuts(text: str) -> tuple[Cut, ...]:
    """Read cuts: ``refExtendedness = 1 and r_cModelFlux > 363``.

    Parameters
    ----------
    text
        Comparisons (``<``, ``<=``, ``>``, ``>=``, ``=``, ``!=``) of a column with a number, joined by
        ``and``.

    Raises
    ------
    ValueError
        If a part is no such comparison.
    """
    cuts = []
    for part in re.split(r"\band\b", text, flags=re.IGNORECASE):
        match = _CUT.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{part.strip()!r} is not a comparison of a column with a number, such as "
                "'refExtendedness = 1'; join several with 'and'"
            )
        cuts.append(Cut(match[1], match[2].replace("==", "="), float(match[3])))
    return tuple(cuts)


def passing(batch: pa.RecordBatch, cuts: Sequence[Cut]) -> NDArray[np.int64]:
    """Return which rows of a batch pass every cut; a missing value and a NaN pass none.

    Raises
    ------
    CatalogError
        If a column holds no numbers.
    """
    keep = np.ones(batch.num_rows, dtype=bool)
    for cut in cuts:
        values = batch.column(cut.column)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        numbers = to_floats(values, cut.column)
        passes = _COMPARISONS[cut.comparison](numbers, cut.value)
        passes = pc.and_(passes, pc.invert(pc.is_nan(numbers)))
        keep &= pc.fill_null(passes, False).to_numpy(zero_copy_only=False)
    return np.flatnonzero(keep)
