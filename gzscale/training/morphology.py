"""The recipe of a morphology bundle, from labels to a committee that knows how sure it is.

1. A network has learnt sketched galaxies, whose votes are given by rule (`gzscale.training.start`).
2. The labelled galaxies are parted into folds by a hash of their names, so that a galaxy never changes
   sides. For each fold one member of the committee starts from step 1 and learns all other folds. Where
   patience ends a fit, a part of what would be learnt is held back to go by, never the fold itself.
3. Every galaxy is predicted by the one member that has not seen it: from these predictions come the
   scores, the spread of the votes (`gzscale.training.spread`), and what counts as unlike the
   training set.
4. The members together are the bundle; on galaxies that none has seen the committee is better than
   the scores say.

Killed and started again with the same working folder, it goes on where it was. Started by ``torchrun``, its
processes train one member after the other together.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.votes import ANSWERS
from gzscale.tasks.morphology import DISTANCE, OUTPUT
from gzscale.training.ending import committee_of, half_weights
from gzscale.training.fit import Examples, predict
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds
from gzscale.training.learnt import remember
from gzscale.training.loop import Progress
from gzscale.training.members import examples_of, features_of, learn_members
from gzscale.training.processes import own_device
from gzscale.training.recipe import Recipe
from gzscale.training.scores import compare
from gzscale.training.shown import GEOMETRY
from gzscale.training.spread import cross_fitted, fit_spread, interval_scores
from gzscale.training.start import story_of
from gzscale.training.unlikeness import usual_distance

__all__ = ["train_morphology"]


def train_morphology(
    labelled: LabelledSet, recipe: Recipe, name: str, work: Path, progress: Progress | None = None
) -> Bundle:
    """Train a morphology bundle.

    Parameters
    ----------
    labelled
        Pictures and votes.
    recipe
        How.
    name
        Name of the model.
    work
        Folder for checkpoints.
    progress
        Called after each epoch.

    Returns
    -------
    Bundle
        A committee with float16 weights, its calibration, and its scores out of fold.

    Raises
    ------
    CatalogError
        If there are fewer than 50 labelled galaxies.
    ConfigError
        If the recipe cannot be trained.
    """
    members = learn_members(labelled, recipe, name, work, progress)
    examples = examples_of(labelled)
    fold = folds(labelled.labels.split_names(), recipe.members)
    unseen, distance = _out_of_fold(members, examples, fold)
    limit = usual_distance(distance, fold)
    spread = fit_spread(unseen, examples.joint, examples.votes)
    scores = compare(labelled.pictures, examples.joint, fold, {"network": unseen})
    strength = cross_fitted(unseen, examples.joint, examples.votes, fold)
    scores |= interval_scores(unseen, examples.joint, examples.votes, strength)
    calibration = {"vote_spread": spread, "usual_distance": limit}
    return _bundle(members, labelled, fold, recipe, name, calibration, scores)


def _out_of_fold(
    members: list[Network], examples: Examples, fold: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return joint fractions by the member that has not seen the galaxy, and every member's distances."""
    unseen = np.empty((len(examples), len(ANSWERS)), np.float32)
    distance = np.zeros((len(members), len(examples)), np.float32)
    for number, member in enumerate(members):
        chosen, device = fold == number, own_device()
        unseen[chosen] = predict(member.to(device), examples.take(chosen), device)
        features = features_of(member.to("cpu"), examples)
        with torch.inference_mode():
            distance[number] = member.heads[DISTANCE](features).numpy()[:, 0]
    return unseen, distance


def _bundle(
    members: list[Network],
    labelled: LabelledSet,
    fold: NDArray[np.int64],
    recipe: Recipe,
    name: str,
    calibration: dict[str, Any],
    scores: dict[str, float],
) -> Bundle:
    parameters = {"kind": "equivariant", "members": recipe.members, "parameters": dict(recipe.network)}
    committee = committee_of("equivariant", members, recipe.network)
    labels = labelled.labels
    seen, seen_fold = remember(labelled, fold)
    return Bundle(
        task="morphology",
        name=name,
        network="committee",
        parameters=parameters,
        geometry=GEOMETRY,
        inputs=SDSS_STRETCH,
        symmetries=1,
        outputs={OUTPUT: list(ANSWERS), DISTANCE: ["distance"]},
        training={
            "images": labelled.origin,
            "votes": labels.kind or "not stated",
            "named_by": labels.named_by,
            "labels_sha256": labels.digest(),
            "galaxies": len(labelled),
            "refused": dict(labels.refused),
            "split": f"{recipe.members} folds: the first 64 bits of SHA-256 of the name, in equal parts; "
            "images of one object go by the least of their names",
            "recipe": {
                "start": story_of(recipe),
                "sketches": recipe.sketches,
                "faint": recipe.faint,
                "sketch_fit": asdict(recipe.sketch_fit),
                "fit": asdict(recipe.fit),
            },
            **({"search": dict(recipe.search)} if recipe.search else {}),
        },
        scores=scores,
        terms=dict(recipe.terms),
        tensors=half_weights(committee.state_dict()),
        calibration=calibration,
        seen=seen,
        seen_fold=seen_fold,
    )
