"""Seeing of images: known stars, whatever else lies among them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gzscale.surveys.seeing import peak_widths, star_width

SCALE, SIGMA = 0.396, 0.02


def moffat(y, x, width, beta=3.5):
    """A star of unit flux whose width is in pixels, integrated over each pixel."""
    core = width / (2 * np.sqrt(2 ** (1 / beta) - 1))
    steps = (np.arange(5) - 2) / 5
    profile = (
        sum((1 + ((y + dy) ** 2 + (x + dx) ** 2) / core**2) ** -beta for dy in steps for dx in steps)
        / len(steps) ** 2
    )
    return profile * (beta - 1) / (np.pi * core**2)


def field(width, stars=40, galaxies=20, seed=1, shape=(400, 480)):
    """Stars of a width in arcsec and galaxies twice as wide or more, on a noisy sky."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, SIGMA, shape)
    number = stars + galaxies
    rows, columns = np.divmod(rng.permutation(16 * 20)[:number], 20)
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        y, x = (12 + 24 * row + rng.uniform(-4, 4), 12 + 24 * column + rng.uniform(-4, 4))
        wide = width / SCALE * (1.0 if n < stars else rng.uniform(1.8, 3.0))
        flux = 10 ** rng.uniform(1.6, 2.8)
        top, left = max(0, int(y) - 20), max(0, int(x) - 20)
        box = np.mgrid[top : min(shape[0], top + 41), left : min(shape[1], left + 41)]
        pixels[top : top + 41, left : left + 41] += flux * moffat(box[0] - y, box[1] - x, wide)
    return pixels.astype(np.float32)


def seeing(pixels, sigma=SIGMA):
    return star_width(pixels, sigma) * SCALE


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.floats(0.8, 2.0), st.integers(0, 999))
def test_stars_among_galaxies_tell_the_seeing(width, seed):
    assert seeing(field(width, seed=seed)) == pytest.approx(width, rel=0.06)


def test_too_few_stars_tell_nothing():
    assert np.isnan(seeing(field(1.3, stars=5, galaxies=0)))
    assert np.isnan(seeing(field(1.3, stars=0, galaxies=0)))
    assert np.isnan(star_width(np.ones((5, 5), np.float32), 0.1))


def test_what_no_star_can_be_is_no_seeing():
    # Cosmic rays have no width; blobs of a hundred pixels are no stars.
    rays = np.random.default_rng(1).normal(0, SIGMA, (400, 480)).astype(np.float32)
    rays[20:380:24, 20:460:24] = 50
    assert np.isnan(star_width(rays, SIGMA))
    assert np.isnan(seeing(field(8.0, galaxies=0)))


def test_what_is_not_measured_or_saturated_is_passed_over():
    whole = field(1.3, seed=4)
    pixels = whole.copy()
    pixels[:, 200:230] = np.nan
    pixels[40:60, 300:330] = 300.0
    assert seeing(pixels) == pytest.approx(seeing(whole), rel=0.05)
    assert np.isnan(star_width(np.full_like(pixels, np.nan), SIGMA))
    assert np.isnan(star_width(pixels, np.nan))


@settings(deadline=None)
@given(st.floats(2.0, 6.0), st.floats(-0.45, 0.45), st.floats(-0.45, 0.45))
def test_a_lone_star_s_width_is_its_own(width, dy, dx):
    y, x = np.mgrid[-8:9, -8:9]
    star = moffat(y - dy, x - dx, width)[None]
    row, column = np.array([8]), np.array([8])
    assert peak_widths(star, np.array([0]), row, column)[0] == pytest.approx(width, rel=0.04)
