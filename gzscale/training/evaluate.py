"""Scores a morphology bundle on labelled galaxies, honestly where it has learnt some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import BundleError
from gzscale.models.bundle import Bundle
from gzscale.models.engine import Engine
from gzscale.models.votes import ANSWERS
from gzscale.tasks.morphology import OUTPUT
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds, name_hashes, require_enough
from gzscale.training.scores import compare, question_scores
from gzscale.training.spread import coverage

__all__ = ["Evaluation", "evaluate_morphology"]

#: Pictures that are predicted together.
_BLOCK = 128


@dataclass(frozen=True)
class Evaluation:
    """How well a bundle does.

    Attributes
    ----------
    scores
        See `gzscale.training.scores.compare`; ``inside_68`` and ``inside_95``, the share of observed votes in
        the intervals of these levels.
    questions
        RMSE of each question's conditional fractions, by its number.
    learnt
        Galaxies that the bundle had learnt; each was predicted by the one member that had not.
    predicted
        Joint fractions, shape (n, 37).
    """

    scores: dict[str, float]
    questions: dict[int, float]
    learnt: int
    predicted: NDArray[np.float32]


def evaluate_morphology(bundle: Bundle, labelled: LabelledSet) -> Evaluation:
    """Score a bundle.

    Parameters
    ----------
    bundle
        The bundle.
    labelled
        Pictures and votes. Those whose names the bundle has learnt are predicted by the member of its
        committee that had not; the mean and the random forest learn the other folds of these labels.

    Raises
    ------
    BundleError
        If the bundle is of another task, or has learnt some of the galaxies and has no members to part.
    CatalogError
        If there are fewer than 50 galaxies.
    """
    if bundle.task != "morphology":
        raise BundleError(f"bundle {bundle.name!r} is for the task {bundle.task!r}, not 'morphology'")
    labels = labelled.labels
    require_enough(labels, "evaluation")
    members = int(bundle.parameters.get("members", 0))
    fold = folds(labels.names, members or 5)
    learnt = _learnt(bundle, labels.names)
    if learnt.any() and not members:
        raise BundleError(
            f"bundle {bundle.name!r} has learnt {int(learnt.sum())} of these {len(labels)} galaxies and is "
            "one network: score it on others"
        )
    predicted = np.empty((len(labels), len(ANSWERS)), np.float32)
    if not learnt.all():
        predicted[~learnt] = _predict(bundle, labelled.pictures, np.flatnonzero(~learnt))
    for number in np.unique(fold[learnt]):
        chosen = np.flatnonzero(learnt & (fold == number))
        predicted[chosen] = _predict(bundle.member(int(number)), labelled.pictures, chosen)
    scores = compare(labelled.pictures, labels.joint, fold, {"network": predicted})
    for level in (0.68, 0.95):
        inside = coverage(predicted, labels.joint, labels.votes(), bundle.calibration["spread"], level)
        scores[f"inside_{round(100 * level)}"] = round(inside, 4)
    return Evaluation(scores, question_scores(predicted, labels.joint), int(learnt.sum()), predicted)


def _learnt(bundle: Bundle, names: tuple[str, ...]) -> NDArray[np.bool_]:
    if bundle.seen is None:
        return np.zeros(len(names), bool)
    found: NDArray[np.bool_] = np.isin(name_hashes(names).view(np.int64), bundle.seen.numpy())
    return found


def _predict(bundle: Bundle, pictures: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    blocks = (
        np.ascontiguousarray(pictures[chosen[first : first + _BLOCK]].transpose(0, 2, 3, 1))
        for first in range(0, len(chosen), _BLOCK)
    )
    return np.concatenate([outputs[OUTPUT] for outputs in Engine(bundle).run_pictures(blocks)])
