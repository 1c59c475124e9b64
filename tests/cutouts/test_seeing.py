"""Seeing of images: known stars, whatever else lies among them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_survey import MemorySurvey, make_image, make_rows, make_wcs

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.seeing import image_seeing, peak_widths
from gzscale.cutouts.store import read_cutouts
from gzscale.storage import open_storage

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


def field(width, stars=40, galaxies=20, seed=1, shape=(400, 480), scale=SCALE):
    """Stars of a width in arcsec and galaxies twice as wide or more, on a noisy sky."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, SIGMA, shape)
    number = stars + galaxies
    rows, columns = np.divmod(rng.permutation(16 * 20)[:number], 20)
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        y, x = (12 + 24 * row + rng.uniform(-4, 4), 12 + 24 * column + rng.uniform(-4, 4))
        wide = width / scale * (1.0 if n < stars else rng.uniform(1.8, 3.0))
        flux = 10 ** rng.uniform(1.6, 2.8)
        top, left = max(0, int(y) - 20), max(0, int(x) - 20)
        box = np.mgrid[top : min(shape[0], top + 41), left : min(shape[1], left + 41)]
        pixels[top : top + 41, left : left + 41] += flux * moffat(box[0] - y, box[1] - x, wide)
    return make_image(pixels, make_wcs(150.0, 2.0, scale=scale, shape=shape), sigma=SIGMA)


@settings(max_examples=12, deadline=None)
@given(st.floats(0.8, 2.0), st.integers(0, 999))
def test_stars_among_galaxies_tell_the_seeing(width, seed):
    assert image_seeing(field(width, seed=seed)) == pytest.approx(width, rel=0.06)


def test_seeing_is_in_arcsec_whatever_the_pixels():
    assert image_seeing(field(0.9, scale=0.2)) == pytest.approx(0.9, rel=0.06)


def test_too_few_stars_tell_nothing():
    assert np.isnan(image_seeing(field(1.3, stars=5, galaxies=0)))
    assert np.isnan(image_seeing(field(1.3, stars=0, galaxies=0)))
    tiny = make_image(np.ones((5, 5)), make_wcs(150.0, 2.0, shape=(5, 5)))
    assert np.isnan(image_seeing(tiny))


def test_what_is_not_measured_or_saturated_is_passed_over():
    image = field(1.3, seed=4)
    known = image_seeing(image)
    pixels = image.pixels.copy()
    pixels[:, 200:230] = np.nan
    pixels[40:60, 300:330] = 300.0
    assert image_seeing(dataclasses.replace(image, pixels=pixels)) == pytest.approx(known, rel=0.05)
    nothing = dataclasses.replace(image, pixels=np.full_like(pixels, np.nan))
    assert np.isnan(image_seeing(nothing))
    unknown = dataclasses.replace(image, background_sigma=np.full((2, 2), np.nan, np.float32))
    assert np.isnan(image_seeing(unknown))


@given(st.floats(2.0, 6.0), st.floats(-0.45, 0.45), st.floats(-0.45, 0.45))
def test_a_lone_star_s_width_is_its_own(width, dy, dx):
    y, x = np.mgrid[-8:9, -8:9]
    star = moffat(y - dy, x - dx, width)[None]
    row, column = np.array([8]), np.array([8])
    assert peak_widths(star, np.array([0]), row, column)[0] == pytest.approx(width, rel=0.04)


def test_a_store_says_the_seeing_of_its_images(tmp_path):
    sharp = field(1.0, seed=2)
    dull = dataclasses.replace(
        field(1.6, seed=3), ref=dataclasses.replace(sharp.ref, name="frame-g-1", band="g")
    )
    plain = make_image(np.zeros((400, 480)), sharp.wcs, "frame-i-1", "i")
    survey = MemorySurvey([sharp, dull, plain], "gri")
    ra, dec = sharp.wcs.wcs_pix2world([100, 300], [120, 250], 0)
    storage, prefix = open_storage(tmp_path), "cutouts/Norder=0/Dir=0/Npix=0.zarr"
    geometry = {"sky": GeometryConfig(size=32, scale=SCALE)}
    made = cut_partition(survey, make_rows(ra, dec), geometry, storage, prefix)
    cutouts = read_cutouts(storage, prefix, "sky", made.inventory)
    assert cutouts.seeing().shape == (2, 3)
    np.testing.assert_allclose(cutouts.seeing()[:, :2], [[1.6, 1.0]] * 2, rtol=0.06)
    assert np.isnan(cutouts.seeing()[:, 2]).all()
    assert [source.get("seeing") is None for source in cutouts.sources] == [
        source["band"] == "i" for source in cutouts.sources
    ]
