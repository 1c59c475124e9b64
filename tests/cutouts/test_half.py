"""float16 bits against NumPy's own conversion."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gzscale.cutouts.half import to_half


def halves(values):
    values = np.ascontiguousarray(values, dtype=np.float32)
    out = np.empty(len(values), dtype=np.uint16)
    to_half(values, out)
    return out


def expected(values):
    clipped = np.clip(np.asarray(values, dtype=np.float32), -65504, 65504)
    return clipped.astype(np.float16).view(np.uint16)


def test_every_half_and_every_tie_between_halves():
    bits = np.arange(0x7C00, dtype=np.uint16)
    grid = bits.view(np.float16).astype(np.float32)
    ties = (grid[1:] + grid[:-1]) / 2
    values = np.concatenate(
        [grid, ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(1e9))]
    )
    values = np.concatenate([values, -values])
    assert np.array_equal(halves(values), expected(values))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_any_float_rounds_as_numpy_does_and_is_clipped(values):
    assert np.array_equal(halves(values), expected(values))


def test_a_nan_stays_a_nan():
    assert np.isnan(halves([np.nan, -np.nan]).view(np.float16)).all()
