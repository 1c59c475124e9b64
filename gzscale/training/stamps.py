"""Cutouts of labelled galaxies in flux, joined to their redshifts, streamed from a cutout store.

A partition is in memory at a time. What the network will see of each galaxy, the central square in float16,
lies in a file that is mapped into memory, so that the number of galaxies is bounded by the disk.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.cutouts.store import Cutouts
from gzscale.errors import BundleError, MissingError
from gzscale.models.observation import Observation
from gzscale.training.labels import Refusal
from gzscale.training.photometry import total_fluxes
from gzscale.training.redshift_labels import RedshiftLabels
from gzscale.training.stored import partitions

__all__ = ["StampSet", "read_stamps"]


@dataclass(frozen=True)
class StampSet:
    """Galaxies with a redshift and a stamp.

    Attributes
    ----------
    labels
        The redshifts; ``labels.refused`` counts what was left out, of labels and of images.
    observation
        The central squares of their stamps, with noise and extinction, in the same order.
    flux
        Total fluxes measured on the whole stamps, nanomaggies, not corrected for extinction, float32,
        shape (n, B): see `gzscale.training.photometry`.
    summed
        Sum of each whole stamp's measured pixels, nanomaggies, float32, shape (n, B).
    """

    labels: RedshiftLabels
    observation: Observation
    flux: NDArray[np.float32]
    summed: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def read_stamps(
    labels: RedshiftLabels,
    location: str,
    geometry: str,
    bands: str,
    required: str,
    size: int,
    side: int,
) -> StampSet:
    """Join redshifts to their cutouts.

    Parameters
    ----------
    labels
        The redshifts.
    location
        A cutout store: the ``cutouts`` folder of a night's output, or the output itself, local or ``s3://``.
    geometry
        Name of the cutouts' geometry.
    bands
        Bands that are read, in this order; one that the store lacks is NaN.
    required
        Bands that each galaxy must have, with flux; the last of them is the reference of the total fluxes.
    size
        Side of the cutouts in pixels.
    side
        Side of the central square that is kept, at most ``size``.

    Returns
    -------
    StampSet
        In the order of the store. A label without a cutout, a cutout without a label and one that cannot be
        used are counted in ``labels.refused``.

    Raises
    ------
    MissingError
        If there are no cutouts of that geometry.
    BundleError
        If the cutouts have another size, or lack a required band.
    """
    refused = Counter(labels.refused)
    order = np.argsort(labels.object_id, kind="stable")
    sorted_ids = labels.object_id[order]
    room = _Room(len(labels), len(bands), side)
    found = False
    for where, cutouts in partitions(location, geometry):
        found = True
        _check(cutouts, where, required, size)
        place = np.minimum(np.searchsorted(sorted_ids, cutouts.object_id), max(0, len(order) - 1))
        matched = sorted_ids[place] == cutouts.object_id if len(order) else np.zeros(len(cutouts), bool)
        refused[Refusal.NO_LABEL] += int((~matched).sum())
        rows = np.flatnonzero(matched)
        refused[Refusal.UNUSABLE_IMAGE] += room.add(cutouts, rows, order[place[rows]], bands, required)
    if not found:
        raise MissingError(f"{location}: no cutouts of a geometry {geometry!r} in it")
    refused[Refusal.NO_IMAGE] += len(labels) - room.matched
    return room.joined(labels, bands, +refused)


def _check(cutouts: Cutouts, location: str, required: str, size: int) -> None:
    missing = [band for band in required if band not in cutouts.bands]
    if missing or cutouts.images.shape[-1] != size:
        raise BundleError(
            f"{location}: cutouts of {cutouts.images.shape[-1]} pixels in {cutouts.bands!r}; {size} pixels "
            f"in at least {required!r} are needed"
        )


class _Room:
    """What is read, in the order in which it is read; the pixels in a temporary file that goes with it."""

    def __init__(self, count: int, bands: int, side: int) -> None:
        with tempfile.TemporaryFile(prefix="gzscale-stamps-") as file:
            shape = (max(1, count), bands, side, side)
            file.truncate(2 * int(np.prod(shape)))
            self.images = np.memmap(file, np.float16, "r+", shape=shape)
        self.matched = 0
        self._parts: list[tuple[NDArray, ...]] = []
        self._filled = 0

    def add(
        self, cutouts: Cutouts, rows: NDArray[np.int64], label: NDArray[np.int64], bands: str, required: str
    ) -> int:
        """Take some rows of a partition, each with its label; return how many cannot be used."""
        self.matched += len(rows)
        places = [cutouts.bands.find(band) for band in bands]
        images = cutouts.images[rows][:, places]
        noise = cutouts.noise[rows][:, places]
        for channel, place in enumerate(places):
            if place < 0:
                images[:, channel], noise[:, channel] = np.nan, np.nan
        needed = [bands.index(band) for band in required]
        flux = total_fluxes(images, needed[-1])
        with np.errstate(invalid="ignore"):
            good = np.flatnonzero((flux[:, needed] > 0).all(axis=1))
        start, side = (images.shape[-1] - self.images.shape[-1]) // 2, self.images.shape[-1]
        stop = self._filled + len(good)
        self.images[self._filled : stop] = images[good, :, start : start + side, start : start + side]
        self._filled = stop
        summed: NDArray[np.float32] = np.asarray(np.nansum(images[good], axis=(2, 3), dtype=np.float32))
        self._parts.append((label[good], noise[good], cutouts.scale[rows[good]], flux[good], summed))
        return len(rows) - len(good)

    def joined(self, labels: RedshiftLabels, bands: str, refused: Counter[str]) -> StampSet:
        """Return all that was taken, in the order in which it lies on the disk."""
        label, noise, scale, *fluxes = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        chosen = labels.take(label)
        chosen.refused.clear()
        chosen.refused.update(refused)
        images = self.images[: self._filled]
        return StampSet(chosen, Observation.of(images, bands, scale, noise, chosen.extinction), *fluxes)
