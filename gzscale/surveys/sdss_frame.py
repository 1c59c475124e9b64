"""One SDSS frame: from the bytes of its file to calibrated pixels, WCS and noise."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.wcs import WCS
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fitsdata import image_pixels, table_vectors
from gzscale.surveys.fitsfile import Hdu, read_fits
from gzscale.surveys.sdss_noise import NoiseModel, dark_variance, gain
from gzscale.surveys.tan import TanFrame

__all__ = ["Frame", "FrameId", "astropy_wcs", "check_header", "decode_frame"]

#: Four times the 2048 x 1489 pixels of a frame: room for other trims, none for damage.
MAX_PIXELS = 4 * 2048 * 1489
#: SDSS pixels are 0.396 arcsec; a WCS whose pixels are outside this range [arcsec] is not one of a frame.
PIXEL_RANGE = (0.05, 5.0)
#: Filters in the order in which a star drifts over them (Gunn et al. 1998, AJ 116, 3040). Each is two frames
#: behind the one before, and so is the raw frame number, FRAME, of one field.
CAMERA_ROWS = "riuzg"
FRAMES_A_ROW = 2
#: What the primary header's BUNIT may say for nanomaggies.
UNITS = frozenset({"nanomaggy", "nanomaggies", "nmgy"})

_wcs_lock = threading.Lock()


@dataclass(frozen=True, slots=True, order=True)
class FrameId:
    """What a frame's name and its header must agree on."""

    run: int
    camcol: int
    field: int
    band: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame.

    Attributes
    ----------
    pixels
        Nanomaggies a pixel, float32, shape (ny, nx); NaN where there is no measurement.
    tan
        Its world coordinate system.
    noise
        The model of its noise.
    """

    pixels: NDArray[np.float32]
    tan: TanFrame
    noise: NoiseModel


def decode_frame(stored: bytes, name: str, wanted: FrameId) -> Frame:
    """Decode and check a frame's file.

    Parameters
    ----------
    stored
        The file as it is stored, plain or bzip2.
    name
        Of the file, for messages.
    wanted
        The frame that it should be.

    Raises
    ------
    ImageError
        As `gzscale.surveys.fitsfile.read_fits`, and BAD_IMAGE, BAD_UNIT, BAD_WCS.
    """
    try:
        hdus = read_fits(stored, name, MAX_PIXELS)
        tan = check_header(hdus[0].header, name, wanted)
        noise = _noise_model(hdus, name, wanted, tan.shape)
        return Frame(image_pixels(hdus[0], name), tan, noise)
    except (ValueError, KeyError, TypeError, IndexError, VerifyError) as error:
        # Headers can be wrong in more ways than are named above; one file must not stop the rest.
        raise ImageError(
            Reason.BAD_IMAGE, f"{name}: cannot be decoded ({type(error).__name__}: {error}); fetch it again"
        ) from error


def check_header(header: fits.Header, name: str, wanted: FrameId) -> TanFrame:
    """Check that a primary header is that of the wanted frame, and return its WCS.

    Raises
    ------
    ImageError
        OVERSIZED_IMAGE, BAD_IMAGE, BAD_UNIT or BAD_WCS.
    """
    shape = _shape(header, name)
    cards = {
        "RUN": wanted.run,
        "CAMCOL": wanted.camcol,
        "FRAME": wanted.field + FRAMES_A_ROW * CAMERA_ROWS.find(wanted.band),
        "FILTER": wanted.band,
    }
    for key, value in cards.items():
        found = _card(header, key)
        if (found.strip() if isinstance(found, str) else found) != value:
            raise ImageError(
                Reason.BAD_IMAGE,
                f"{name}: the header says {key} {found!r} where its name needs {value!r}; another frame "
                "under this name, fetch it again",
            )
    unit = str(_card(header, "BUNIT") or "").strip()
    if unit.lower() not in UNITS:
        raise ImageError(
            Reason.BAD_UNIT,
            f"{name}: BUNIT is {unit!r}, expected 'nanomaggy'; use the calibrated frames of DR8 or later, "
            "not fpC files",
        )
    return _tan(header, name, shape)


def astropy_wcs(tan: TanFrame) -> WCS:
    """Return the `astropy.wcs.WCS` of a frame; safe to call from several threads."""
    # wcslib's set-up keeps static state.
    with _wcs_lock:
        wcs: Any = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = tan.crval
        wcs.wcs.crpix = tan.crpix
        wcs.wcs.cd = np.reshape(tan.cd, (2, 2))
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        wcs.array_shape = tan.shape
    return wcs


def _card(header: fits.Header, key: str) -> Any:
    try:
        return header.get(key)
    except (ValueError, fits.VerifyError):
        return None


def _shape(header: fits.Header, name: str) -> tuple[int, int]:
    naxis, nx, ny = (_card(header, key) for key in ("NAXIS", "NAXIS1", "NAXIS2"))
    if naxis != 2 or not isinstance(nx, int) or not isinstance(ny, int) or nx < 1 or ny < 1:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: NAXIS {naxis}, {nx} x {ny} pixels; a frame has two axes, 2048 x 1489; fetch it again",
        )
    if nx * ny > MAX_PIXELS:
        raise ImageError(
            Reason.OVERSIZED_IMAGE,
            f"{name}: the header claims {nx} x {ny} pixels; a frame has 2048 x 1489. Fetch the file again",
        )
    return ny, nx


def _tan(header: fits.Header, name: str, shape: tuple[int, int]) -> TanFrame:
    kinds = tuple(str(_card(header, f"CTYPE{i}") or "").strip() for i in (1, 2))
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    values = [_card(header, key) for key in keys]
    if kinds != ("RA---TAN", "DEC--TAN"):
        raise _bad_wcs(name, f"CTYPE is {kinds[0]!r}, {kinds[1]!r}, expected RA---TAN, DEC--TAN")
    absent = [
        key
        for key, value in zip(keys, values, strict=True)
        if not isinstance(value, int | float) or not np.isfinite(value)
    ]
    if absent:
        raise _bad_wcs(name, f"{', '.join(absent)} missing or not a number")
    ra, dec, x, y, a, b, c, d = map(float, values)
    if abs(dec) > 90:
        raise _bad_wcs(name, f"the reference point is at declination {dec}")
    if _card(header, "LONPOLE") not in (None, 180, 180.0):
        raise _bad_wcs(name, f"LONPOLE is {_card(header, 'LONPOLE')}, not 180")
    tan = TanFrame((ra % 360.0, dec), (x, y), (a, b, c, d), shape)
    norms = np.hypot(a, c), np.hypot(b, d)
    if not all(PIXEL_RANGE[0] <= 3600 * norm <= PIXEL_RANGE[1] for norm in norms) or tan.scale < 0.1 * max(
        norms
    ):
        raise _bad_wcs(
            name,
            f"the CD matrix ({a:.3g}, {b:.3g}; {c:.3g}, {d:.3g}) is singular, or its pixels are not "
            f"{PIXEL_RANGE[0]} to {PIXEL_RANGE[1]} arcsec",
        )
    return tan


def _bad_wcs(name: str, what: str) -> ImageError:
    return ImageError(Reason.BAD_WCS, f"{name}: no usable WCS: {what}; fetch the file again")


def _noise_model(hdus: list[Hdu], name: str, wanted: FrameId, shape: tuple[int, int]) -> NoiseModel:
    ny, nx = shape
    if len(hdus) < 3:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: {len(hdus)} HDUs, without the calibration vector (1) and the sky (2) of a frame; "
            "fetch it again",
        )
    calibration = image_pixels(hdus[1], name)
    table = table_vectors(hdus[2], ("ALLSKY", "XINTERP", "YINTERP"), name)
    sky, x, y = table["ALLSKY"], table["XINTERP"], table["YINTERP"]
    fits_together = calibration.shape == (nx,) and x.shape == (nx,) and y.shape == (ny,) and sky.ndim == 2
    if not fits_together or min(sky.shape) < 2:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: calibration {calibration.shape}, sky {sky.shape}, interpolation {x.shape} and "
            f"{y.shape} do not fit the image's {nx} x {ny} pixels; fetch the file again",
        )
    if not (
        np.all(np.isfinite(sky))
        and np.all(np.isfinite(x))
        and np.all(np.isfinite(y))
        and np.all(calibration > 0)
    ):
        raise ImageError(
            Reason.BAD_IMAGE, f"{name}: calibration or sky extension holds impossible values; fetch it again"
        )
    return NoiseModel(
        calibration=calibration,
        sky=sky,
        x=x,
        y=y,
        gain=gain(wanted.band, wanted.camcol, wanted.run),
        dark_variance=dark_variance(wanted.band, wanted.camcol, wanted.run),
    )
