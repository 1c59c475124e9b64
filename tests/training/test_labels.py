import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.errors import CatalogError
from gzscale.training.labels import USUAL_VOTES, Labels, folds, require_enough


def some_labels(count, refused=()):
    joint = np.zeros((count, 37), np.float32)
    joint[:, 0] = joint[:, 14] = joint[:, 15] = 1
    unknown = np.full(count, np.nan)
    names = tuple(f"g{i}" for i in range(count))
    return Labels(
        names,
        joint,
        unknown.astype(np.float32),
        unknown,
        unknown,
        unknown.astype(np.float32),
        Counter(refused),
    )


def test_votes_of_a_table_that_does_not_say():
    votes = some_labels(2).votes()
    assert votes.shape == (2, 11)
    assert votes[0].tolist() == [USUAL_VOTES, 0, 0, 0, 0, USUAL_VOTES, USUAL_VOTES, 0, 0, 0, 0]


def test_a_question_without_a_counted_answer_has_no_votes():
    labels = some_labels(2)
    labels.joint[1, 15] = 0  # "how rounded?": asked of everybody, answered by nobody
    assert labels.votes()[:, 6].tolist() == [USUAL_VOTES, 0]


def test_the_digest_is_that_of_the_votes():
    labels, other = some_labels(3), some_labels(3)
    assert labels.digest() == other.digest()
    other.joint[2, 5] = 0.1
    assert labels.digest() != other.digest()


def test_too_few():
    require_enough(some_labels(50), "x")
    with pytest.raises(CatalogError, match=r"49 labelled galaxies.*3 NO_IMAGE"):
        require_enough(some_labels(49, {"NO_IMAGE": 3}), "x")


def test_taking_some():
    chosen = some_labels(5).take(np.array([3, 1]))
    assert chosen.names == ("g3", "g1")
    assert chosen.joint.shape == (2, 37)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.text(min_size=1))
def test_a_galaxy_s_side_depends_on_its_name_alone(names, other):
    assert folds([*names, other])[:-1].tolist() == folds(names).tolist()


def test_images_of_one_object_stay_on_one_side():
    labels = dataclasses.replace(some_labels(5), object_names=("1", "2", "1", None, None))
    assert labels.split_names() == ["g0", "g1", "g0", "g3", "g4"]
    turned = labels.take(np.array([2, 4, 0]))
    assert turned.split_names() == ["g0", "g4", "g0"]
    # Placeholders name no object.
    unknown = dataclasses.replace(labels, object_names=("0", "-999", "-999", "0", "J12"))
    assert unknown.split_names() == ["g0", "g1", "g2", "g3", "g4"]
    assert some_labels(3).split_names() == ["g0", "g1", "g2"]


def test_folds_are_even():
    names = [str(number) for number in range(20000)]
    counts = np.bincount(folds(names, 5), minlength=5)
    assert counts.min() > 3800
    assert counts.max() < 4200
