"""Damaged files end in a reason; whole ones are what astropy reads."""

import bz2
import io
import re

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from small_frames import frame, header

from gzscale.errors import ImageError, Reason
from gzscale.surveys import fitsfile
from gzscale.surveys.fitsdata import image_pixels, table_vectors
from gzscale.surveys.fitsfile import read_first_header, read_fits

PLAIN = frame()
PACKED = bz2.compress(PLAIN)
LIMIT = 4 * 2048 * 1489


def reason_of(stored, name="tree/frame-r.fits.bz2", limit=LIMIT):
    with pytest.raises(ImageError) as caught:
        read_fits(stored, name, limit)
    assert name in str(caught.value)
    assert re.search("fetch|again|check", str(caught.value), re.IGNORECASE), "the message names no remedy"
    return caught.value.reason


@pytest.mark.parametrize(
    "stored", [PLAIN, PACKED, bz2.compress(PLAIN[:50_000]) + bz2.compress(PLAIN[50_000:])]
)
def test_a_whole_file_is_what_astropy_reads(stored):
    hdus = read_fits(stored, "frame", LIMIT)
    with fits.open(io.BytesIO(PLAIN)) as truth:
        assert len(hdus) == len(truth) == 3
        pixels = image_pixels(hdus[0], "frame")
        assert pixels.dtype == np.float32
        assert pixels.dtype.isnative
        np.testing.assert_array_equal(pixels, truth[0].data)
        np.testing.assert_array_equal(image_pixels(hdus[1], "frame"), truth[1].data)
        table = table_vectors(hdus[2], ("ALLSKY", "XINTERP", "YINTERP"), "frame")
        for name, values in table.items():
            np.testing.assert_array_equal(values, truth[2].data[name][0])


def test_an_empty_file():
    assert reason_of(b"") is Reason.EMPTY_IMAGE


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.999])
def test_a_truncated_bz2(share):
    assert reason_of(PACKED[: max(10, int(len(PACKED) * share))]) is Reason.TRUNCATED_IMAGE


@pytest.mark.parametrize("length", [100, 2879, 5000, 100_000])
def test_a_truncated_plain_file(length):
    assert reason_of(PLAIN[:length]) is Reason.TRUNCATED_IMAGE


def test_a_file_that_was_truncated_before_it_was_compressed():
    assert reason_of(bz2.compress(PLAIN[:100_000])) is Reason.TRUNCATED_IMAGE
    assert reason_of(bz2.compress(PLAIN[:-3000])) is Reason.TRUNCATED_IMAGE


@settings(max_examples=60, deadline=None)
@given(st.integers(4, len(PACKED) - 11), st.integers(0, 7))
def test_a_flipped_bit_in_a_bz2_never_goes_unseen(place, bit):
    damaged = bytearray(PACKED)
    damaged[place] ^= 1 << bit
    assert reason_of(bytes(damaged)) in {Reason.CHECKSUM, Reason.TRUNCATED_IMAGE}


def test_a_flipped_byte_in_a_bz2():
    damaged = bytearray(PACKED)
    damaged[len(damaged) // 2] ^= 0xFF
    assert reason_of(bytes(damaged)) is Reason.CHECKSUM


def test_a_flipped_byte_in_a_plain_file_with_datasum():
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.ones((50, 60), np.float32), header(shape=(50, 60)))]).writeto(
        sink, checksum=True
    )
    whole = sink.getvalue()
    assert len(read_fits(whole, "frame", LIMIT)) == 1
    damaged = bytearray(whole)
    damaged[-5000] ^= 1
    assert reason_of(bytes(damaged)) is Reason.CHECKSUM


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>503</html>", b"<html>" * 2000, b"not", b"\x00" * 9000]
)
@pytest.mark.parametrize("change", [bytes, bz2.compress])
def test_what_is_not_fits(page, change):
    assert reason_of(change(page)) is Reason.NOT_FITS


def claiming(**cards) -> bytes:
    text = PLAIN[:2880]
    for key, value in cards.items():
        place = text.index(f"{key:8}=".encode())
        text = text[:place] + f"{key:8}= {value:>20}".ljust(80).encode() + text[place + 80 :]
    return text + PLAIN[2880:]


@pytest.mark.parametrize("change", [bytes, bz2.compress])
def test_a_header_that_claims_ten_billion_pixels(change):
    assert reason_of(change(claiming(NAXIS1=100_000, NAXIS2=100_000))) is Reason.OVERSIZED_IMAGE


def test_nothing_is_unpacked_on_the_word_of_such_a_header(monkeypatch):
    unpacked = []
    fill = fitsfile._Unpacker.fill
    monkeypatch.setattr(fitsfile._Unpacker, "fill", lambda self, n: (unpacked.append(n), fill(self, n))[1])
    reason_of(bz2.compress(claiming(NAXIS1=100_000, NAXIS2=100_000)))
    assert max(unpacked) <= fitsfile.MAX_PACKED_BLOCK


@pytest.mark.parametrize("bad", [{"NAXIS1": -5}, {"NAXIS1": "T"}, {"BITPIX": "'x'"}, {"NAXIS2": "1.5"}])
def test_a_header_with_impossible_sizes(bad):
    assert reason_of(claiming(**bad)) is Reason.BAD_IMAGE


def test_a_bz2_bomb():
    bomb = bz2.compress(PLAIN + bytes(30_000_000))
    assert len(bomb) < 400_000
    assert reason_of(bomb) is Reason.OVERSIZED_IMAGE


def test_an_extension_that_claims_too_much():
    start = PLAIN.index(b"XTENSION")
    extension = PLAIN[start:]
    place = extension.index(b"NAXIS1  =")
    bad = extension[:place] + f"NAXIS1  = {10**10:>20}".ljust(80).encode() + extension[place + 80 :]
    assert reason_of(PLAIN[:start] + bad) is Reason.OVERSIZED_IMAGE


def test_a_header_without_end():
    assert reason_of((b"SIMPLE  =".ljust(80)) + b"COMMENT x".ljust(80) * 36 * 200) is Reason.BAD_IMAGE


def test_a_header_that_is_not_ascii():
    bad = bytearray(PLAIN)
    bad[600:610] = b"\xff" * 10
    assert reason_of(bytes(bad)) is Reason.BAD_IMAGE


def test_infinities_and_nan_blocks_become_nan():
    pixels = np.zeros((300, 256), np.float32)
    pixels[10:20, 30:60] = np.nan
    pixels[0, 0], pixels[1, 1] = np.inf, -np.inf
    got = image_pixels(read_fits(frame(pixels), "frame", LIMIT)[0], "frame")
    assert np.isnan(got).sum() == 302
    assert np.isnan(got[10:20, 30:60]).all()


def test_integer_or_scaled_pixels_are_refused():
    sink = io.BytesIO()
    fits.PrimaryHDU(np.zeros((5, 5), np.int16)).writeto(sink)
    with pytest.raises(ImageError, match="BITPIX 16"):
        image_pixels(read_fits(sink.getvalue(), "frame", LIMIT)[0], "frame")


def test_a_table_without_the_columns():
    hdus = read_fits(PLAIN, "frame", LIMIT)
    with pytest.raises(ImageError, match="ALLSKX"):
        table_vectors(hdus[2], ("ALLSKX", "XINTERP"), "frame")


@pytest.mark.parametrize("stored", [PLAIN, PACKED])
def test_the_header_alone_is_the_whole_file_s(stored):
    asked = []

    def read(count):
        asked.append(count)
        return stored[:count]

    assert repr(read_first_header(read, "frame")) == repr(read_fits(stored, "frame", LIMIT)[0].header)
    assert asked == [fitsfile.FIRST_PIECE]


def test_the_header_of_a_file_with_a_long_first_block():
    noise = np.random.default_rng(0).normal(size=(700, 700)).astype(np.float32)
    stored = bz2.compress(frame(noise))
    asked = []

    def read(count):
        asked.append(count)
        return stored[:count]

    assert read_first_header(read, "frame")["NAXIS1"] == 700
    assert 1 < len(asked) <= 3


@pytest.mark.parametrize(
    ("stored", "reason"),
    [(b"", Reason.EMPTY_IMAGE), (b"<html>", Reason.NOT_FITS), (PACKED[:500], Reason.TRUNCATED_IMAGE)],
)
def test_the_header_of_a_damaged_file(stored, reason):
    with pytest.raises(ImageError) as caught:
        read_first_header(lambda count: stored[:count], "frame")
    assert caught.value.reason is reason
