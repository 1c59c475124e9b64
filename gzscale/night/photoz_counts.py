"""What a night's redshifts come to: how they are distributed, and how many carry which flag."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.catalog.redshift_columns import REDSHIFT_COLUMNS, RedshiftFlag
from gzscale.catalog.schema import Column

__all__ = ["MOST", "REDSHIFT_NEEDS", "STEP", "RedshiftCounts", "has_redshifts"]

#: Columns that are read, and how redshifts are counted: in narrow bins, so that any grid can be drawn.
REDSHIFT_NEEDS = ("z_median", "z_flags")
STEP, MOST = 0.005, 8.0


@dataclass
class RedshiftCounts:
    """Redshifts of a night, counted partition by partition.

    Attributes
    ----------
    counts
        Objects in bins of `STEP` from 0 to `MOST`, int64.
    flags
        Flag -> objects that carry it.
    objects, without
        Objects that were answered for, and those among them that were given no number.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(round(MOST / STEP), np.int64))
    flags: dict[RedshiftFlag, int] = field(default_factory=lambda: dict.fromkeys(RedshiftFlag, 0))
    objects: int = 0
    without: int = 0

    def take(self, done: pa.Table) -> None:
        """Count the objects of a partition that were answered for."""
        median = done["z_median"]
        flags = done["z_flags"].to_numpy()
        self.objects += done.num_rows
        self.without += median.null_count
        values = pc.drop_null(median).to_numpy()
        self.counts += np.histogram(values, len(self.counts), (0, MOST))[0]
        for flag in RedshiftFlag:
            self.flags[flag] += int(((flags & flag.value) != 0).sum())


def has_redshifts(columns: tuple[Column, ...]) -> bool:
    """Tell whether a task's columns are those of redshifts."""
    return set(REDSHIFT_COLUMNS) <= set(columns)
