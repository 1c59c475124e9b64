"""What is sent to a device of an observation's objects: all that some bundles look at, once for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.models.observation import Observation

__all__ = ["Layout", "join"]


@dataclass(frozen=True)
class Layout:
    """The arrays that stand for a block of objects.

    Attributes
    ----------
    bands
        One letter each, in their order.
    size
        Side of the cutouts.
    side
        Side of their central square that is sent.
    measured
        Whether noise and extinction are sent as well.
    """

    bands: str
    size: int
    side: int
    measured: bool

    def empty(self, rows: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
        """Return room for that many objects with images of that type."""
        images = np.empty((rows, len(self.bands), self.side, self.side), dtype.newbyteorder("="))
        scale = np.empty(rows, np.float64)
        if not self.measured:
            return images, scale
        return images, scale, np.empty((rows, len(self.bands)), np.float32), np.empty(rows, np.float32)

    def fill(
        self,
        arrays: tuple[NDArray[Any], ...],
        observation: Observation,
        rows: slice | NDArray[np.integer],
    ) -> None:
        """Put some of an observation's objects, at least one, into arrays.

        What the observation lacks of the bands is NaN; rows of the arrays beyond the objects are the last
        one's. Of an array of rows each has to be there, or it is an IndexError.
        """
        rows = _consecutive(rows, len(observation))
        scale = observation.scale[rows]
        count, seen = len(scale), self._centre(self.side)
        places = [observation.bands.find(band) for band in self.bands]
        for channel, place in enumerate(places):
            known = place >= 0
            arrays[0][:count, channel] = observation.images[rows, place, seen, seen] if known else np.nan
            if self.measured:
                arrays[2][:count, channel] = observation.noise[rows, place] if known else np.nan
        arrays[1][:count] = scale
        if self.measured:
            arrays[3][:count] = observation.extinction[rows]
        for array in arrays:
            array[count:] = array[count - 1]

    def pick(self, tensors: tuple[Tensor, ...], wanted: Layout) -> tuple[Tensor, ...]:
        """Return of tensors in this layout those of another one that is a part of it, contiguous."""
        kept = tensors if wanted.measured else tensors[:2]
        if (wanted.bands, wanted.side) == (self.bands, self.side):
            return kept
        # Where the cutout's own centre lies, in what was sent: halves are rounded as if it were cut anew.
        start = self._centre(wanted.side).start - self._centre(self.side).start
        seen = slice(start, start + wanted.side)
        places = [self.bands.index(band) for band in wanted.bands]
        images = torch.stack([kept[0][:, place, seen, seen] for place in places], dim=1)
        if not wanted.measured:
            return images, kept[1]
        return images, kept[1], torch.stack([kept[2][:, place] for place in places], dim=1), kept[3]

    def _centre(self, side: int) -> slice:
        """Return where a cutout's central square of some side is."""
        start = (self.size - side) // 2
        return slice(start, start + side)


def _consecutive(rows: slice | NDArray[np.integer], count: int) -> slice | NDArray[np.integer]:
    """Return rows as a slice where each follows the last: what an array of them picks is copied twice.

    Those of an array that reach beyond the count stay one, which numpy refuses: it cuts a slice off.
    """
    if isinstance(rows, slice) or not len(rows) or rows[0] < 0 or rows[-1] >= count:
        return rows
    if (np.diff(rows) != 1).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1)


def join(layouts: Iterable[Layout]) -> Layout:
    """Return the layout that holds all of those, of cutouts of one size."""
    every = list(layouts)
    return Layout(
        "".join(dict.fromkeys("".join(layout.bands for layout in every))),
        every[0].size,
        max(layout.side for layout in every),
        any(layout.measured for layout in every),
    )
