"""Overlap tables against polygons clipped on a fine grid of sample points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gzscale.cutouts import overlap
from gzscale.cutouts.overlap import make_table, quantise, table_of


def turned(side, angle, parity=1.0):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return side * np.array([[c, -s * parity], [s, c * parity]])


def sampled_weights(matrix, width, half, phase, samples=1500):
    """Share of the footprint in each pixel, by counting sample points; phase in (y, x)."""
    s, t = np.meshgrid(*[(np.arange(samples) + 0.5) / samples - 0.5] * 2)
    x = matrix[0, 0] * s + matrix[0, 1] * t + half[0] + phase[1]
    y = matrix[1, 0] * s + matrix[1, 1] * t + half[1] + phase[0]
    counts, _, _ = np.histogram2d(y.ravel(), x.ravel(), bins=[np.arange(width + 1)] * 2)
    return counts / counts.sum()


@pytest.mark.parametrize(("side", "angle"), [(1.0, 0.0), (1.0, 33.0), (0.5, 45.0), (2.3, 71.0), (5.2, 12.0)])
@pytest.mark.parametrize("parity", [1.0, -1.0])
def test_weights_are_the_exact_overlaps(side, angle, parity):
    matrix = turned(side, angle, parity)
    phases = 16
    table = make_table(tuple(matrix.ravel()), phases)
    for phase in [(0, 0), (3, 14), (15, 8)]:
        expected = sampled_weights(
            matrix, table.width, (table.half_x, table.half_y), np.array(phase) / phases
        )
        worst = np.abs(table.weights[phase][:, : table.width] - expected).max()
        assert not table.weights[phase][:, table.width :].any()
        assert worst < 1.5e-3, f"{worst} of the footprint"


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 8.0), st.floats(0, 360), st.sampled_from([-1.0, 1.0]))
def test_weights_add_up_to_one_and_balance_at_the_centre(side, angle, parity):
    matrix = turned(side, angle, parity)
    table = make_table(tuple(matrix.ravel()), 8)
    weights = table.weights.astype(float)
    assert weights.min() > -1e-6
    assert weights.sum(axis=(2, 3)) == pytest.approx(np.ones((9, 9)), abs=1e-5)
    # A parallelogram's centroid is its centre; boxes of one pixel shift no first moment on average.
    mean_weight = weights[:8, :8].mean(axis=(0, 1)).sum(axis=0)
    centroid = (mean_weight * (np.arange(weights.shape[-1]) + 0.5)).sum()
    assert centroid == pytest.approx(table.half_x + 7 / 16, abs=0.04)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 60.0), st.floats(0, 360))
def test_rounding_a_matrix_moves_edges_by_less_than_half_a_percent(side, angle):
    matrix = turned(side, angle)
    (rounded,) = quantise(matrix[None])
    assert np.abs(np.array(rounded) - matrix.ravel()).max() <= 0.003 * side


def test_tables_are_shared_and_their_memory_is_bounded():
    first, second = map(tuple, quantise(np.array([turned(1.0, 33.0), turned(1.0005, 33.02)])))
    assert table_of(first) is table_of(second)
    cache = overlap._Cache(3 * table_of(first).weights.nbytes)
    for key in map(tuple, quantise(np.array([turned(1.0, angle) for angle in range(0, 30, 3)]))):
        cache.get(key)
    assert len(cache.tables) == 3
    assert cache.held == sum(table.weights.nbytes for table in cache.tables.values())
