"""A frame's file: what it must say, and what happens where it does not."""

import bz2
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from small_frames import SCALE, frame, header

from gzscale.errors import ImageError, Reason
from gzscale.surveys.sdss_frame import FrameId, astropy_wcs, decode_frame

WANTED = FrameId(1234, 3, 100, "r")
NAME = "tree/frame-r-001234-3-0100.fits.bz2"


def changed(**cards) -> bytes:
    head = header()
    for key, value in cards.items():
        if value is None:
            head.remove(key)
        else:
            head[key] = value
    return frame(cards=head)


def error_of(stored: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_frame(stored, NAME, WANTED)
    assert str(caught.value).startswith(NAME)
    return caught.value


def test_a_frame_is_what_astropy_says():
    pixels = np.random.default_rng(0).normal(size=(300, 256)).astype(np.float32)
    got = decode_frame(bz2.compress(frame(pixels)), NAME, WANTED)
    np.testing.assert_array_equal(got.pixels, pixels)
    x, y = np.random.default_rng(1).uniform(-100, 400, (2, 100))
    truth = WCS(header()).all_pix2world(x, y, 0)
    np.testing.assert_allclose(astropy_wcs(got.tan).all_pix2world(x, y, 0), truth, atol=1e-12)
    assert astropy_wcs(got.tan).array_shape == (300, 256)
    assert astropy_wcs(got.tan).wcs.radesys == "ICRS"


@pytest.mark.parametrize("unit", ["count", "", None, "nanomaggy/s", "Jy"])
def test_a_wrong_unit(unit):
    error = error_of(changed(BUNIT=unit))
    assert error.reason is Reason.BAD_UNIT
    assert "nanomaggy" in str(error)


@pytest.mark.parametrize(
    "bad",
    [
        {"CTYPE1": None},
        {"CRVAL1": None},
        {"CD1_1": None},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN"},
        {"CD1_1": 0.0, "CD2_2": 0.0},
        {"CD1_1": SCALE, "CD1_2": SCALE, "CD2_1": SCALE, "CD2_2": SCALE},
        {"CD1_1": 1.0, "CD2_2": 1.0},
        {"CRVAL2": 95.0},
        {"CRPIX1": "many"},
    ],
)
def test_a_missing_or_singular_wcs(bad):
    assert error_of(changed(**bad)).reason is Reason.BAD_WCS


@pytest.mark.parametrize(
    "bad", [{"RUN": 1235}, {"CAMCOL": 4}, {"FRAME": 101}, {"FILTER": "g"}, {"RUN": None}]
)
def test_another_frame_under_the_name(bad):
    error = error_of(changed(**bad))
    assert error.reason is Reason.BAD_IMAGE
    assert next(iter(bad)) in str(error)


def test_the_raw_frame_number_runs_ahead_of_the_field_by_camera_row():
    stored = frame(cards=header(band="u"))
    assert fits.Header.fromstring(stored[:5760].decode("latin1"))["FRAME"] == 104
    assert decode_frame(stored, NAME, FrameId(1234, 3, 100, "u")).pixels.shape == (300, 256)


def test_an_image_without_its_calibration_or_with_another_s():
    whole = frame()
    assert error_of(whole[: whole.index(b"XTENSION")]).reason is Reason.BAD_IMAGE
    other = frame(np.zeros((300, 200), np.float32))
    mixed = whole[: whole.index(b"XTENSION")] + other[other.index(b"XTENSION") :]
    error = error_of(mixed)
    assert error.reason is Reason.BAD_IMAGE
    assert "200" in str(error)
    assert error_of(frame(calibration=0.0)).reason is Reason.BAD_IMAGE
    assert error_of(frame(sky_counts=np.nan)).reason is Reason.BAD_IMAGE


def test_an_image_that_is_a_cube_or_a_table():
    sink = fits.PrimaryHDU(np.zeros((2, 30, 30), np.float32), header(shape=(30, 30)))
    import io

    out = io.BytesIO()
    sink.writeto(out)
    assert error_of(out.getvalue()).reason is Reason.BAD_IMAGE


def test_a_larger_trim_is_still_a_frame():
    pixels = np.zeros((1600, 100), np.float32)
    assert decode_frame(frame(pixels), NAME, WANTED).pixels.shape == (1600, 100)


def test_frames_are_decoded_on_threads():
    stored = [bz2.compress(frame(np.full((300, 256), i, np.float32))) for i in range(8)]

    def work(i):
        got = decode_frame(stored[i], NAME, WANTED)
        return float(got.pixels[0, 0]), astropy_wcs(got.tan).all_pix2world(0, 0, 0)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, list(range(8)) * 5))
    assert [flux for flux, _ in results] == [float(i) for i in range(8)] * 5
    assert len({tuple(map(float, corner)) for _, corner in results}) == 1
