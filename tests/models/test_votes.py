import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, Scheme, asked, to_conditional, to_joint

logits = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(37)), elements=st.floats(-5, 5))
schemes = st.sampled_from(list(Scheme))

#: What each Kaggle class sums to, as the challenge's page states it (class -> column), by hand.
KAGGLE_SUMS = {2: "Class1.2", 3: "Class2.2", 4: "Class2.2", 5: "Class2.2", 7: "Class1.1"}
KAGGLE_SUMS |= {8: "Class6.1", 9: "Class2.1", 10: "Class4.1", 11: "Class4.1"}


def softmax(values):
    fractions = np.empty_like(values)
    for question in QUESTIONS:
        powers = np.exp(values[..., question.answers])
        fractions[..., question.answers] = powers / powers.sum(axis=-1, keepdims=True)
    return fractions


def test_names_are_the_released_ones():
    assert len(ANSWERS) == len(KAGGLE_NAMES) == 37
    assert len(set(ANSWERS)) == 37
    assert ANSWERS[0] == "t01_smooth_or_features_a01_smooth"
    assert ANSWERS[24] == "t08_odd_feature_a38_dust_lane"
    assert ANSWERS[36] == "t11_arms_number_a37_cant_tell"
    assert KAGGLE_NAMES[18] == "Class8.1"
    assert KAGGLE_NAMES[-1] == "Class11.6"
    assert [q.stop - q.start for q in QUESTIONS] == [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6]


@given(logits, schemes)
def test_conditional_to_joint_and_back(values, scheme):
    conditional = softmax(values)
    back = to_conditional(to_joint(conditional, scheme), scheme)
    np.testing.assert_allclose(back, conditional, rtol=1e-12)


@given(logits)
def test_kaggle_sums(values):
    joint = to_joint(softmax(values))
    column = dict(zip(KAGGLE_NAMES, np.moveaxis(joint, -1, 0), strict=True))
    for number in range(1, 12):
        total = sum(value for name, value in column.items() if name.startswith(f"Class{number}."))
        np.testing.assert_allclose(total, column[KAGGLE_SUMS[number]] if number in KAGGLE_SUMS else 1.0)


@given(logits)
def test_the_printed_tree_asks_question_6_after_5_7_and_9(values):
    joint = to_joint(softmax(values), Scheme.TREE)
    sums = [joint[..., question.answers].sum(axis=-1) for question in QUESTIONS]
    np.testing.assert_allclose(sums[5], sums[4] + sums[6] + sums[8], rtol=1e-12)
    np.testing.assert_allclose(np.stack(sums, axis=-1), asked(joint, Scheme.TREE), rtol=1e-12)


@given(logits, schemes)
@settings(max_examples=30)
def test_float32_stays_float32(values, scheme):
    joint = to_joint(softmax(values).astype(np.float32), scheme)
    assert joint.dtype == to_conditional(joint, scheme).dtype == np.float32


def test_nobody_asked_is_nan_in_conditional_and_zero_in_joint():
    conditional = softmax(np.zeros((1, 37)))
    conditional[0, :3] = [1, 0, 0]  # everybody says smooth
    joint = to_joint(conditional)
    assert joint[0, QUESTIONS[1].answers].tolist() == [0, 0]
    back = to_conditional(joint)
    assert np.isnan(back[0, QUESTIONS[10].answers]).all()
    np.testing.assert_allclose(back[0, QUESTIONS[6].answers], 1 / 3)
    np.testing.assert_array_equal(to_joint(back), joint)


def test_a_missing_answer_that_was_asked_stays_missing():
    conditional = softmax(np.zeros((1, 37)))
    conditional[0, 3:5] = np.nan
    joint = to_joint(conditional)
    assert np.isnan(joint[0, 3:13]).all()
    assert np.isfinite(joint[0, 13:25]).all()


def test_wrong_number_of_answers():
    with pytest.raises(ValueError, match=r"37 answers.*\(2, 36\)"):
        to_joint(np.zeros((2, 36)))
