"""Reads cutouts that are files of their own: JPEG or PNG pictures, and FITS cubes in g, r, i.

A picture is taken to show the field that Galaxy Zoo 2 showed its volunteers: 424 pixels at
0.02 x petroR90 arcsec, the galaxy in the middle. One of another size is cut to the central
square and resized to 424, averaging over areas where it shrinks. A FITS cutout is taken to
show the bundle's own field, 96 pixels at 0.08 x r90 [arcsec], and must have that many pixels.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gzscale.errors import ImageError, Reason

__all__ = ["FITS_SUFFIXES", "PICTURE_SIDE", "PICTURE_SUFFIXES", "FluxCutout", "read_flux", "read_picture"]

#: Side of the pictures that are returned.
PICTURE_SIDE = 424
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
FITS_SUFFIXES = frozenset({".fits", ".fit"})
#: Longest file, and most pixels of a picture: far more than any cutout of one galaxy needs.
MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
#: Shortest side of a picture: of Galaxy Zoo 2's field a network looks at some 64 x 64 numbers, and half
#: of them at least must be there.
MIN_SIDE = 32
#: Decoders that are used, whatever else Pillow knows.
_FORMATS = ("JPEG", "PNG")
_UNITS = frozenset({"nanomaggy", "nanomaggies", "nmgy", "nanomaggies/pixel", "nanomaggy/pixel"})


@dataclass(frozen=True, slots=True)
class FluxCutout:
    """A cutout in flux.

    Attributes
    ----------
    flux
        Nanomaggies a pixel, float32, shape (band, y, x).
    bands
        One letter each.
    scale
        Arcsec a pixel.
    """

    flux: NDArray[np.float32]
    bands: str
    scale: float


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a JPEG or PNG picture.

    Parameters
    ----------
    path
        The file. Grey, palette and CMYK pictures become RGB; 16 bit grey is divided by 257;
        transparency is laid on black.

    Returns
    -------
    NDArray[np.uint8]
        Red, green, blue, shape (424, 424, 3), the first row at the top.

    Raises
    ------
    ImageError
        ``EMPTY_IMAGE``, ``TRUNCATED_IMAGE``, ``OVERSIZED_IMAGE``, ``UNDERSIZED_IMAGE``, ``BAD_IMAGE``,
        ``MISSING_IMAGE``.
    """
    data = _read(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own bound on pixels is lower than Pillow's
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(
                        Reason.OVERSIZED_IMAGE,
                        f"{path}: {image.width} x {image.height} pixels; a picture has at most {MAX_PIXELS}",
                    )
                if min(image.size) < MIN_SIDE:
                    raise ImageError(
                        Reason.UNDERSIZED_IMAGE,
                        f"{path}: {image.width} x {image.height} pixels; a picture has at least {MIN_SIDE} "
                        "on each side",
                    )
                image.load()
                return _square(_rgb(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(Reason.BAD_IMAGE, f"{path}: neither a JPEG nor a PNG picture") from error
    except Image.DecompressionBombError as error:
        raise ImageError(Reason.OVERSIZED_IMAGE, f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = Reason.TRUNCATED_IMAGE if "truncated" in str(error) else Reason.BAD_IMAGE
        raise ImageError(reason, f"{path}: cannot be decoded: {error}") from error


def read_flux(path: str | Path, bands: str = "gri") -> FluxCutout:
    """Read a FITS cutout: the first image with three axes.

    Parameters
    ----------
    path
        The file. The slowest axis is the band; a header keyword ``BANDS`` names them.
    bands
        What they are where the header does not say.

    Returns
    -------
    FluxCutout
        Its pixel scale is that of the celestial WCS.

    Raises
    ------
    ImageError
        ``EMPTY_IMAGE``, ``TRUNCATED_IMAGE``, ``OVERSIZED_IMAGE``, ``NOT_FITS``, ``BAD_IMAGE``,
        ``BAD_UNIT``, ``BAD_WCS``, ``MISSING_IMAGE``.
    """
    data = _read(path)
    if not data.startswith(b"SIMPLE  ="):
        raise ImageError(Reason.NOT_FITS, f"{path}: does not begin as a FITS file does")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(data), memmap=False, ignore_missing_simple=False) as units:
                return _flux(path, units, bands, len(data))
    except ImageError:
        raise
    except (OSError, ValueError, TypeError, KeyError, fits.VerifyError) as error:
        reason = Reason.TRUNCATED_IMAGE if "truncated" in str(error).lower() else Reason.BAD_IMAGE
        raise ImageError(reason, f"{path}: cannot be read: {error}") from error


def _read(path: str | Path) -> bytes:
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise ImageError(
                Reason.OVERSIZED_IMAGE, f"{path}: {size} bytes; a cutout has at most {MAX_BYTES}"
            )
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(Reason.MISSING_IMAGE, f"{path}: no such file") from error
    except OSError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(Reason.BAD_IMAGE, f"{path}: cannot be read: {error}") from error
    if not data:
        raise ImageError(Reason.EMPTY_IMAGE, f"{path}: 0 bytes")
    return data


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layered).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image) -> NDArray[np.uint8]:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != PICTURE_SIDE:
        method = Image.Resampling.BOX if side > PICTURE_SIDE else Image.Resampling.BILINEAR
        image = image.resize((PICTURE_SIDE, PICTURE_SIDE), method)
    return np.asarray(image, dtype=np.uint8)


def _flux(path: str | Path, units: fits.HDUList, bands: str, length: int) -> FluxCutout:
    for unit in units:
        if getattr(unit, "is_image", False) and unit.header.get("NAXIS", 0) == 3:
            break
    else:
        raise ImageError(Reason.BAD_IMAGE, f"{path}: no image with the axes x, y, band")
    header = unit.header
    shape = tuple(int(header[f"NAXIS{axis}"]) for axis in (3, 2, 1))
    claimed = abs(int(header["BITPIX"])) // 8 * shape[0] * shape[1] * shape[2]
    if claimed > MAX_BYTES:
        raise ImageError(Reason.OVERSIZED_IMAGE, f"{path}: claims {claimed} bytes; at most {MAX_BYTES}")
    if claimed > length:
        raise ImageError(
            Reason.TRUNCATED_IMAGE, f"{path}: claims {claimed} bytes of data in a file of {length}"
        )
    names = str(header.get("BANDS", bands)).strip()
    if shape[0] != len(names) or len(set(names)) != len(names):
        raise ImageError(Reason.BAD_IMAGE, f"{path}: {shape[0]} planes, but the bands are {names!r}")
    unit_name = str(header.get("BUNIT", "nanomaggy")).strip().lower()
    if unit_name not in _UNITS:
        raise ImageError(Reason.BAD_UNIT, f"{path}: BUNIT is {unit_name!r}, not nanomaggy")
    flux = np.asarray(unit.data, dtype=np.float32)
    return FluxCutout(flux, names, _pixel_scale(path, header))


def _pixel_scale(path: str | Path, header: fits.Header) -> float:
    try:
        wcs = WCS(header).celestial
        scales = proj_plane_pixel_scales(wcs) * 3600 if wcs.has_celestial else np.array([np.nan])
    except (ValueError, TypeError, AttributeError, MemoryError, ArithmeticError) as error:
        raise ImageError(Reason.BAD_WCS, f"{path}: {error}") from error
    scale = float(np.sqrt(np.prod(scales)))
    if not 0 < scale < 3600 or wcs.naxis != 2:
        raise ImageError(Reason.BAD_WCS, f"{path}: no celestial WCS, or a pixel scale of {scale} arcsec")
    return scale
