"""Lens scores, radii and flags against formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.catalog.lens_columns import LENS_COLUMNS, LensFlag
from gzscale.errors import BundleError
from gzscale.tasks.base import Ranked, Seen, load_task
from gzscale.tasks.lenses import (
    LENS,
    RADIUS,
    RADIUS_EDGES,
    LensesTask,
    calibrated_chance,
    middle_seeing,
    radius_bin,
    radius_quantiles,
    shift_prevalence,
)

CALIBRATION = {
    "slope": 1.0,
    "offset": 0.0,
    "training_prevalence": 0.5,
    "prevalence": 1e-3,
    "usual_noise": {"g": 0.02, "r": 0.03, "i": 0.05},
}


def seen(n, bands="ugriz", **changes):
    shape = (n, len(bands))
    values = {
        "measured": np.ones(shape, bool),
        "coverage": np.ones(shape, np.float32),
        "noise": np.full(shape, 0.02, np.float32),
        "flux": np.full(shape, 50.0, np.float32),
        "brightest": np.full(shape, 3.0, np.float32),
        "extinction": np.zeros(n, np.float32),
    }
    return Seen(bands, **(values | changes))


def outputs(chance, radius=1.3):
    share = np.zeros((len(chance), len(RADIUS_EDGES) - 1), np.float32)
    share[:, radius_bin(np.array([radius]))[0]] = 1
    return {LENS: np.asarray(chance, np.float32)[:, None], RADIUS: share}


def test_task_is_found_and_ranked():
    task = load_task("lenses")
    assert isinstance(task, LensesTask)
    assert isinstance(task, Ranked)
    assert task.ranked_by in {column.name for column in task.columns}


def test_score_is_the_chance_at_the_stated_prevalence():
    values, finite = LensesTask().table(outputs([0.5, 0.999]), CALIBRATION, seen(2))
    assert finite.all()
    assert set(values) == {column.name for column in LENS_COLUMNS}
    assert values["lens_score"][0] == pytest.approx(1e-3, rel=1e-4)
    odds = 999 * 1e-3 / 0.999
    assert values["lens_score"][1] == pytest.approx(odds / (1 + odds), rel=1e-3)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-4, 0.9), st.floats(1e-4, 0.9))
def test_prevalence_by_bayes(chance, learnt, stated):
    """The likelihood ratio stays; with the new prior it gives the new chance, and the way back leads back."""
    ratio = chance / (1 - chance) * (1 - learnt) / learnt
    expected = ratio * stated / (ratio * stated + 1 - stated)
    there = shift_prevalence(np.array([chance]), learnt, stated)
    assert there[0] == pytest.approx(expected, rel=1e-9)
    assert shift_prevalence(there, stated, learnt)[0] == pytest.approx(chance, rel=1e-6)


def test_calibration_is_linear_in_the_logit():
    chance = calibrated_chance(np.array([0.2, 0.0, 1.0]), {"slope": 2.0, "offset": 1.0})
    logit = 2 * np.log(0.25) + 1
    assert chance[0] == pytest.approx(1 / (1 + np.exp(-logit)))
    assert 0 < chance[1] < 1e-10
    assert chance[2] > 1 - 1e-10


def test_a_seeing_counts_by_its_ratio_to_the_usual_one():
    calibration = {"slope": 1.0, "offset": 0.0, "seeing": {"slope": -2.0, "usual": 1.3}}
    seeing = np.array([1.3, 1.04, 0.1, np.nan])
    chance = calibrated_chance(np.full(4, 0.5), calibration, seeing)
    logit = np.log(chance / (1 - chance))
    np.testing.assert_allclose(logit, -2 * np.log([1, 0.8, 0.55, 1]), atol=1e-9)
    np.testing.assert_array_equal(calibrated_chance(np.full(4, 0.5), calibration), np.full(4, 0.5))


def test_the_middle_seeing_is_that_of_the_bands_that_are_looked_at():
    seeing = np.array([[9, 1.4, 1.2, 1.1, 9], [9, np.nan, 1.2, 1.0, 9], [9, np.nan, np.nan, np.nan, 9]])
    np.testing.assert_allclose(middle_seeing("ugriz", seeing), [1.2, 1.1, np.nan])
    assert middle_seeing("ugriz", None) is None
    assert middle_seeing("uz", seeing[:, [0, 4]]) is None


def test_a_score_knows_the_seeing():
    calibration = {**CALIBRATION, "seeing": {"slope": -2.0, "usual": 1.3}}
    sharp = np.full((3, 5), 1.3, np.float32)
    sharp[1], sharp[2] = 1.0, np.nan
    score = LensesTask().table(outputs([0.5] * 3), calibration, seen(3, seeing=sharp))[0]["lens_score"]
    plain = LensesTask().table(outputs([0.5] * 3), calibration, seen(3))[0]["lens_score"]
    assert score[0] == score[2] == plain[0]
    assert score[1] > 1.5 * score[0]


def test_radius_quantiles_of_samples():
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.ones(len(RADIUS_EDGES) - 1), 3)
    found = radius_quantiles(share, (0.16, 0.5, 0.84))
    for row in range(3):
        place = rng.choice(len(RADIUS_EDGES) - 1, 200_000, p=share[row])
        samples = rng.uniform(RADIUS_EDGES[place], RADIUS_EDGES[place + 1])
        np.testing.assert_allclose(found[row], np.quantile(samples, (0.16, 0.5, 0.84)), rtol=1e-2)


def test_bins_hold_their_radii():
    radius = np.array([0.1, 0.5, 1.0, 3.99, 9.0])
    place = radius_bin(radius)
    assert place[0] == 0
    assert place[-1] == len(RADIUS_EDGES) - 2
    assert (RADIUS_EDGES[place[1:4]] <= radius[1:4]).all()
    assert (radius[1:4] <= RADIUS_EDGES[place[1:4] + 1]).all()


def changed(name, value, row=0, band=1):
    array = getattr(seen(2), name).copy()
    array[row, band] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "flag", "scored"),
    [
        (changed("coverage", 0.4), LensFlag.HALF_COVERED | LensFlag.PARTLY_COVERED, False),
        (changed("coverage", 0.9), LensFlag.PARTLY_COVERED, True),
        (changed("brightest", 400.0), LensFlag.SATURATED, False),
        (changed("flux", -1.0), LensFlag(0), True),
        (changed("flux", -10.0), LensFlag.NO_LIGHT, False),
        (changed("flux", np.nan), LensFlag.NO_LIGHT, False),
        (changed("brightest", 0.0), LensFlag.NO_LIGHT, False),
        (changed("measured", False), LensFlag.NO_LIGHT, False),
        (changed("noise", 0.2), LensFlag.NOISY, True),
        (changed("noise", np.nan), LensFlag.NOISY, True),
        (changed("coverage", 0.4, band=0), LensFlag(0), True),
    ],
)
def test_bad_input_is_flagged_by_name(change, flag, scored):
    values, finite = LensesTask().table(outputs([0.9, 0.9]), CALIBRATION, seen(2, **change))
    assert finite.all()
    assert values["lens_flags"].tolist() == [int(flag), 0]
    assert np.ma.getmaskarray(values["lens_score"]).tolist() == [not scored, False]
    assert np.ma.getmaskarray(values["einstein_radius"]).tolist() == [not scored, False]


def test_outputs_that_are_not_finite_are_told():
    _, finite = LensesTask().table(outputs([np.nan, 0.5]), CALIBRATION, seen(2))
    assert finite.tolist() == [False, True]


def test_missing_numbers_are_named():
    with pytest.raises(BundleError, match="slope"):
        LensesTask().table(outputs([0.5]), {"offset": 0.0}, seen(1))
    with pytest.raises(BundleError, match="einstein_radius"):
        LensesTask().table({LENS: np.zeros((1, 1))}, CALIBRATION, seen(1))


def test_every_flag_is_described():
    (column,) = (column for column in LENS_COLUMNS if column.name == "lens_flags")
    assert all(f"{flag.value} " in column.description for flag in LensFlag)
