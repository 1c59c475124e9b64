"""The stamps of one geometry in one partition while they are being cut, band after band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gzscale.config import GeometryConfig
from gzscale.cutouts.affine import Tiles, affine_tiles
from gzscale.cutouts.flags import flags_below
from gzscale.cutouts.slots import assign_slots
from gzscale.cutouts.stamp import CLIPPED, COVERED, FINITE, NAN_HALF, Target, finish_stamps, resample
from gzscale.surveys.base import Image

__all__ = ["Stack"]

#: Two images are compared where each covers this much of a pixel, if they share this many pixels. Their
#: median difference may be so many standard deviations of both images' noise, and this share of the flux.
WHOLE, LEAST_SHARED, LARGEST_DIFFERENCE, CALIBRATION = 0.999, 16, 3.0, 0.05


class Stack:
    """Stamps of every object of a partition in one geometry.

    Images are added band by band, in the order of their numbers; `pass_image` follows each image, whether it
    could be added or not, and `finish_band` closes each band.
    Only stamps that several images may overlap are accumulated in float32, from the first of these images to
    the last: all others are written as float16 at once. Where images overlap they are averaged,
    weighted with the fractions that they cover; or, if some go before others, each fills in what those
    before it leave.

    Parameters
    ----------
    config
        The geometry.
    scales
        Arcsec a pixel, shape (n,); NaN for objects that are not cut.
    bands
        How many bands.

    Attributes
    ----------
    bits
        Bits of the float16 stamps, uint16, shape (n, bands, size, size); NaN where nothing was measured.
    coverage
        Fraction of finite pixels, float32, shape (n, bands).
    noise
        See `finish_band`, float32, shape (n, bands); NaN without coverage.
    reached
        Whether an image contains the object's position, bool, shape (n, bands).
    flags, flag_names
        Bits of the images' masks below each stamp, uint8, shape (n, bands), and what they mean; no names if
        the survey has no masks.
    conflicts
        (object, band) -> the two images that differ, where both cover the stamp, by more than their noise
        allows, and by how much. Such a band is not measured.
    clipped
        Pixels beyond the range of float16, in all.
    """

    def __init__(self, config: GeometryConfig, scales: NDArray[np.float64], bands: int) -> None:
        count, size = len(scales), config.size
        self.config = config
        self.scales = scales
        # Each band writes its stamps whole: memory is touched once.
        self.bits = np.empty((count, bands, size, size), dtype=np.uint16)
        self.coverage = np.zeros((count, bands), dtype=np.float32)
        self.noise = np.full((count, bands), np.nan, dtype=np.float32)
        self.reached = np.zeros((count, bands), dtype=bool)
        self.flags = np.zeros((count, bands), dtype=np.uint8)
        self.flag_names: tuple[str, ...] = ()
        self.conflicts: dict[tuple[int, int], tuple[int, int, str]] = {}
        self._used: list[tuple[NDArray[np.int64], int, int]] = []
        self.clipped = 0
        self._target: Target | None = None
        self._variance = np.zeros(0)
        self._written = np.zeros(0, dtype=bool)
        self._layers = np.zeros(0, dtype=np.int64)
        self._sources: dict[int, tuple[int, float]] = {}
        self._complete_after: dict[int, NDArray[np.int64]] = {}

    def start_band(self, band: int, layers: NDArray[np.int64], spans: NDArray[np.int64]) -> None:
        """Prepare a band.

        Parameters
        ----------
        band
            Its index.
        layers
            0 for an object that at most one image of this band may overlap, 1 for one whose images are
            averaged, otherwise the number of ranks that its images may have; shape (n,).
        spans
            Numbers of the first and of the last of its images, shape (n, 2).
        """
        count, bands = self.coverage.shape
        size = self.config.size
        self._layers = np.where(np.isfinite(self.scales), layers, 0)
        self._sources = {}
        slot, slots = assign_slots(self._layers, *spans.T)
        several = np.flatnonzero(self._layers)
        ends, starts = np.unique(spans[several, 1], return_inverse=True)
        self._complete_after = {
            number: several[starts == place] for place, number in enumerate(ends.tolist())
        }
        self._target = Target(
            out=self.bits.reshape(-1),
            start=(np.arange(count, dtype=np.int64) * bands + band) * size * size,
            slot=slot,
            sums=np.zeros((slots, 2, size, size), dtype=np.float32),
            tally=np.zeros((count, 3)),
        )
        self._variance = np.zeros(count)
        self._written = slot >= 0

    def add(
        self,
        image: Image,
        number: int,
        band: int,
        rows: NDArray[np.int64],
        ra: NDArray[np.float64],
        dec: NDArray[np.float64],
        ranks: NDArray[np.int64] | None = None,
    ) -> None:
        """Resample some objects' stamps out of one image of the current band.

        Parameters
        ----------
        image
            The image.
        number
            By what number `image_index` shall name it.
        band
            Index of the current band.
        rows
            Objects that may overlap the image; those that are not cut are passed over.
        ra, dec
            Positions of all objects in degrees.
        ranks
            Rank of the image among each of these objects' images, shape of ``rows``; None if none goes before
            another.
        """
        assert self._target is not None
        assert number <= min(self._complete_after, default=number), "places may be taken by other stamps"
        cut = np.isfinite(self.scales[rows])
        rows, ranks = rows[cut], None if ranks is None else ranks[cut]
        if not len(rows):
            return
        tiles = affine_tiles(image.wcs, ra[rows], dec[rows], self.scales[rows], self.config.size)
        x, y = tiles.centre.T
        height, width = image.pixels.shape
        with np.errstate(invalid="ignore"):
            inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        self.reached[rows[inside], band] = True
        before = self._target.tally[rows, COVERED]
        first = self._target.slot[rows]
        layered = (self._layers[rows] > 1) & (ranks is not None)
        if ranks is not None:
            self._target.slot[rows] = np.where(layered, first + ranks, first)
        pixels = np.ascontiguousarray(image.pixels)
        # Tiles do not fill a stamp that the image's projection reaches in part.
        tiled = np.bincount(tiles.stamp, tiles.box[:, 2] * tiles.box[:, 3], len(rows))
        self.bits[rows[tiled < self.config.size**2], band] = NAN_HALF
        self._written[rows] = True
        resample(pixels, _renumbered(tiles, rows), self._target)
        places = self._target.slot[rows]
        self._target.slot[rows] = first
        share = self._target.tally[rows, COVERED] - before
        if image.flags is not None:
            self.flag_names = image.flag_names
            self.flags[rows, band] |= flags_below(image.flags, tiles, len(rows))
        seen = np.isfinite(x) & np.isfinite(y)
        sigma = np.zeros(len(rows))
        sigma[seen] = image.sigma_at(x[seen], y[seen])
        areas = _areas(tiles, len(rows))
        alone = ~layered & (share > 0)
        self._used.append((rows[alone], band, number))
        self._variance[rows] += np.where(alone, share**2 * sigma**2 * areas, 0.0)
        for at in np.flatnonzero(layered & (share > 0)).tolist():
            self._sources[int(places[at])] = number, float(sigma[at] ** 2 * areas[at])

    def pass_image(self, number: int, band: int) -> None:
        """Finish the stamps for which an image was the last, and let further ones have their places.

        Parameters
        ----------
        number
            The image's number; added or unusable.
        band
            Index of the current band.
        """
        rows = self._complete_after.pop(number, None)
        if rows is None:
            return
        assert self._target is not None
        for row in rows[self._layers[rows] > 1].tolist():
            self._fill_in(row, band, self._target)
        finish_stamps(self._target, rows)
        for first, layers in zip(self._target.slot[rows].tolist(), self._layers[rows].tolist(), strict=True):
            self._target.sums[first : first + layers] = 0
            for slot in range(first, first + layers):
                self._sources.pop(slot, None)

    def finish_band(self, band: int) -> None:
        """Finish the stamps of the current band.

        The noise of a stamp is the background's standard deviation that a cutout pixel would have if
        source pixels were independent: sqrt(sum_k (c_k s_k)^2 A_k) / sum_k c_k, over the images k that
        went into it, with s_k the image's background sigma a source pixel at the object (the nearest
        place in the image), A_k the area of a cutout pixel in source pixels and c_k the sum of
        covered fractions. For one image that is s sqrt(A).
        """
        assert self._target is not None
        target = self._target
        for number in list(self._complete_after):
            self.pass_image(number, band)
        self.bits[~self._written, band] = NAN_HALF
        covered = target.tally[:, COVERED]
        some = covered > 0
        self.coverage[:, band] = target.tally[:, FINITE] / self.config.size**2
        self.noise[some, band] = np.sqrt(self._variance[some]) / covered[some]
        self.clipped += int(target.tally[:, CLIPPED].sum())
        self._target = None

    def _fill_in(self, row: int, band: int, target: Target) -> None:
        """Put an object's layers together in the first: each fills in what those before it leave."""
        first = int(target.slot[row])
        flux, covered = target.sums[first]
        before: tuple[int, float] | None = None
        for slot in range(first, first + int(self._layers[row])):
            if slot not in self._sources:
                continue
            number, variance = self._sources[slot]
            if slot == first:
                share = float(covered.sum())
            else:
                if before is not None:
                    said = _disagreement(target.sums[first], target.sums[slot], before[1] + variance)
                    if said:
                        self.conflicts[row, band] = before[0], number, said
                share = _add_missing(flux, covered, target.sums[slot])
            before = before or (number, variance)
            if share > 0:
                self._used.append((np.array([row]), band, number))
            self._variance[row] += share**2 * variance
        if (row, band) in self.conflicts:
            covered[:] = 0
        target.tally[row, COVERED] = covered.sum()

    def image_index(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return which images went into the stamps.

        Returns
        -------
        numbers
            Of these images, ascending.
        index
            Where in ``numbers`` the images of each object and band are, in order of addition, then -1;
            shape (n, bands, at least 1).
        """
        count, bands = self.coverage.shape
        lengths = [len(rows) for rows, _, _ in self._used]
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _, _ in self._used)])
        band = np.repeat(np.array([band for _, band, _ in self._used], np.int64), lengths)
        number = np.repeat(np.array([number for _, _, number in self._used], np.int64), lengths)
        numbers, place = np.unique(number, return_inverse=True)
        stamp = rows * bands + band
        order = np.argsort(stamp, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.searchsorted(stamp[order], stamp[order])
        index = np.full((count, bands, 1 + int(rank.max(initial=0))), -1, dtype=np.int32)
        index[rows, band, rank] = place
        return numbers, index

    def keep(self, rows: Sequence[int]) -> NDArray[np.float16]:
        """Return the stamps of some objects, shape (len(rows), bands, size, size).

        ``rows`` ascend. The stamps are moved within the stack's own memory, which holds nothing
        else afterwards.
        """
        if len(rows) < len(self.bits):
            for place, row in enumerate(rows):
                self.bits[place] = self.bits[row]
        return self.bits[: len(rows)].view(np.float16)


def _add_missing(
    flux: NDArray[np.float32], covered: NDArray[np.float32], layer: NDArray[np.float32]
) -> float:
    """Add what a layer covers and those before it do not, in place; return the covered fractions added."""
    more, share = layer
    room = np.maximum(np.float32(1) - covered, np.float32(0))
    take = np.minimum(share, room)
    with np.errstate(invalid="ignore", divide="ignore"):
        flux += np.where(take > 0, more * (take / share), np.float32(0))
    covered += take
    return float(take.sum())


def _disagreement(one: NDArray[np.float32], other: NDArray[np.float32], variance: float) -> str:
    """Say by how much two layers differ where both cover a pixel, or return nothing if they agree.

    Images that share pixels are made of much the same exposures: their difference has at most the noise of
    both, and calibrations agree to a few percent.
    """
    both = (one[1] > WHOLE) & (other[1] > WHOLE)
    if both.sum() < LEAST_SHARED:
        return ""
    difference = float(np.median(np.abs(one[0][both] - other[0][both])))
    allowed = LARGEST_DIFFERENCE * np.sqrt(variance) + CALIBRATION * float(np.median(np.abs(one[0][both])))
    if difference <= allowed:
        return ""
    return (
        f"the median difference of their {int(both.sum())} shared pixels is {difference:.3g} nanomaggies, "
        f"at most {allowed:.3g} are noise"
    )


def _renumbered(tiles: Tiles, rows: NDArray[np.int64]) -> Tiles:
    return Tiles(rows[tiles.stamp], tiles.box, tiles.origin, tiles.matrix, tiles.centre, tiles.size)


def _areas(tiles: Tiles, count: int) -> NDArray[np.float64]:
    """Area of a cutout pixel in source pixels, of each stamp's first tile; 0 without one."""
    areas = np.zeros(count)
    stamp, first = np.unique(tiles.stamp, return_index=True)
    areas[stamp] = np.abs(np.linalg.det(tiles.matrix[first]))
    return areas
