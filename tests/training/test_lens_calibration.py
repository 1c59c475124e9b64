"""Calibration of a lens finder against scikit-learn's logistic regression and against what was drawn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from gzscale.tasks.lenses import RADIUS_EDGES, calibrated_chance, radius_quantiles, tempered
from gzscale.training.lens_calibration import Unseen, fit_calibration, fit_temperature
from gzscale.training.lens_metrics import reliability


def made(n, seed=1, simulated=0.0, blur=0.15, seeing_slope=-1.9, offset=0.4, apart=-0.6):
    """Examples whose true logit is 0.8 of the network's, an offset, and a term of the seeing."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 3, n)
    seeing = 1.2 * np.exp(rng.normal(0, blur, n))
    of_sample = rng.random(n) < simulated
    true = 0.8 * logit + offset + seeing_slope * np.log(seeing / 1.2) + apart * of_sample
    lens = rng.random(n) < 1 / (1 + np.exp(-true))
    return of_chances((1 / (1 + np.exp(-logit))).astype(np.float32), lens, seeing, of_sample)


def of_chances(chance, lens, seeing, simulated):
    """Examples without Einstein radii."""
    n = len(chance)
    share = np.full((n, len(RADIUS_EDGES) - 1), 1 / (len(RADIUS_EDGES) - 1), np.float32)
    return Unseen(
        chance, lens, seeing, simulated, share, np.full(n, np.nan, np.float32), np.ones(n, np.float32)
    )


def test_it_is_logistic_regression():
    unseen = made(6000, blur=0.0)
    found = fit_calibration(unseen)
    assert set(found) == {"slope", "offset"}
    logit = np.log(unseen.chance / (1 - unseen.chance.astype(float)))
    fit = LogisticRegression(C=1e9).fit(logit[:, None], unseen.lens)
    assert found["slope"] == pytest.approx(fit.coef_[0, 0], rel=0.01)
    assert found["offset"] == pytest.approx(fit.intercept_[0], abs=0.01)


def test_perfect_separation_is_calibrated_finitely():
    chance = np.r_[np.full(50, 0.9), np.full(50, 0.1)].astype(np.float32)
    found = fit_calibration(of_chances(chance, np.arange(100) < 50, np.ones(100), np.zeros(100, bool)))
    assert np.isfinite(list(found.values())).all()
    assert 0 < found["slope"] < 10


def test_what_a_chance_means_depends_on_the_seeing():
    found = fit_calibration(made(60_000))
    assert found["slope"] == pytest.approx(0.8, abs=0.03)
    assert found["offset"] == pytest.approx(0.4, abs=0.05)
    assert found["seeing"]["slope"] == pytest.approx(-1.9, abs=0.25)
    assert found["seeing"]["usual"] == pytest.approx(1.2, rel=0.01)
    sharp = made(20_000, seed=2)
    rows = np.flatnonzero(sharp.seeing < 1.05)
    sharp = sharp.take(rows)
    share = float(sharp.lens.mean())
    with_it = reliability(calibrated_chance(sharp.chance, found, sharp.seeing), sharp.lens, share)
    without = reliability(calibrated_chance(sharp.chance, found), sharp.lens, share)
    assert with_it.deviation < 2 * with_it.noise < without.deviation


def test_what_is_stated_holds_for_the_sky():
    found = fit_calibration(made(60_000, simulated=0.8))
    assert found["offset"] == pytest.approx(0.4, abs=0.08)
    assert found["slope"] == pytest.approx(0.8, abs=0.03)
    every = fit_calibration(made(60_000, simulated=1.0))
    assert every["offset"] == pytest.approx(-0.2, abs=0.05)


def test_how_it_depends_on_the_seeing_samples_tell_where_there_are_some():
    """The sky's images differ the other way, and their seeing is said, too."""
    drawn, sky = made(60_000, simulated=1.0), made(60_000, seed=2, seeing_slope=+1.9)
    found = fit_calibration(Unseen.joined([drawn, sky]))
    assert found["seeing"]["slope"] == pytest.approx(-1.9, abs=0.25)
    # 0.4 at the usual seeing: the wrong term of the sky's images is even about it.
    assert found["offset"] == pytest.approx(0.4, abs=0.08)
    # Sharper than the sky, and all alike: what parts them is no matter of the seeing.
    fixed = replace(made(60_000, seed=3, simulated=1.0, blur=0.0), seeing=np.full(60_000, 0.9))
    found = fit_calibration(Unseen.joined([fixed, sky]))
    assert found["seeing"]["slope"] == pytest.approx(1.9, abs=0.25)


def test_samples_beyond_what_a_term_of_the_seeing_is_stated_for_tell_nothing_of_it():
    drawn, sky = made(6000, simulated=1.0), made(6000, seed=2, blur=0.0)
    found = fit_calibration(Unseen.joined([replace(drawn, seeing=drawn.seeing / 5), sky]))
    assert set(found) == {"slope", "offset"}


def test_few_images_tell_nothing_of_the_seeing():
    unseen = made(6000)
    few = np.where(np.arange(6000) % 2, 1.0, 1.4)
    assert "seeing" not in fit_calibration(replace(unseen, seeing=few))
    assert "seeing" not in fit_calibration(replace(unseen, seeing=np.full(6000, np.nan)))
    half = np.where(np.arange(6000) % 2, unseen.seeing, np.nan)
    assert fit_calibration(replace(unseen, seeing=half))["seeing"]["usual"] == pytest.approx(1.2, rel=0.02)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.6])
def test_intervals_hold_as_many_radii_as_they_say(temperature):
    """True probabilities, told too wide or too narrow, come back."""
    rng = np.random.default_rng(5)
    n, bins = 4000, len(RADIUS_EDGES) - 1
    centre, width = rng.uniform(4, 17, n), rng.uniform(1.0, 2.0, n)
    true = np.exp(-(((np.arange(bins) - centre[:, None]) / width[:, None]) ** 2) / 2)
    true /= true.sum(axis=1, keepdims=True)
    place = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    radius = rng.uniform(RADIUS_EDGES[place], RADIUS_EDGES[place + 1]).astype(np.float32)
    told = true**temperature / (true**temperature).sum(axis=1, keepdims=True)
    unseen = replace(made(n), share=told.astype(np.float32), radius=radius)
    assert fit_temperature(unseen) == pytest.approx(temperature, rel=0.08)
    low, high = radius_quantiles(tempered(told, {"radius_temperature": temperature}), (0.16, 0.84)).T
    assert ((low < radius) & (radius < high)).mean() == pytest.approx(0.68, abs=0.025)


def test_without_radii_the_temperature_is_one():
    assert fit_temperature(made(200)) == 1.0
