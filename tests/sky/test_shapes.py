"""Projected shapes against a Monte Carlo of the ellipsoid itself; shares of the bodies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.sky import population, shapes


@given(
    middle=st.floats(0.3, 1.0),
    flat=st.floats(0.2, 1.0),
    cosine=st.floats(0.0, 1.0),
    azimuth=st.floats(0.0, 3.1),
)
def test_axis_ratio_is_that_of_the_shadow(middle, flat, cosine, azimuth):
    # The shadow's support function along a direction u is |D u| for an ellipsoid of half-axes D.
    axes = np.array([1.0, middle, flat * middle])
    sine = np.sqrt(1 - cosine**2)
    sight = np.array([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine])
    first = np.cross(sight, [0.3, -0.5, 0.81])
    first /= np.linalg.norm(first)
    second = np.cross(sight, first)
    projected = np.stack([first, second]) @ np.diag(axes**2) @ np.stack([first, second]).T
    low, high = np.sqrt(np.linalg.eigvalsh(projected))
    found = shapes.projected_axis_ratio(*(np.array([v]) for v in (middle, flat * middle, cosine, azimuth)))
    assert found[0] == pytest.approx(low / high, abs=1e-6)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(4)
    kind = np.repeat([*population.KINDS, "star"], 1500)
    radius = np.where(kind == "star", 0.0, 3.0)
    absolute = np.where(kind == "star", np.nan, -21.0)
    return kind, shapes.draw_shapes(kind, radius, absolute, rng)


def test_shares_add_up_and_none_is_negative(drawn):
    _, columns = drawn
    parts = np.stack([columns[f"fraction_{body}"] for body in population.BODIES])
    assert parts.min() >= 0
    np.testing.assert_allclose(parts.sum(axis=0), 1)


def test_kinds_have_their_shapes(drawn):
    kind, columns = drawn
    ratio, bulge = columns["axis_ratio"], columns["fraction_bulge"]
    assert np.percentile(ratio[kind == "edge_on"], 98) < 0.4
    assert 0.18 < np.median(ratio[kind == "edge_on"]) < 0.28
    assert np.median(ratio[kind == "spiral"]) > 0.5
    # Oblate spheroids of 0.64 seen from all sides: sqrt(c^2 + 0.64^2 (1 - c^2)) at c = 1/2.
    assert np.median(ratio[kind == "elliptical"]) == pytest.approx(0.75, abs=0.04)
    assert np.mean(bulge[kind == "lenticular"]) == pytest.approx(0.35, abs=0.02)
    assert (columns["arm_count"][kind == "spiral"] > 0).all()
    assert np.isfinite(np.stack([v for v in columns.values() if v.dtype.kind == "f"])).all()


def test_luminous_ellipticals_are_rounder_and_more_concentrated():
    kind, rng = np.full(4000, "elliptical"), np.random.default_rng(5)
    faint, bright = (shapes.draw_shapes(kind, np.ones(4000), np.full(4000, m), rng) for m in (-18.5, -22.5))
    assert np.median(bright["axis_ratio"]) > np.median(faint["axis_ratio"]) + 0.1
    assert np.median(bright["bulge_sersic"]) > np.median(faint["bulge_sersic"]) + 1
