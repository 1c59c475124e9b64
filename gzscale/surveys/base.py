"""What a survey is: images that can be found for an object, opened and calibrated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.errors import Reason

__all__ = [
    "Checked",
    "Coverage",
    "Fetching",
    "Filtered",
    "Foreseeing",
    "Image",
    "ImageRef",
    "Shareable",
    "Survey",
]


@dataclass(frozen=True, slots=True, order=True)
class ImageRef:
    """The name of one calibrated image in one band, and where it lies.

    Attributes
    ----------
    name
        Unique within the survey and stable: ``frame-r-003918-3-0213``.
    band
        One letter of the survey's bands.
    path
        Relative to the survey's root; for a survey whose images a registry places, their coordinates in it.
    exposure
        What the bands of one pointing share: ``301-3918-3-213``.
    """

    name: str
    band: str
    path: str
    exposure: str


@dataclass(slots=True)
class Image:
    """One image, opened and calibrated.

    Attributes
    ----------
    ref
        Its name.
    pixels
        Flux in nanomaggies a pixel, shape (ny, nx), float32; NaN where there is no measurement.
    wcs
        Celestial `astropy.wcs.WCS` of ``pixels``.
    background_sigma
        Standard deviation of the background in nanomaggies a pixel, float32, on a
        coarse grid of shape (my, mx) that spans the image from edge to edge.
    sha256
        Of the file's bytes as they were stored (compressed where they were).
    size
        Length of that file in bytes.
    flags
        Bit k is set where the survey's mask says ``flag_names[k]``, uint8, shape (ny, nx); None
        if the survey has no masks.
    flag_names
        What the bits of ``flags`` mean, eight at most.
    cards
        What ``wcs`` was made of, such as header cards without line ends: `Shareable.wcs_of` makes it again
        from that; empty where the survey is not `Shareable`.
    seeing
        Full width at half maximum of a star in arcsec; NaN where it is not known. It must not hang on which
        part of the image was opened.
    """

    ref: ImageRef
    pixels: NDArray[np.float32]
    wcs: Any
    background_sigma: NDArray[np.float32]
    sha256: str
    size: int
    flags: NDArray[np.uint8] | None = None
    flag_names: tuple[str, ...] = ()
    cards: str = ""
    seeing: float = math.nan

    def sigma_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the background's standard deviation at 0-based pixel positions.

        Parameters
        ----------
        x, y
            Pixel positions, shape (n,); positions outside take the nearest grid value.

        Returns
        -------
        NDArray[np.float32]
            Nanomaggies a pixel, shape (n,).
        """
        ny, nx = self.pixels.shape
        my, mx = self.background_sigma.shape
        column = np.clip(((x + 0.5) * mx / nx).astype(np.int64), 0, mx - 1)
        row = np.clip(((y + 0.5) * my / ny).astype(np.int64), 0, my - 1)
        return self.background_sigma[row, column]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which images may cover which objects.

    Attributes
    ----------
    images
        Every image that is needed, sorted by (band in the survey's order, name), each once.
    pair_object, pair_image
        Row of the table and position in ``images`` of each pair, int64, shape (n_pairs,),
        sorted by (image, object). A pair says that the stamp may overlap the image.
    lost
        For each object that no image covers, the reason: row -> (reason, one sentence).
    absent
        Images that were looked for and do not exist: once they do, the objects may be
        cut otherwise.
    pair_rank
        0 for an object's own image of a band; 1, 2 ... for those that only fill in, in this order, what
        the ones before do not cover; int64, shape (n_pairs,). None if no image goes before another:
        overlapping images are averaged.
    """

    images: tuple[ImageRef, ...]
    pair_object: NDArray[np.int64]
    pair_image: NDArray[np.int64]
    lost: dict[int, tuple[Reason, str]]
    absent: tuple[ImageRef, ...] = ()
    pair_rank: NDArray[np.int64] | None = None


@runtime_checkable
class Survey(Protocol):
    """Where the pixels come from.

    A survey is picklable and cheap to make: it opens nothing before it is asked.
    """

    kind: str
    bands: str
    pixel_scale: float
    """Side of a pixel of the survey's images in arcsec."""

    def find(self, rows: pa.Table, radius: NDArray[np.float64]) -> Coverage:
        """Find every image that a stamp around each object may overlap.

        Parameters
        ----------
        rows
            Columns ``object_id`` (int64), ``ra``, ``dec`` (float64, degrees, ICRS) and
            whatever locator columns the catalog maps (``run``, ``camcol``, ``field``).
        radius
            Half the diagonal of the object's largest stamp in degrees, shape (n,).
        """
        ...

    def open(self, ref: ImageRef) -> Image:
        """Fetch, decode and calibrate one image; `ImageError` with a reason if it cannot be used."""
        ...

    def state(self, ref: ImageRef) -> str:
        """Return what changes when the stored image does, or ``"absent"``; reads no pixels."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A survey that can tell before a night begins whether what its settings name exists."""

    def check(self) -> None:
        """Look for it, without opening an image; `ConfigError` with what was asked for and what there is."""
        ...


@runtime_checkable
class Fetching(Protocol):
    """A survey whose image files may come over a network, and are kept on this host for a while."""

    transfers: int
    """How many files it fetches at one time; 0 where they are not fetched."""

    def fetch(self, ref: ImageRef) -> None:
        """Fetch what `Survey.open` will read of an image; what goes wrong is left for that to tell."""
        ...


@runtime_checkable
class Filtered(Protocol):
    """A survey that says whose filters it has: letters of bands alone do not tell SDSS's g from Rubin's."""

    filters: str
    """Name that a bundle's inputs have for them: ``sdss``, ``rubin``."""


@runtime_checkable
class Foreseeing(Protocol):
    """A survey that can tell, without reading an image, which ones a partition will open."""

    image_bytes: float
    """Length of a usual image file in bytes."""
    image_seconds: float
    """Time of one core to decode and calibrate a usual image in seconds."""

    def foresee(self, rows: pa.Table, radius: NDArray[np.float64]) -> list[ImageRef] | None:
        """Return the images; None where the rows do not tell. Parameters as of `Survey.find`."""
        ...


@runtime_checkable
class Shareable(Survey, Protocol):
    """A survey whose decoded images several partitions may share: it takes longer to decode them."""

    decoded_bytes: float
    """Length of a usual image's arrays in bytes."""

    def extent(self, ref: ImageRef) -> tuple[float, float, float]:
        """Return ra, dec and radius of a circle that holds an image, in degrees; reads no image.

        Where it lies need not be known: all of the sky holds it.
        """
        ...

    def wants_whole(self, density: float, radius: float) -> bool:
        """Tell whether an image is worth decoding whole for objects that lie about it everywhere.

        Parameters
        ----------
        density
            Objects a square degree.
        radius
            Half the diagonal of a usual stamp in degrees.
        """
        ...

    def open_whole(self, ref: ImageRef) -> Image:
        """Open an image as `Survey.open` does, and decode all of it whatever was found; with ``cards``."""
        ...

    def wcs_of(self, cards: str, name: str, shape: tuple[int, int]) -> Any:
        """Return the WCS of an image of some shape (ny, nx) whose ``cards`` were kept: that of `open`."""
        ...
