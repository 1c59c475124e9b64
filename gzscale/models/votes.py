"""The Galaxy Zoo 2 decision tree: 11 questions, 37 answers, and how fractions multiply down it.

Two ways to write the same votes:

conditional
    Of those who were asked the question, the fraction that gave the answer.
    The answers of each question sum to 1.
joint
    Of all who looked at the galaxy, the fraction that was asked the question and gave
    the answer: the conditional fraction times the joint fraction of the answer that led
    there. The answers of a question sum to the fraction that was asked it.

The 37 numbers are always in the order of `ANSWERS`, which is that of Kaggle's
``Class1.1`` to ``Class11.6``. The numbering of the answers in the released names is Galaxy
Zoo 2's own: there is no a35, and a38 (dust lane) was added to question 8 later.

References
----------
.. [1] Willett et al. 2013, MNRAS 435, 2835, Table 2 (the tree) and Section 3.
.. [2] Kaggle, "Galaxy Zoo - The Galaxy Challenge" (2013), "The Galaxy Zoo decision tree".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ANSWERS",
    "KAGGLE_NAMES",
    "QUESTIONS",
    "USUAL_VOTES",
    "Question",
    "Scheme",
    "asked",
    "to_conditional",
    "to_joint",
]


#: Volunteers of a galaxy where nothing says how many: Galaxy Zoo 2's median [1]_, Section 2.3.
USUAL_VOTES = 44.0


class Scheme(StrEnum):
    """How often question 6, "is there anything odd?", counts as asked.

    All other questions are the same in both.
    """

    KAGGLE = "kaggle"
    """Of everybody: the joint fractions of question 6 sum to 1 [2]_."""
    TREE = "tree"
    """Of everybody but those who saw a star or an artifact, as the tree is printed [1]_."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the tree.

    Attributes
    ----------
    number
        1 to 11.
    text
        As the volunteers read it.
    start, stop
        Where its answers stand among the 37.
    parent
        Position of the answer that leads here, or None where no single answer does.
        Questions 3, 4 and 5 are asked of all who said "not edge-on", whatever they answered
        between, so that answer is the parent of all three; likewise 10 and 11.
    """

    number: int
    text: str
    start: int
    stop: int
    parent: int | None

    @property
    def answers(self) -> slice:
        """Where its answers stand among the 37."""
        return slice(self.start, self.stop)


#: Number, name in released columns, wording, the answer that leads there, the answers.
_TREE: tuple[tuple[int, str, str, str | None, tuple[str, ...]], ...] = (
    (
        1,
        "smooth_or_features",
        "Is the galaxy simply smooth and rounded, with no sign of a disk?",
        None,
        ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact"),
    ),
    (2, "edgeon", "Could this be a disk viewed edge-on?", "a02_features_or_disk", ("a04_yes", "a05_no")),
    (
        3,
        "bar",
        "Is there a sign of a bar feature through the centre of the galaxy?",
        "a05_no",
        ("a06_bar", "a07_no_bar"),
    ),
    (4, "spiral", "Is there any sign of a spiral arm pattern?", "a05_no", ("a08_spiral", "a09_no_spiral")),
    (
        5,
        "bulge_prominence",
        "How prominent is the central bulge, compared to the rest of the galaxy?",
        "a05_no",
        ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"),
    ),
    (6, "odd", "Is there anything odd?", None, ("a14_yes", "a15_no")),
    (
        7,
        "rounded",
        "How rounded is it?",
        "a01_smooth",
        ("a16_completely_round", "a17_in_between", "a18_cigar_shaped"),
    ),
    (
        8,
        "odd_feature",
        "Is the odd feature a ring, or is the galaxy disturbed or irregular?",
        "a14_yes",
        (
            "a19_ring",
            "a20_lens_or_arc",
            "a21_disturbed",
            "a22_irregular",
            "a23_other",
            "a24_merger",
            "a38_dust_lane",
        ),
    ),
    (
        9,
        "bulge_shape",
        "Does the galaxy have a bulge at its centre? If so, what shape?",
        "a04_yes",
        ("a25_rounded", "a26_boxy", "a27_no_bulge"),
    ),
    (
        10,
        "arms_winding",
        "How tightly wound do the spiral arms appear?",
        "a08_spiral",
        ("a28_tight", "a29_medium", "a30_loose"),
    ),
    (
        11,
        "arms_number",
        "How many spiral arms are there?",
        "a08_spiral",
        ("a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"),
    ),
)


def _questions() -> tuple[Question, ...]:
    short = [name for *_, names in _TREE for name in names]
    questions: list[Question] = []
    for number, _, text, parent, names in _TREE:
        start = short.index(names[0])
        position = None if parent is None else short.index(parent)
        questions.append(Question(number, text, start, start + len(names), position))
    return tuple(questions)


#: The 11 questions, in order.
QUESTIONS: tuple[Question, ...] = _questions()

#: The released name of each answer: ``t01_smooth_or_features_a01_smooth``.
ANSWERS: tuple[str, ...] = tuple(
    f"t{number:02d}_{question}_{name}" for number, question, _, _, names in _TREE for name in names
)

#: Kaggle's name of each answer: ``Class1.1``.
KAGGLE_NAMES: tuple[str, ...] = tuple(
    f"Class{number}.{index}" for number, *_, names in _TREE for index in range(1, len(names) + 1)
)

#: A parent comes before its question, except in 8, which hangs on 6: top-down by number is safe.
_BY_DEPTH = QUESTIONS
_STAR = ANSWERS.index("t01_smooth_or_features_a03_star_or_artifact")
_ODD = QUESTIONS[5]


def asked(joint: NDArray[np.floating], scheme: Scheme = Scheme.KAGGLE) -> NDArray[np.floating]:
    """Return the fraction of all volunteers that was asked each question.

    Parameters
    ----------
    joint
        Joint fractions, shape (..., 37).
    scheme
        The normalisation of question 6 that ``joint`` is written in.

    Returns
    -------
    NDArray[np.floating]
        Shape (..., 11); 1 for question 1.
    """
    _check(joint)
    fractions = np.ones((*joint.shape[:-1], len(QUESTIONS)), joint.dtype)
    for index, question in enumerate(QUESTIONS):
        if question.parent is not None:
            fractions[..., index] = joint[..., question.parent]
        elif question is _ODD and scheme == Scheme.TREE:
            fractions[..., index] = joint[..., :_STAR].sum(axis=-1)
    return fractions


def to_joint(conditional: NDArray[np.floating], scheme: Scheme = Scheme.KAGGLE) -> NDArray[np.floating]:
    """Multiply conditional fractions down the tree.

    Parameters
    ----------
    conditional
        Shape (..., 37). NaN in a question that nobody was asked (its parent's fraction is 0)
        counts as 0; any other NaN goes through to all that hangs on it.
    scheme
        The normalisation of question 6.

    Returns
    -------
    NDArray[np.floating]
        Joint fractions, shape (..., 37), of the same dtype.
    """
    _check(conditional)
    joint = np.empty_like(conditional)
    for question in _BY_DEPTH:
        share = _share(joint, question, scheme)
        values = conditional[..., question.answers]
        joint[..., question.answers] = np.where(share == 0, 0, values * share)
    return joint


def to_conditional(joint: NDArray[np.floating], scheme: Scheme = Scheme.KAGGLE) -> NDArray[np.floating]:
    """Divide joint fractions by the fraction that was asked.

    Parameters
    ----------
    joint
        Shape (..., 37).
    scheme
        The normalisation of question 6 that ``joint`` is written in.

    Returns
    -------
    NDArray[np.floating]
        Conditional fractions, shape (..., 37), of the same dtype; NaN in a question that
        nobody was asked.
    """
    _check(joint)
    conditional = np.empty_like(joint)
    for question in QUESTIONS:
        share = _share(joint, question, scheme)
        known = np.where(share == 0, np.nan, share).astype(joint.dtype)
        conditional[..., question.answers] = joint[..., question.answers] / known
    return conditional


def _share(joint: NDArray[np.floating], question: Question, scheme: Scheme) -> NDArray[np.floating]:
    """Fraction that was asked the question, shape (..., 1)."""
    if question.parent is not None:
        return joint[..., question.parent, None]
    if question is _ODD and scheme == Scheme.TREE:
        return joint[..., :_STAR].sum(axis=-1, keepdims=True)
    return np.ones((*joint.shape[:-1], 1), joint.dtype)


def _check(fractions: NDArray[np.floating]) -> None:
    if fractions.ndim == 0 or fractions.shape[-1] != len(ANSWERS):
        raise ValueError(
            f"expected {len(ANSWERS)} answers along the last axis, found shape {fractions.shape}"
        )
