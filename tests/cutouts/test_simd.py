"""The vector sums against NumPy."""

import numpy as np
import pytest
from numba import njit

from gzscale.cutouts.simd import blended_sum_3, blended_sum_4


@njit
def run_3(buffer, stride, weights, shares):
    return blended_sum_3(buffer, 2, stride, weights, 12, 36, shares[0], shares[1], shares[2], shares[3])


@njit
def run_4(buffer, stride, weights, shares):
    return blended_sum_4(buffer, 2, stride, weights, 12, 52, shares[0], shares[1], shares[2], shares[3])


@pytest.mark.parametrize(("rows", "run", "upper"), [(3, run_3, 36), (4, run_4, 52)])
def test_blended_sums_are_what_numpy_sums(rows, run, upper):
    rng = np.random.default_rng(rows)
    stride = 9
    buffer, weights = (rng.normal(size=n).astype(np.float32) for n in (60, 200))
    shares = rng.uniform(size=4).astype(np.float32)
    window = np.stack([buffer[2 + j * stride : 6 + j * stride] for j in range(rows)])
    begins = [12, 12 + 4 * rows, upper, upper + 4 * rows]
    tables = [weights[begin : begin + 4 * rows].reshape(rows, 4) for begin in begins]
    expected = (window * sum(c * table for c, table in zip(shares, tables, strict=True))).sum()
    assert run(buffer, stride, weights, shares) == pytest.approx(expected, rel=1e-5)
