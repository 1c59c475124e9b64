import contextlib
import io
import zlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from gzscale.cutouts import pictures
from gzscale.cutouts.pictures import read_flux, read_picture
from gzscale.errors import ImageError, Reason


def gradient(side=424):
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return np.stack(
        [np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 9)], -1
    )


def save(path, array, mode=None, **options):
    Image.fromarray(np.asarray(array), mode=mode).save(path, **options)
    return path


def reason_of(read, path):
    with pytest.raises(ImageError, match=path.name) as caught:
        read(path)
    return caught.value.reason


def test_png_comes_back_exactly(tmp_path):
    array = gradient().astype(np.uint8)
    np.testing.assert_array_equal(read_picture(save(tmp_path / "a.png", array)), array)


def test_jpeg_comes_back_nearly(tmp_path):
    array = gradient().astype(np.uint8)
    found = read_picture(save(tmp_path / "a.jpg", array, quality=95))
    assert found.shape == (424, 424, 3)
    assert np.median(np.abs(found.astype(int) - array)) <= 2


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(gradient().astype(np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg(tmp_path):
    image = Image.fromarray(gradient().astype(np.uint8)).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=95)
    found = read_picture(tmp_path / "a.jpg").astype(int)
    assert np.median(np.abs(found - gradient())) <= 4


def test_sixteen_bit_grey(tmp_path):
    values = np.linspace(0, 65535, 424 * 424).reshape(424, 424).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(found[..., 1], values / 257, atol=0.51)


def test_transparency_is_laid_on_black(tmp_path):
    array = np.full((424, 424, 4), 200, np.uint8)
    array[:, :212, 3] = 0
    array[:, 212:, 3] = 255
    found = read_picture(save(tmp_path / "a.png", array))
    assert (found[:, :212] == 0).all()
    assert (found[:, 212:] == 200).all()


@pytest.mark.parametrize(("width", "height"), [(848, 848), (212, 212), (848, 1000), (600, 424)])
def test_other_sizes_show_the_central_square(tmp_path, width, height):
    y, x = np.mgrid[:height, :width]
    side = min(width, height)
    radius = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) / side
    array = np.repeat((np.clip(1 - 2 * radius, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    found = read_picture(save(tmp_path / "a.png", array))
    y, x = np.mgrid[:424, :424] - 211.5
    expected = np.clip(1 - 2 * np.hypot(x, y) / 424, 0, 1) * 255
    assert found.shape == (424, 424, 3)
    assert np.abs(found[..., 0] - expected).max() < 4


def test_files_that_are_no_pictures(tmp_path):
    path = tmp_path / "a.jpg"
    assert reason_of(read_picture, path) == Reason.MISSING_IMAGE
    path.write_bytes(b"")
    assert reason_of(read_picture, path) == Reason.EMPTY_IMAGE
    path.write_bytes(b"<html>503 Service Unavailable</html>")
    assert reason_of(read_picture, path) == Reason.BAD_IMAGE
    Image.fromarray(gradient().astype(np.uint8)).save(path, format="TIFF")
    assert reason_of(read_picture, path) == Reason.BAD_IMAGE


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_pictures(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 255, (424, 424, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:9000])
    assert reason_of(read_picture, path) == Reason.TRUNCATED_IMAGE


def test_a_bomb_is_not_unpacked(tmp_path):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = zlib.compress(b"\0" * 1_000_000)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    assert reason_of(read_picture, path) == Reason.OVERSIZED_IMAGE


def test_a_file_too_long(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", gradient().astype(np.uint8))
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    assert reason_of(read_picture, path) == Reason.OVERSIZED_IMAGE


@pytest.mark.parametrize("seed", range(30))
def test_damage_anywhere_is_an_image_error_or_a_picture(tmp_path, seed):
    rng = np.random.default_rng(seed)
    suffix = ".jpg" if seed % 2 else ".png"
    path = save(tmp_path / f"a{suffix}", rng.integers(0, 255, (64, 64, 3), np.uint8))
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 6):
        data[place] = rng.integers(0, 256)
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        assert read_picture(path).shape == (424, 424, 3)


def cube(scale=0.5, shape=(3, 96, 96)):
    flux = np.random.default_rng(2).normal(0.1, 0.05, shape).astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [48.5, 48.5]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return fits.PrimaryHDU(flux, wcs.to_header())


def test_flux_cube(tmp_path):
    hdu = cube(0.37)
    hdu.writeto(tmp_path / "a.fits")
    found = read_flux(tmp_path / "a.fits")
    assert found.bands == "gri"
    assert found.scale == pytest.approx(0.37, rel=1e-6)
    np.testing.assert_array_equal(found.flux, hdu.data)


def test_flux_cube_in_an_extension_that_names_its_bands(tmp_path):
    hdu = cube(shape=(5, 96, 96))
    image = fits.ImageHDU(hdu.data, hdu.header)
    image.header["BANDS"] = "ugriz"
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    assert read_flux(tmp_path / "a.fits").bands == "ugriz"


def header_without(*keys, **values):
    hdu = cube()
    for key in keys:
        del hdu.header[key]
    hdu.header.update(values)
    return hdu


@pytest.mark.parametrize(
    ("hdu", "reason"),
    [
        (lambda: cube(shape=(2, 96, 96)), Reason.BAD_IMAGE),
        (lambda: fits.PrimaryHDU(np.zeros((96, 96), np.float32)), Reason.BAD_IMAGE),
        (lambda: header_without(BUNIT="Jy/beam"), Reason.BAD_UNIT),
        (lambda: header_without("CTYPE1", "CTYPE2"), Reason.BAD_WCS),
        (lambda: header_without(CDELT1=0.0, CDELT2=0.0), Reason.BAD_WCS),
    ],
    ids=["bands", "axes", "unit", "no wcs", "singular wcs"],
)
def test_flux_that_cannot_be_used(tmp_path, hdu, reason):
    hdu().writeto(tmp_path / "a.fits")
    assert reason_of(read_flux, tmp_path / "a.fits") == reason


def test_damaged_fits(tmp_path):
    path = tmp_path / "a.fits"
    buffer = io.BytesIO()
    cube().writeto(buffer)
    data = buffer.getvalue()
    path.write_bytes(data[:9000])
    assert reason_of(read_flux, path) == Reason.TRUNCATED_IMAGE
    path.write_bytes(b"<html>not found</html>")
    assert reason_of(read_flux, path) == Reason.NOT_FITS
    card = f"{'NAXIS1  =':<10}{96:>20}".encode()
    assert card in data
    path.write_bytes(data.replace(card, f"{'NAXIS1  =':<10}{10**10:>20}".encode()))
    assert reason_of(read_flux, path) == Reason.OVERSIZED_IMAGE
