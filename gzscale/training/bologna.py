"""The FITS of the Bologna lens-finding challenge as training and evaluation input.

A folder with ``lens`` and ``nolens``, in it one file an object (space: ``imageEUC_VIS-100003.fits``) or one
folder a band (ground: ``Band1/imageSDSS_R-100003.fits``). Pixels are maggies; a pixel of 100 is masked. All
images of a folder have one size and one pixel scale.

References
----------
.. [1] Metcalf et al. 2019, A&A 625, A119.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.observation import background_noise

__all__ = ["Challenge", "is_challenge", "read_challenge"]

_NAME = re.compile(r"image(?P<telescope>[A-Z]+)_(?P<filter>[A-Z]+)-(?P<number>\d+)\.fits")
#: Letter of each filter; ground in the order of wavelength.
_LETTERS = {"U": "u", "G": "g", "R": "r", "I": "i", "VIS": "V"}
_ORDER = "ugriV"
#: Value of masked pixels, and nanomaggies in a maggy.
_MASKED, _NANO = 100.0, 1e9
#: An image of more pixels a side is none of the challenge's (101).
_MAX_SIDE = 1024


@dataclass(frozen=True)
class Challenge:
    """Images and what they are.

    Attributes
    ----------
    number
        The challenge's number of each object, int64, shape (n,).
    lens
        Bool, shape (n,).
    images
        Nanomaggies a pixel, float32, shape (n, bands, y, x); NaN where masked.
    bands
        One letter each: ``ugri``, or ``V`` for Euclid's VIS.
    scale
        Arcsec a pixel.
    noise
        Sigma of a pixel in nanomaggies, float32, shape (n, bands).
    """

    number: NDArray[np.int64]
    lens: NDArray[np.bool_]
    images: NDArray[np.float32]
    bands: str
    scale: float
    noise: NDArray[np.float32]


def is_challenge(folder: str | Path) -> bool:
    """Tell whether a folder is laid out as the challenge's are."""
    return Path(folder, "lens").is_dir() and Path(folder, "nolens").is_dir()


def read_challenge(folder: str | Path) -> Challenge:
    """Read a folder of the challenge.

    Parameters
    ----------
    folder
        With ``lens`` and ``nolens``.

    Raises
    ------
    CatalogError
        If there are no such images, a band of an object is missing, or an image is not like the others.
    """
    files: dict[tuple[bool, int], dict[str, Path]] = {}
    for lens in (True, False):
        for path in sorted(Path(folder, "lens" if lens else "nolens").rglob("*.fits")):
            found = _NAME.fullmatch(path.name)
            if found is None or found["filter"] not in _LETTERS:
                raise CatalogError(
                    f"{path}: not named as the challenge's images are (imageSDSS_R-100003.fits)"
                )
            files.setdefault((lens, int(found["number"])), {})[_LETTERS[found["filter"]]] = path
    if not files:
        raise CatalogError(f"{folder}: no image of the challenge in its folders lens and nolens")
    bands = "".join(sorted({band for paths in files.values() for band in paths}, key=_ORDER.index))
    for (_, number), paths in files.items():
        missing = [band for band in bands if band not in paths]
        if missing:
            raise CatalogError(f"{folder}: object {number} has no image in {missing[0]}, others have")
    keys = list(files)
    read = [[_read(files[key][band]) for band in bands] for key in keys]
    kinds = {(pixels.shape, round(scale, 6)) for row in read for pixels, scale in row}
    if len(kinds) > 1:
        raise CatalogError(f"{folder}: images of different shapes or pixel scales: {sorted(kinds)}")
    images = np.stack([np.stack([pixels for pixels, _ in row]) for row in read])
    return Challenge(
        number=np.array([number for _, number in keys], np.int64),
        lens=np.array([lens for lens, _ in keys]),
        images=images,
        bands=bands,
        scale=read[0][0][1],
        noise=background_noise(images),
    )


def _read(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return nanomaggies a pixel and arcsec a pixel."""
    try:
        with fits.open(path, memmap=False) as units:
            header = units[0].header
            shape, step = (header["NAXIS2"], header["NAXIS1"]), abs(float(header["CDELT2"])) * 3600
            if header["NAXIS"] != 2 or shape[0] != shape[1] or not 8 <= shape[0] <= _MAX_SIDE or not step > 0:
                raise CatalogError(
                    f"{path}: {shape} pixels of {step:g} arcsec are no square image of a galaxy"
                )
            pixels = np.asarray(units[0].data, np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(f"{path}: cannot be read as one of the challenge's images: {error}") from error
    return np.where(pixels == _MASKED, np.float32(np.nan), pixels * np.float32(_NANO)), step
