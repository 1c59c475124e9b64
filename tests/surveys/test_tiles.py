"""Tiles that are decoded here: what astropy reads, whatever the coding; and damage that is told."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from gzscale.surveys.fitsfile import read_fits
from gzscale.surveys.tiles import decode_tiles, tile_table

SHAPE = (70, 333)
RNG = np.random.default_rng(3)
FLOATS = RNG.normal(0, 5, SHAPE).astype("f4")
# Blocks with a few large differences, and of equal pixels: in integers also such as are stored as they are.
FLOATS[3] *= np.where(RNG.random(SHAPE[1]) < 0.02, 1e4, 1)
FLOATS[4] = 7
INTEGERS = RNG.integers(0, 2**9, SHAPE).astype("i4")
INTEGERS[2] = RNG.integers(-(2**31), 2**31 - 1, SHAPE[1])
INTEGERS[5] = 0
INTEGERS[6, 100] = 2**31 - 1


def stored(pixels, kind, tile, **how):
    sink = io.BytesIO()
    hdu = fits.CompImageHDU(pixels, compression_type=kind, tile_shape=tile, **how)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(sink)
    return sink.getvalue()


def table_of(data):
    return tile_table(read_fits(data, "x", 10**6, 10**8)[1], SHAPE)


def compare(data):
    table = table_of(data)
    assert table is not None
    with fits.open(io.BytesIO(data)) as hdus:
        expected = np.asarray(hdus[1].data)
    found = decode_tiles(table, None)
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
    return table, expected


@pytest.mark.parametrize("tile", [(1, 333), (16, 50), (70, 333)])
@pytest.mark.parametrize("method", [-1, 1, 2])
def test_quantised_floats_are_those_of_astropy(tile, method):
    pixels = FLOATS.copy()
    pixels[10, 20:30] = np.nan
    pixels[11, 5:9] = 0
    how = {"quantize_method": method, "quantize_level": 16, "dither_seed": 9990}
    compare(stored(pixels, "RICE_1", tile, **how))


@pytest.mark.parametrize("tile", [(1, 333), (16, 50)])
@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2"])
def test_integers_are_those_of_astropy(kind, tile):
    compare(stored(INTEGERS, kind, tile))


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2"])
def test_floats_that_are_stored_as_they_are_are_those_of_astropy(kind):
    _, expected = compare(stored(FLOATS, kind, (16, 50), quantize_level=0))
    np.testing.assert_array_equal(expected, FLOATS)


def test_only_the_tiles_below_windows_are_decoded():
    table, expected = compare(stored(INTEGERS, "GZIP_2", (16, 50)))
    table.starts[0] = table.stops[0]
    window = (slice(20, 40), slice(60, 120))
    np.testing.assert_array_equal(decode_tiles(table, [window])[window], expected[window])
    with pytest.raises(ValueError, match="tile 0"):
        decode_tiles(table, None)


@pytest.mark.parametrize("method", [1, 2])
def test_a_block_of_rows_is_that_of_the_whole(method):
    data = stored(FLOATS, "RICE_1", (7, 100), quantize_method=method, quantize_level=16)
    table, expected = compare(data)
    np.testing.assert_array_equal(decode_tiles(table.part(slice(28, 56)), None), expected[28:56])
    np.testing.assert_array_equal(decode_tiles(table.part(slice(63, 70)), None), expected[63:70])


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_2"])
def test_bytes_that_end_too_early_are_an_error(kind):
    table = table_of(stored(INTEGERS, kind, (1, 333)))
    table.stops[7] -= 40
    with pytest.raises(ValueError, match="tile 7"):
        decode_tiles(table, None)


def test_random_bytes_never_read_beyond_a_tile():
    table = table_of(stored(INTEGERS, "RICE_1", (1, 333)))
    table = replace(table, data=table.data.copy())
    for seed in range(50):
        table.data[table.starts[0] : table.stops[-1]] = np.random.default_rng(seed).integers(
            0, 256, table.stops[-1] - table.starts[0]
        )
        with contextlib.suppress(ValueError):
            assert decode_tiles(table, None).shape == SHAPE


def test_other_codings_are_left_to_astropy():
    assert table_of(stored(INTEGERS.astype("i2"), "RICE_1", (1, 333))) is None
    assert table_of(stored(np.abs(INTEGERS) & 0xFFF, "HCOMPRESS_1", (16, 333))) is None
    assert table_of(stored(INTEGERS.astype("u4"), "RICE_1", (1, 333))) is None


def test_a_tile_outside_the_extension_is_an_error():
    data = bytearray(stored(INTEGERS, "GZIP_2", (1, 333)))
    unit = read_fits(bytes(data), "x", 10**6, 10**8)[1]
    rows = np.frombuffer(unit.data, ">i4", 2 * SHAPE[0]).copy().reshape(-1, 2)
    rows[4, 1] = 2**30
    place = bytes(data).index(unit.data[:16].tobytes())
    data[place : place + rows.nbytes] = rows.tobytes()
    with pytest.raises(ValueError, match="outside the extension"):
        table_of(bytes(data))


@pytest.mark.parametrize("heap", [-100_000, 2**62])
def test_a_heap_outside_the_extension_is_an_error(heap):
    unit = read_fits(stored(INTEGERS, "RICE_1", (1, 333)), "x", 10**6, 10**8)[1]
    unit.header["THEAP"] = heap
    with pytest.raises(ValueError, match="outside the extension"):
        tile_table(unit, SHAPE)
