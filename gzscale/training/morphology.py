"""The recipe of a morphology bundle, from labels to a committee that knows how sure it is.

1. A network learns sketched galaxies, whose votes are given by rule (`gzscale.training.sketch`).
2. The labelled galaxies are parted into folds by a hash of their names, so that a galaxy never changes
   sides. For each fold one member of the committee starts from step 1 and learns all other folds.
3. Every galaxy is predicted by the one member that has not seen it: from these predictions come the
   scores, the spread of the votes (`gzscale.training.spread`), and what counts as unlike the
   training set.
4. The members together are the bundle; on galaxies that none has seen the committee is better than
   the scores say.

Killed and started again with the same working folder, it goes on where it was.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle
from gzscale.models.heads import DistanceHead
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.network import Committee, build_network
from gzscale.models.votes import ANSWERS
from gzscale.tasks.morphology import DISTANCE, OUTPUT
from gzscale.training.fit import Examples, Settings, fit, predict
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds, require_enough
from gzscale.training.learnt import remember
from gzscale.training.loop import Epoch
from gzscale.training.scores import compare
from gzscale.training.shown import GEOMETRY
from gzscale.training.sketch import draw_sketches
from gzscale.training.spread import cross_fitted, fit_spread, interval_scores
from gzscale.training.unlikeness import usual_distance

__all__ = ["GEOMETRY", "Recipe", "examples_of", "sketches", "take_examples", "train_morphology"]

#: Each member: 64 x 64 pixels, 2.6 R90 to each side, resampled to 96 x 96.
NETWORK: Mapping[str, Any] = {
    "widths": [6, 12, 24, 48],
    "blocks": [1, 1, 1, 1],
    "heads": {OUTPUT: "tree", DISTANCE: "distance"},
    "mean": 0.05,
    "spread": 0.1,
    "dropout": 0.2,
    "crop": 64,
    "size": 96,
}
#: Terms of a bundle whose maker states none.
NO_TERMS: Mapping[str, Any] = {"licence": "not stated", "cite": []}


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained.

    Attributes
    ----------
    members
        Folds, and members of the committee.
    sketches
        Sketched galaxies that are learnt first; 0 for none.
    sketch_fit
        How they are learnt.
    fit
        How labelled galaxies are learnt.
    network
        Keyword arguments of each member, see `gzscale.models.equivariant.EquivariantNetwork`.
    terms
        Licence and citations of the weights, the images and the votes, kept in the bundle.
    search
        How the settings were found, kept in the bundle; empty where they were given.
    """

    members: int = 5
    sketches: int = 10240
    sketch_fit: Settings = field(default_factory=lambda: Settings(epochs=3, batch=32))
    fit: Settings = field(default_factory=lambda: Settings(epochs=80, batch=32))
    network: Mapping[str, Any] = field(default_factory=lambda: dict(NETWORK))
    terms: Mapping[str, Any] = field(default_factory=lambda: dict(NO_TERMS))
    search: Mapping[str, Any] = field(default_factory=dict)


#: Told the name of the stage (``sketches``, ``member 1 of 5``) and the line of its learning curve; it is sent
#: to other processes.
Progress = Callable[[str, Epoch], None]


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
    """
    require_enough(labelled.labels, name)
    work.mkdir(parents=True, exist_ok=True)
    examples = examples_of(labelled)
    fold = folds(labelled.labels.names, recipe.members)
    start = _learn_sketches(recipe, work, progress)
    members = _learn_folds(start, examples, fold, recipe, work, progress)
    unseen, distance = _out_of_fold(members, examples, fold, recipe.fit)
    limit = usual_distance(distance, fold)
    spread = fit_spread(unseen, examples.joint, examples.votes)
    scores = compare(labelled.pictures, examples.joint, fold, {"network": unseen})
    strength = cross_fitted(unseen, examples.joint, examples.votes, fold)
    scores |= interval_scores(unseen, examples.joint, examples.votes, strength)
    calibration = {"vote_spread": spread, "usual_distance": limit}
    return _bundle(members, labelled, fold, recipe, name, calibration, scores)


def examples_of(labelled: LabelledSet) -> Examples:
    """Return labelled galaxies as `fit` takes them."""
    return Examples(labelled.pictures, labelled.labels.joint, labelled.labels.votes())


def _learn_sketches(recipe: Recipe, work: Path, progress: Progress | None) -> dict[str, torch.Tensor]:
    """Return the weights that every member starts from."""
    settings = recipe.sketch_fit
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network("equivariant", recipe.network)
        if recipe.sketches:
            examples = sketches(recipe.sketches, settings)
            checkpoint = work / "sketches.safetensors"
            network = fit(
                network, examples, settings, checkpoint=checkpoint, progress=_named("sketches", progress)
            )
    return network.state_dict()


def sketches(count: int, settings: Settings) -> Examples:
    """Draw sketched galaxies, the same for the same seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    pictures = np.empty((count, 3, settings.size, settings.size), np.uint8)
    joint = np.empty((count, len(ANSWERS)), np.float32)
    for first in range(0, count, 64):
        block = slice(first, min(first + 64, count))
        drawn, votes = draw_sketches(block.stop - block.start, generator, settings.size, settings.extent)
        pictures[block] = (drawn * 255).round_().to(torch.uint8).numpy()
        joint[block] = votes.numpy()
    return Examples(pictures, joint, np.ones((count, 11), np.float32), whole=True)


def _learn_folds(
    start: dict[str, torch.Tensor],
    examples: Examples,
    fold: NDArray[np.int64],
    recipe: Recipe,
    work: Path,
    progress: Progress | None,
) -> list[Network]:
    """Train the members: one after the other on a GPU, one a core on a CPU, where threads gain little."""
    cores = 1 if torch.cuda.is_available() else min(recipe.members, len(os.sched_getaffinity(0)))
    common = (start, examples, fold, recipe, work, progress)
    if cores == 1:
        return [_learn_fold(number, *common) for number in range(recipe.members)]
    with ProcessPoolExecutor(
        cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        return list(
            pool.map(_learn_fold, range(recipe.members), *([item] * recipe.members for item in common))
        )


def _learn_fold(
    number: int,
    start: dict[str, torch.Tensor],
    examples: Examples,
    fold: NDArray[np.int64],
    recipe: Recipe,
    work: Path,
    progress: Progress | None,
) -> Network:
    """Return the member that has learnt all folds but one, and knows what usual galaxies look like."""
    settings = replace(recipe.fit, seed=recipe.fit.seed + number)
    known, unseen = (take_examples(examples, chosen) for chosen in (fold != number, fold == number))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network("equivariant", recipe.network)
        network.load_state_dict(start)
        member = fit(
            network,
            known,
            settings,
            held_back=unseen,
            checkpoint=work / f"member-{number + 1}.safetensors",
            progress=_named(f"member {number + 1} of {recipe.members}", progress),
        )
    for head in (head for head in member.heads.values() if isinstance(head, DistanceHead)):
        head.learn(_features(member, known.pictures))
    return member


def take_examples(examples: Examples, chosen: NDArray[np.bool_]) -> Examples:
    """Return some of the galaxies."""
    return Examples(examples.pictures[chosen], examples.joint[chosen], examples.votes[chosen])


def _named(stage: str, progress: Progress | None) -> Callable[[Epoch], None] | None:
    if progress is None:
        return None
    return functools.partial(progress, stage)


def _features(network: Network, pictures: NDArray[np.uint8]) -> torch.Tensor:
    parts = []
    with torch.inference_mode():
        for first in range(0, len(pictures), 64):
            block = torch.from_numpy(pictures[first : first + 64]).float().div_(255)
            parts.append(network.features(network.prepare(block)))
    return torch.cat(parts)


def _out_of_fold(
    members: list[Network], examples: Examples, fold: NDArray[np.int64], settings: Settings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return joint fractions by the member that has not seen the galaxy, and every member's distances."""
    unseen = np.empty((len(examples), len(ANSWERS)), np.float32)
    distance = np.zeros((len(members), len(examples)), np.float32)
    for number, member in enumerate(members):
        chosen = fold == number
        unseen[chosen] = predict(member, examples.pictures[chosen], settings)
        if DISTANCE in member.heads:
            with torch.inference_mode():
                features = _features(member, examples.pictures)
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
    committee = Committee("equivariant", recipe.members, recipe.network)
    for place, member in zip(committee.members, members, strict=True):
        place.load_state_dict(member.state_dict())
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
            "split": f"{recipe.members} folds: the first 64 bits of SHA-256 of the name, in equal parts",
            "recipe": {
                "sketches": recipe.sketches,
                "sketch_fit": asdict(recipe.sketch_fit),
                "fit": asdict(recipe.fit),
            },
            **({"search": dict(recipe.search)} if recipe.search else {}),
        },
        scores=scores,
        terms=dict(recipe.terms),
        tensors={key: _half(value) for key, value in committee.state_dict().items()},
        calibration=calibration,
        seen=seen,
        seen_fold=seen_fold,
    )


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Round weights to float16; the statistics of normalisation, few, stay float32."""
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
