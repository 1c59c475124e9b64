import numpy as np
import pytest

from gzscale.catalog.schema import MORPHOLOGY_COLUMNS
from gzscale.errors import ConfigError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_joint
from gzscale.tasks.base import Task, load_task
from gzscale.tasks.morphology import MorphologyTask


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


def test_columns_are_conditional_fractions(conditional):
    outputs = {"vote_fractions": to_joint(conditional).astype(np.float32)}
    values, finite = MorphologyTask().table(outputs)
    assert list(values) == [column.name for column in MORPHOLOGY_COLUMNS]
    assert finite.all()
    for index, answer in enumerate(ANSWERS):
        found = values[f"{answer}_fraction"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, conditional[:, index], rtol=1e-5)


def test_kaggle_columns_are_joint(conditional):
    joint = to_joint(conditional).astype(np.float32)
    values, finite = MorphologyTask().kaggle_table({"vote_fractions": joint})
    assert finite.all()
    assert list(values) == list(KAGGLE_NAMES)
    np.testing.assert_array_equal(np.stack(list(values.values()), axis=1), joint)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_output_that_is_not_finite(conditional, bad):
    joint = to_joint(conditional).astype(np.float32)
    joint[2, 20] = bad
    for table in (MorphologyTask().table, MorphologyTask().kaggle_table):
        _, finite = table({"vote_fractions": joint})
        assert finite.tolist() == [True, True, False, True, True, True]


def test_no_rows():
    values, finite = MorphologyTask().table({"vote_fractions": np.empty((0, 37), np.float32)})
    assert len(finite) == 0
    assert all(len(value) == 0 for value in values.values())
