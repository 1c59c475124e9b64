import numpy as np
import pytest

from gzscale.catalog.schema import MORPHOLOGY_COLUMNS
from gzscale.errors import BundleError, ConfigError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, Scheme, to_joint
from gzscale.tasks.base import Task, load_task
from gzscale.tasks.gz2_class import gz2_class
from gzscale.tasks.morphology import MorphologyTask
from gzscale.tasks.vote_spread import joint_standard_deviations, standard_deviations


@pytest.fixture
def conditional():
    rng = np.random.default_rng(4)
    fractions = np.empty((6, 37))
    for question in QUESTIONS:
        fractions[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), 6)
    return fractions


def test_is_found_by_its_name():
    task = load_task("morphology")
    assert isinstance(task, MorphologyTask)
    assert isinstance(task, Task)


def test_unknown_task():
    with pytest.raises(ConfigError, match=r"astrology.*morphology"):
        load_task("astrology")


CALIBRATION = {"vote_spread": [[1.0 + index / 10, -0.3] for index in range(11)], "usual_distance": 2.0}


def outputs_of(conditional, distance=1.0):
    joint = to_joint(conditional).astype(np.float32)
    return {"vote_fractions": joint, "distance": np.full((len(joint), 1), distance, np.float32)}


def test_columns_are_conditional_fractions_and_what_follows(conditional):
    values, finite = MorphologyTask().table(outputs_of(conditional), CALIBRATION)
    assert list(values) == [column.name for column in MORPHOLOGY_COLUMNS]
    assert finite.all()
    joint = to_joint(conditional)
    spread = standard_deviations(conditional, CALIBRATION["vote_spread"])
    of_all = joint_standard_deviations(conditional, spread)
    for index, answer in enumerate(ANSWERS):
        found = values[f"{answer}_fraction"]
        assert found.dtype == values[f"{answer}_std"].dtype == np.float32
        np.testing.assert_allclose(found, conditional[:, index], rtol=1e-5)
        np.testing.assert_allclose(values[f"{answer}_joint"], joint[:, index], rtol=1e-5)
        np.testing.assert_allclose(values[f"{answer}_std"], spread[:, index], rtol=1e-4)
        np.testing.assert_allclose(values[f"{answer}_joint_std"], of_all[:, index], rtol=1e-4)
        assert values[f"{answer}_clean"].dtype == bool
    assert values["gz2_class"].tolist() == gz2_class(conditional).tolist()


def test_clean_answers_are_certain_ones(conditional):
    sure = conditional.copy()
    sure[0, :3] = 0.95, 0.04, 0.01
    sure[1, :3] = 0.70, 0.29, 0.01
    values, _ = MorphologyTask().table(outputs_of(sure), CALIBRATION)
    assert values["t01_smooth_or_features_a01_smooth_clean"][:2].tolist() == [True, False]


def test_images_unlike_what_was_learnt(conditional):
    for distance, unlike in ((1.9, False), (2.1, True)):
        values, _ = MorphologyTask().table(outputs_of(conditional, distance), CALIBRATION)
        assert values["unlikeness"] == pytest.approx(distance / 2)
        assert values["unlike_training"].tolist() == [unlike] * 6


def test_kaggle_columns_are_joint(conditional):
    outputs = outputs_of(conditional)
    values, finite = MorphologyTask().kaggle_table(outputs)
    assert finite.all()
    assert list(values) == list(KAGGLE_NAMES)
    np.testing.assert_array_equal(np.stack(list(values.values()), axis=1), outputs["vote_fractions"])
    printed, _ = MorphologyTask().kaggle_table(outputs, Scheme.TREE)
    expected = to_joint(conditional, Scheme.TREE)
    np.testing.assert_allclose(np.stack(list(printed.values()), axis=1), expected, rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_output_that_is_not_finite(conditional, bad):
    outputs = outputs_of(conditional)
    outputs["vote_fractions"][2, 20] = bad
    for _, finite in (MorphologyTask().table(outputs, CALIBRATION), MorphologyTask().kaggle_table(outputs)):
        assert finite.tolist() == [True, True, False, True, True, True]
    outputs = outputs_of(conditional)
    outputs["distance"][4] = bad
    assert MorphologyTask().table(outputs, CALIBRATION)[1].tolist() == [True] * 4 + [False, True]


@pytest.mark.parametrize("missing", ["vote_fractions", "distance", "vote_spread", "usual_distance"])
def test_a_bundle_that_lacks_something(conditional, missing):
    outputs, calibration = outputs_of(conditional), dict(CALIBRATION)
    outputs.pop(missing, None)
    calibration.pop(missing, None)
    with pytest.raises(BundleError, match=missing):
        MorphologyTask().table(outputs, calibration)


def test_no_rows():
    values, finite = MorphologyTask().table(outputs_of(np.empty((0, 37))), CALIBRATION)
    assert len(finite) == 0
    assert all(len(value) == 0 for value in values.values())
