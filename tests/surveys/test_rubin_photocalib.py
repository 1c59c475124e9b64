"""Coadds in counts whose calibration is a PhotoCalib in the tables of their file, as afw writes them."""

import io
import re

import numpy as np
import pytest
from astropy.io import fits
from small_coadds import NANOJANSKY_A_NANOMAGGY, coadd, options, path, wcs_cards, write

from gzscale.errors import ImageError, Reason
from gzscale.surveys.base import ImageRef
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_photocalib import archived_zero_point

#: nJy a count of a magnitude zero point of 27, as HSC's and DC2's coadds have it.
MEAN = 10 ** (0.4 * (31.4 - 27))
REF = ImageRef("coadd-r-7-0", "r", "7/0/r", "x")


def table(name, columns, **cards):
    hdu = fits.BinTableHDU.from_columns([fits.Column(*column[:2], array=column[2]) for column in columns])
    hdu.header["EXTNAME"] = name
    for key, value in cards.items():
        hdu.header[key] = value
    return hdu


def archive(mean=MEAN, constant=True, version=1, rows=1):
    """An archive of three tables: a PSF, a field, and PhotoCalibs; the wanted one is the last."""
    index = table(
        "ARCHIVE_INDEX",
        [
            ("id", "J", [1, 2, 5]),
            ("cat.archive", "J", [1, 2, 3]),
            ("cat.persistable", "J", [0, 0, 0]),
            ("row0", "J", [0, 0, rows - 1]),
            ("nrows", "J", [1, 1, 1]),
            ("name", "64A", ["CoaddPsf", "ChebyshevBoundedField", "PhotoCalib"]),
            ("module", "64A", ["lsst.meas.algorithms", "lsst.afw.math", "lsst.afw.image"]),
        ],
        EXTTYPE="ARCHIVE_INDEX",
        AR_NCAT=4,
    )
    other = [table(name, [("x", "J", [7])]) for name in ("CoaddPsf", "ChebyshevBoundedField")]
    flags = np.zeros((rows, 2), bool)
    flags[-1, 1] = constant
    columns = [
        ("flags", "2X", flags),
        ("calibrationMean", "D", [1.0] * (rows - 1) + [mean]),
        ("calibrationErr", "D", [0.0] * rows),
        ("field", "J", [2] * rows),
    ]
    if version:
        columns.append(("version", "J", [version] * rows))
    return [index, *other, table("PhotoCalib", columns, TFLAG1="other", TFLAG2="isConstant")]


def exposure(hdus, unit=None, level=1.0, **primary):
    """A coadd of one patch in counts, and the tables after it."""
    cards = {"AR_HDU": 5, "PHOTOCALIB_ID": 5} | primary
    cards = {f"HIERARCH {key}" if len(key) > 8 else key: value for key, value in cards.items()}
    image = np.full((220, 220), level)
    with fits.open(io.BytesIO(coadd(image, unit=unit, cards=wcs_cards(), primary=cards))) as opened:
        sink = io.BytesIO()
        fits.HDUList([*opened, *hdus]).writeto(sink, checksum=True)
    return sink.getvalue()


def zero_point(stored):
    with fits.open(io.BytesIO(stored)) as hdus:
        return archived_zero_point(stored, hdus[0].header, hdus["IMAGE"].header, "coadd.fits")


def refusal(stored):
    with pytest.raises(ImageError) as caught:
        zero_point(stored)
    return caught.value


@pytest.mark.parametrize("rows", [1, 3])
def test_the_zero_point_of_the_row_that_the_index_names(rows):
    assert zero_point(exposure(archive(rows=rows))) == pytest.approx(27.0, abs=1e-9)


def test_a_coadd_in_counts_is_calibrated_by_its_own_photocalib_before_any_option(tmp_path):
    # One count is of magnitude 27: 10^(0.4 x 4.4) nJy.
    write(tmp_path, path(0, "r"), exposure(archive(), level=1000.0))
    for given in ({}, {"zero_point": 25.0}):
        pixels = RubinSurvey(str(tmp_path), "r", options(tmp_path, **given)).open(REF).pixels
        assert pixels[50:60, 50:60] * NANOJANSKY_A_NANOMAGGY == pytest.approx(1000 * MEAN, rel=1e-6)


def test_a_calibration_that_varies_is_refused_and_the_dataset_named(tmp_path):
    write(tmp_path, path(0, "r"), exposure(archive(constant=False)))
    with pytest.raises(ImageError, match=r"coadd \{band: 'r', tract: 7, patch: 0\}: .* varies") as caught:
        RubinSurvey(str(tmp_path), "r", options(tmp_path)).open(REF)
    assert caught.value.reason is Reason.BAD_UNIT


@pytest.mark.parametrize(
    ("stored", "reason", "says"),
    [
        (exposure(archive(version=0)), Reason.BAD_UNIT, "version 0, in maggies"),
        (exposure(archive(mean=0.0)), Reason.BAD_UNIT, "mean 0.0 nJy"),
        (exposure(archive(mean=float("nan"))), Reason.BAD_UNIT, "mean nan nJy"),
        (exposure(archive(), FLUXMAG0=10 ** (0.4 * 30)), Reason.BAD_UNIT, "27.0000.* has 30.0000"),
        (exposure(archive(), PHOTOCALIB_ID=4), Reason.BAD_IMAGE, "PhotoCalib 4 is not in the archive"),
        (exposure(archive(), PHOTOCALIB_ID=2), Reason.BAD_IMAGE, "PhotoCalib 2 is not in the archive"),
        (exposure(archive(), AR_HDU=4), Reason.BAD_IMAGE, "AR_HDU 4"),
        (exposure(archive(), AR_HDU=40), Reason.BAD_IMAGE, "AR_HDU 40"),
        (exposure([]), Reason.BAD_IMAGE, "AR_HDU 5"),
        (exposure(archive()[:2]), Reason.BAD_IMAGE, "AR_HDU 5"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(stored, reason, says):
    error = refusal(stored)
    assert error.reason is reason
    assert re.search(f"coadd\\.fits: .*{says}", str(error))


def test_a_table_that_is_too_large_is_not_read(monkeypatch):
    monkeypatch.setattr("gzscale.surveys.rubin_photocalib.MAX_TABLE_BYTES", 100)
    assert refusal(exposure(archive())).reason is Reason.OVERSIZED_IMAGE


def test_where_nothing_is_to_be_calibrated_no_table_is_read():
    assert zero_point(exposure([], unit="nJy")) is None
    assert zero_point(exposure([], PHOTOCALIB_ID=0)) is None
    assert zero_point(exposure(archive(), FLUXMAG0=10 ** (0.4 * 27))) == pytest.approx(27.0)
