"""Scores a morphology bundle on labelled galaxies, honestly where it has learnt some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import BundleError
from gzscale.models.bundle import Bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.votes import ANSWERS, to_conditional
from gzscale.tasks.morphology import OUTPUT
from gzscale.tasks.vote_spread import concentrations
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import LEAST_LABELS, folds, require_enough
from gzscale.training.learnt import learnt_folds, unlike_names, unlike_votes
from gzscale.training.scores import clean_agreement, compare, question_scores
from gzscale.training.shown import GEOMETRY
from gzscale.training.spread import cross_fitted, interval_scores, question_intervals

__all__ = ["Evaluation", "evaluate_morphology"]

#: Pictures that are predicted together.
_BLOCK = 128


@dataclass(frozen=True)
class Evaluation:
    """How well a bundle does.

    Attributes
    ----------
    scores
        See `gzscale.training.scores.compare` and `gzscale.training.spread.interval_scores`. No interval's
        width was found on the votes that it is held against.
    questions
        RMSE of each question's conditional fractions, by its number.
    intervals
        See `gzscale.training.spread.question_intervals`.
    learnt
        Galaxies that the bundle had learnt; each was predicted by the one member that had not.
    predicted
        Joint fractions, shape (n, 37).
    clean
        Answers of clean samples by the table's flags, and how many of them have the most votes of their
        question by the prediction, too; None where the table has no flags.
    warning
        Why galaxies that were learnt may have gone unrecognised, or are scored by other votes; else None.
    """

    scores: dict[str, float]
    questions: dict[int, float]
    intervals: dict[int, dict[str, float]]
    learnt: int
    predicted: NDArray[np.float32]
    clean: tuple[int, int] | None = None
    warning: str | None = None


def evaluate_morphology(bundle: Bundle, labelled: LabelledSet) -> Evaluation:
    """Score a bundle.

    Parameters
    ----------
    bundle
        The bundle.
    labelled
        Pictures and votes. Those that the bundle has learnt, by their names or their pictures, are predicted
        by the member of its committee that had not; the mean and the random forest learn the other folds
        of these labels.

    Raises
    ------
    BundleError
        If the bundle is of another task, looks at another field or other colours than the labelled set's,
        or has learnt some of the galaxies and has no members to part.
    CatalogError
        If there are fewer than 50 galaxies.
    """
    if bundle.task != "morphology":
        raise BundleError(f"bundle {bundle.name!r} is for the task {bundle.task!r}, not 'morphology'")
    bundle.require_pictures()
    bundle.require(SDSS_STRETCH.bands, GEOMETRY)
    labels = labelled.labels
    require_enough(labels, "evaluation")
    members = int(bundle.parameters.get("members", 0))
    fold = folds(labels.split_names(), members or 5)
    unseen_by = learnt_folds(bundle, labelled)
    learnt = unseen_by >= 0
    if learnt.any() and not members:
        raise BundleError(
            f"bundle {bundle.name!r} has learnt {int(learnt.sum())} of these {len(labels)} galaxies and is "
            "one network: score it on others"
        )
    predicted = np.empty((len(labels), len(ANSWERS)), np.float32)
    if not learnt.all():
        predicted[~learnt] = _predict(bundle, labelled.pictures, np.flatnonzero(~learnt))
    for number in np.unique(unseen_by[learnt]):
        chosen = np.flatnonzero(unseen_by == number)
        predicted[chosen] = _predict(bundle.member(int(number)), labelled.pictures, chosen)
    observed = (predicted, labels.joint, labels.votes())
    strength = _strength(bundle, *observed, unseen_by)
    scores = compare(labelled.pictures, labels.joint, fold, {"network": predicted})
    return Evaluation(
        scores | interval_scores(*observed, strength),
        question_scores(predicted, labels.joint),
        question_intervals(*observed, strength),
        int(learnt.sum()),
        predicted,
        None if labels.flags is None else clean_agreement(predicted, labels.flags.flagged),
        "; ".join(filter(None, (unlike_names(bundle, labels), unlike_votes(bundle, labels)))) or None,
    )


def _strength(
    bundle: Bundle,
    predicted: NDArray[np.float32],
    joint: NDArray[np.float32],
    votes: NDArray[np.float32],
    unseen_by: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the concentration of each answer, by nothing that its own votes went into.

    The bundle's own numbers were found on the galaxies that it learnt: for these they are found again,
    fold by fold, on the other folds.
    """
    expected = np.nan_to_num(to_conditional(predicted.astype(np.float64)))
    strength = concentrations(expected, bundle.calibration["vote_spread"])
    learnt = unseen_by >= 0
    if learnt.sum() >= LEAST_LABELS and len(np.unique(unseen_by[learnt])) > 1:
        strength[learnt] = cross_fitted(predicted[learnt], joint[learnt], votes[learnt], unseen_by[learnt])
    return strength


def _predict(bundle: Bundle, pictures: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    blocks = (
        np.ascontiguousarray(pictures[chosen[first : first + _BLOCK]].transpose(0, 2, 3, 1))
        for first in range(0, len(chosen), _BLOCK)
    )
    return np.concatenate([outputs[OUTPUT] for outputs in Engine(bundle).run_pictures(blocks)])
