"""Which images the partitions of a night share, and how they are opened then.

An image that reaches beyond a partition's HEALPix pixel is another partition's, too, if there are objects.
Where they are so many that each partition decodes much of it, it is decoded once, whole, and left for the
others of this host (`gzscale.surveys.decoded`). Otherwise each decodes what it wants of it, unless it is
there already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix
from numpy.typing import NDArray

from gzscale.catalog.pixels import Partition
from gzscale.surveys.base import Image, ImageRef, Shareable
from gzscale.surveys.decoded import DecodedImages

__all__ = ["ForeseenRoom", "Sharing", "shared_images"]

#: Area of the sky in square degrees.
_SKY = 360**2 / np.pi
#: Points of a circle around an image that are looked at.
_POINTS = 32


def shared_images(
    survey: Shareable,
    images: Sequence[ImageRef],
    rows: pa.Table,
    radius: NDArray[np.float64],
    partition: Partition,
    max_objects: int,
) -> frozenset[str]:
    """Return the names of the images that a partition shares with others.

    Parameters
    ----------
    survey
        Knows where its images lie.
    images
        Those that the partition needs.
    rows, radius
        Its objects, as `Survey.find` takes them.
    partition
        Its pixel.
    max_objects
        Objects of a partition at most.
    """
    if partition.order == 0 or not len(radius):
        return frozenset()
    size = float(np.median(radius))
    if not survey.wants_whole(_density(rows, size, partition, max_objects), size):
        return frozenset()
    place: dict[str, int] = {}
    extents: list[tuple[float, float, float]] = []
    for ref in images:
        if ref.exposure not in place:
            place[ref.exposure] = len(extents)
            extents.append(survey.extent(ref))
    beyond = _reach_beyond(np.array(extents).reshape(-1, 3), partition)
    return frozenset(ref.name for ref in images if beyond[place[ref.exposure]])


def _density(rows: pa.Table, radius: float, partition: Partition, max_objects: int) -> float:
    """Return objects a square degree where there are any: a pixel at a catalog's edge may be nearly empty."""
    area = _SKY / 12 / 4**partition.order
    ra, dec = (rows[name].to_numpy() for name in ("ra", "dec"))
    east = ((ra - ra[0] + 180) % 360 - 180) * np.cos(np.radians(dec[0]))
    box = (np.ptp(east) + 2 * radius) * (np.ptp(dec) + 2 * radius)
    # The parent, four times as large, has more than max_objects, or the partition would be larger.
    return float(max(rows.num_rows / min(area, box), max_objects / (4 * area)))


def _reach_beyond(circles: NDArray[np.float64], partition: Partition) -> NDArray[np.bool_]:
    """Tell of circles (ra, dec and radius in degrees, shape (n, 3)) which are not wholly in a pixel."""
    ra, dec, radius = np.radians(circles.T)[..., None]
    bearing = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    # Haversine's formula for the point at a distance and bearing.
    sine = np.sin(dec) * np.cos(radius) + np.cos(dec) * np.sin(radius) * np.cos(bearing)
    east = np.sin(bearing) * np.sin(radius) * np.cos(dec)
    ra = ra + np.arctan2(east, np.cos(radius) - np.sin(dec) * sine)
    pixels = lonlat_to_healpix(
        Longitude(ra * u.rad), Latitude(np.arcsin(np.clip(sine, -1, 1)) * u.rad), partition.order
    )
    return np.asarray((pixels != partition.pixel).any(axis=1))


class Sharing:
    """Opens one partition's images, if need be; those that are shared stay for others.

    Parameters
    ----------
    survey
        A `Survey` that is `Shareable`.
    decoded
        What is shared.
    origin
        Hash of what the survey's pixels come from, but for the stored images.
    partition, max_objects
        See `shared_images`.
    """

    def __init__(
        self, survey: Shareable, decoded: DecodedImages, origin: str, partition: Partition, max_objects: int
    ) -> None:
        self._survey, self._decoded, self._origin = survey, decoded, origin
        self._partition, self._max_objects = partition, max_objects
        self._names: frozenset[str] = frozenset()

    def choose(self, images: Sequence[ImageRef], rows: pa.Table, radius: NDArray[np.float64]) -> None:
        """Find out which of the partition's images are shared; rows and radii as in `Survey.find`."""
        self._names = shared_images(self._survey, images, rows, radius, self._partition, self._max_objects)

    def open(self, ref: ImageRef, state: str) -> tuple[Image, bool]:
        """Return an image whose stored file has a state, and whether it was decoded for that."""
        origin = self._origin_of(state)
        if ref.name in self._names:
            return self._decoded.open(self._survey, ref, origin)
        image = self._decoded.find(self._survey, ref, origin)
        return (self._survey.open(ref), True) if image is None else (image, False)

    def holds(self, ref: ImageRef, state: str) -> bool:
        """Tell whether an image whose stored file has a state is there decoded."""
        return self._decoded.holds(ref, self._origin_of(state))

    def _origin_of(self, state: str) -> str:
        return f"{self._origin}\n{state}"


class ForeseenRoom:
    """What will be there of shared images while a night goes on, for its forecast.

    Parameters
    ----------
    count
        How many images it has room for.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._names: OrderedDict[str, None] = OrderedDict()

    def take(self, name: str, shared: bool) -> bool:
        """Use an image, which stays if it is shared, and tell whether it is there already."""
        there = name in self._names
        if there or shared:
            self._names[name] = None
            self._names.move_to_end(name)
        if len(self._names) > self._count:
            self._names.popitem(last=False)
        return there
