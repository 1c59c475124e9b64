"""One coadd file: units, masks, noise, WCS, windows; and every way in which it can be wrong."""

import io

import numpy as np
import pytest
from astropy.io import fits
from small_coadds import NANOJANSKY_A_NANOMAGGY, PLANES, coadd, wcs_cards

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fitsfile import read_fits
from gzscale.surveys.rubin_coadd import SIGMA_CELL, coadd_wcs, decode_coadd
from gzscale.surveys.rubin_planes import open_planes, windows_of
from gzscale.surveys.tiles import tile_table

SHAPE = (260, 300)
RNG = np.random.default_rng(1)
IMAGE = RNG.normal(0, 2, SHAPE).astype("f4")


def decode(stored, windows=None, blank=("NO_DATA",), flags=(), zero_point=None, need_flags=False):
    return decode_coadd(open_planes(stored, "coadd"), windows, blank, flags, zero_point, need_flags)


def read(stored, blank=(), flags=(), need_flags=False):
    planes = open_planes(stored, "coadd")
    coadd_wcs(planes.headers["IMAGE"], "coadd", planes.shape)
    decode_coadd(planes, None, blank, flags, None, need_flags)


def reason(stored, **how):
    with pytest.raises(ImageError) as caught:
        read(stored, **how)
    assert "coadd" in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("compress", [True, False])
def test_nanojanskys_become_nanomaggies(compress):
    found = decode(coadd(IMAGE, compress=compress))
    assert found.pixels.dtype == np.float32
    assert found.pixels == pytest.approx(IMAGE / NANOJANSKY_A_NANOMAGGY, rel=1e-6)
    # A variance of 4 nJy^2 everywhere.
    assert found.background_sigma == pytest.approx(2 / NANOJANSKY_A_NANOMAGGY, rel=1e-6)
    assert found.background_sigma.shape == (-(-SHAPE[0] // SIGMA_CELL), -(-SHAPE[1] // SIGMA_CELL))


def test_a_coadd_in_counts_is_calibrated_with_its_flux_of_magnitude_zero():
    # DC2's coadds: 27 mag is one count.
    found = decode(coadd(IMAGE, unit=None, primary={"FLUXMAG0": 63095734448.0194}))
    assert found.pixels == pytest.approx(IMAGE * 10 ** (0.4 * (22.5 - 27)), rel=1e-6)


def test_a_coadd_without_calibration_takes_the_zero_point_of_the_settings():
    stored = coadd(IMAGE, unit="adu")
    assert decode(stored, zero_point=27.0).pixels == pytest.approx(IMAGE * 10 ** (0.4 * -4.5), rel=1e-6)
    assert reason(stored) is Reason.BAD_UNIT


def test_two_calibrations_that_disagree_are_refused():
    assert reason(coadd(IMAGE, primary={"FLUXMAG0": 63095734448.0})) is Reason.BAD_UNIT
    decode(coadd(IMAGE, primary={"FLUXMAG0": 3.631e12}))


def test_mask_planes_go_by_name_whatever_their_bits():
    planes = {"SAT": 7, "NO_DATA": 0, "OTHER": 3}
    mask = np.zeros(SHAPE, int)
    mask[10:12, 20:30] = 1 << 7
    mask[40, 50] = 1
    mask[60, 60] = 1 << 3
    found = decode(coadd(IMAGE, mask, planes=planes), flags=("NO_DATA", "SAT", "BRIGHT_OBJECT"))
    assert np.argwhere(np.isnan(found.pixels)).tolist() == [[40, 50]]
    expected = np.zeros(SHAPE, int)
    expected[40, 50], expected[10:12, 20:30] = 1, 2
    assert (found.flags == expected).all()
    assert decode(coadd(IMAGE, mask, planes=planes)).flags is None


def test_a_plane_that_is_not_declared_is_an_error_where_it_is_needed():
    planes = {"SAT": 7, "NO_DATA": 0}
    assert reason(coadd(IMAGE, planes={"SAT": 1}), blank=("NO_DATA",)) is Reason.BAD_IMAGE
    stored = coadd(IMAGE, planes=planes)
    assert reason(stored, flags=("BRIGHT_OBJECT",), need_flags=True) is Reason.BAD_IMAGE
    with pytest.raises(ImageError, match="no plane BRIGHT_OBJECT; it has NO_DATA, SAT"):
        decode(stored, flags=("BRIGHT_OBJECT",), need_flags=True)


def test_infinite_and_missing_pixels_are_nan():
    image = IMAGE.copy()
    image[3, 4], image[5, 6] = np.inf, np.nan
    assert np.argwhere(np.isnan(decode(coadd(image)).pixels)).tolist() == [[3, 4], [5, 6]]


def test_noise_follows_the_variance_and_ignores_sources():
    variance = np.full(SHAPE, 9.0)
    variance[:, 150:] = 16.0
    variance[100:104, 10:40] = 1e6
    variance[:, 0] = np.nan
    sigma = decode(coadd(IMAGE, variance=variance)).background_sigma * NANOJANSKY_A_NANOMAGGY
    assert sigma[:, 0] == pytest.approx(3.0, rel=1e-6)
    assert sigma[:, 2] == pytest.approx(4.0, rel=1e-6)


def test_a_coadd_without_variance_is_refused():
    assert reason(coadd(IMAGE, variance=np.zeros(SHAPE))) is Reason.BAD_IMAGE


@pytest.mark.parametrize("compress", [True, False])
def test_windows_hold_what_the_whole_has(compress):
    mask = np.zeros(SHAPE, int)
    mask[20:23, 30:33] = 1 << PLANES["SAT"]
    stored = coadd(IMAGE, mask, compress=compress)
    windows = windows_of(SHAPE, 32, np.array([31.0, 250.0]), np.array([22.0, 200.0]), np.array([10.0, 5.0]))
    part, whole = decode(stored, windows, flags=("SAT",)), decode(stored, flags=("SAT",))
    decoded = np.zeros(SHAPE, bool)
    for window in windows:
        decoded[window] = True
    assert decoded[12:33, 21:42].all()
    assert decoded[195:206, 245:256].all()
    assert 0 < decoded.mean() < 0.3
    assert (part.pixels[decoded] == whole.pixels[decoded]).all()
    assert np.isnan(part.pixels[~decoded]).all()
    assert (part.flags[decoded] == whole.flags[decoded]).all()
    assert (part.background_sigma == whole.background_sigma).all()


def test_many_stamps_want_the_whole():
    x, y = RNG.uniform(0, 299, 60), RNG.uniform(0, 259, 60)
    assert windows_of(SHAPE, 32, x, y, np.full(60, 20.0)) is None
    # A position off the projection wants nothing.
    assert windows_of(SHAPE, 32, np.array([np.nan]), np.array([np.nan]), np.ones(1)) == []


@pytest.mark.parametrize("sip", [0.0, 1.5])
def test_the_wcs_is_astropys(sip):
    cards = wcs_cards(sip=sip)
    wcs = coadd_wcs(open_planes(coadd(IMAGE, cards=cards), "coadd").headers["IMAGE"], "coadd", SHAPE)
    x, y = RNG.uniform(0, 300, 20), RNG.uniform(0, 260, 20)
    from astropy.wcs import WCS

    assert np.array(wcs.all_pix2world(x, y, 0)) == pytest.approx(
        np.array(WCS(cards).all_pix2world(x, y, 0)), abs=1e-11
    )
    assert wcs.has_distortion == bool(sip)


@pytest.mark.parametrize(
    ("change", "value"),
    [("CTYPE1", "RA---SIN"), ("CD1_1", 0.0), ("CD2_2", 1.0), ("CRVAL2", "north"), ("CTYPE2", None)],
)
def test_a_wcs_that_cannot_be_used_is_refused(change, value):
    cards = wcs_cards()
    if value is None:
        del cards[change]
    else:
        cards[change] = value
    assert reason(coadd(IMAGE, cards=cards)) is Reason.BAD_WCS


def flipped(stored, plane):
    """The file with one bit of a plane's compressed tiles flipped."""
    with fits.open(io.BytesIO(stored), disable_image_compression=True) as hdus:
        header = hdus[plane].header
        start = hdus[plane].fileinfo()["datLoc"] + header["NAXIS1"] * header["NAXIS2"]
    damaged = bytearray(stored)
    damaged[start + 5000] ^= 0x10
    return bytes(damaged)


@pytest.mark.parametrize("plane", ["IMAGE", "MASK", "VARIANCE"])
def test_a_tile_that_fails_its_checksum(plane):
    mask, variance = np.where(IMAGE > 0, 1 << PLANES["SAT"], 0), RNG.uniform(3, 5, SHAPE)
    assert reason(flipped(coadd(IMAGE, mask, variance), plane)) is Reason.CHECKSUM


def test_a_gzip_tile_that_fails_its_own_checksum_where_the_plane_states_none():
    stored = bytearray(coadd(IMAGE))
    unit = read_fits(bytes(stored), "coadd", 10**6, 10**8)[1]
    assert unit.header["EXTNAME"] == "IMAGE"
    table = tile_table(unit, SHAPE)
    # The last eight bytes of a gzip stream are its CRC-32 and its length.
    stored[unit.start + table.stops[7] - 8] ^= 1
    at = stored.rindex(b"DATASUM =", 0, unit.start)
    stored[at : at + 8] = b"DATANONE"
    assert reason(bytes(stored), blank=("NO_DATA",)) is Reason.CHECKSUM


@pytest.mark.parametrize(
    "how",
    [
        {"compression_type": "HCOMPRESS_1", "tile_shape": (16, SHAPE[1])},
        {"compression_type": "RICE_1", "tile_shape": (7, 50)},
        {"compression_type": "PLIO_1", "tile_shape": (1, SHAPE[1])},
    ],
)
def test_planes_in_rare_codings_are_those_that_astropy_reads(how):
    counts = RNG.integers(0, 2000, SHAPE).astype("i2")
    image = fits.CompImageHDU(counts, wcs_cards(), name="IMAGE", **how)
    others = fits.open(io.BytesIO(coadd(IMAGE)))
    image.header["BUNIT"] = "nJy"
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), image, others["MASK"], others["VARIANCE"]]).writeto(sink)
    assert open_planes(sink.getvalue(), "coadd").tables["IMAGE"] is None
    found = decode(sink.getvalue())
    assert found.pixels == pytest.approx(counts / NANOJANSKY_A_NANOMAGGY, rel=1e-6)


def test_scaled_plain_pixels_are_those_that_astropy_reads():
    hdus = fits.open(io.BytesIO(coadd(IMAGE, compress=False)))
    hdus["IMAGE"].scale("int16", bscale=0.01, bzero=3.0)
    sink = io.BytesIO()
    hdus.writeto(sink, checksum=True)
    truth = fits.getdata(io.BytesIO(sink.getvalue()), "IMAGE")
    assert np.abs(truth - IMAGE).max() < 0.006
    assert decode(sink.getvalue()).pixels == pytest.approx(truth / NANOJANSKY_A_NANOMAGGY, rel=1e-6)


def without(stored, plane, rename=None):
    with fits.open(io.BytesIO(stored), disable_image_compression=True) as hdus:
        if rename:
            hdus[plane].header["EXTNAME"] = rename
        else:
            del hdus[plane]
        sink = io.BytesIO()
        hdus.writeto(sink)
    return sink.getvalue()


def test_damaged_files_have_their_reasons():
    good = coadd(IMAGE)
    assert reason(b"") is Reason.EMPTY_IMAGE
    assert reason(b"<html>no such file</html>".ljust(3000)) is Reason.NOT_FITS
    assert reason(good[: len(good) * 2 // 3]) is Reason.TRUNCATED_IMAGE
    assert reason(without(good, "VARIANCE")) is Reason.BAD_IMAGE
    assert reason(without(good, "MASK", "MASQUE")) is Reason.BAD_IMAGE


def test_a_claim_of_too_many_pixels_is_refused_before_anything_is_allocated():
    good = coadd(IMAGE)
    with fits.open(io.BytesIO(good), disable_image_compression=True) as hdus:
        hdus["IMAGE"].header["ZNAXIS1"] = 2_000_000
        hdus["IMAGE"].header.pop("DATASUM")
        sink = io.BytesIO()
        hdus.writeto(sink)
    assert reason(sink.getvalue()) is Reason.OVERSIZED_IMAGE


def test_planes_of_different_shapes_are_refused():
    hdus = fits.open(io.BytesIO(coadd(IMAGE, compress=False)))
    hdus["MASK"].data = hdus["MASK"].data[:-1]
    sink = io.BytesIO()
    hdus.writeto(sink)
    assert reason(sink.getvalue()) is Reason.BAD_IMAGE
