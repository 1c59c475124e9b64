"""Trains the members of a lens finder's committee, each on all images but those of its fold.

The images, each with a seeing, noise and dust of its own, are dealt out to the folds; where they are few,
objects are, by a hash of their identifiers. A member learns nothing of its fold: what it says of new examples
there, as many of samples as of the sky, is what the committee is calibrated on. So each member alone is
calibrated there; the committee is a little better than one, and how honest it is only images tell that none
has learnt. A single network has no fold; a ninth of the objects is held back from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.backbone import Network
from gzscale.models.inputs import FluxInputs
from gzscale.models.network import build_network
from gzscale.sky.stamps import Stamps
from gzscale.tasks.lenses import LENS, RADIUS, middle_seeing
from gzscale.training.ending import half_weights
from gzscale.training.labels import folds
from gzscale.training.lens_calibration import Unseen
from gzscale.training.lens_examples import LensExamples, labelled_examples, make_examples, side_of
from gzscale.training.lens_fit import LensLesson, predict_examples
from gzscale.training.lens_recipe import LensRecipe
from gzscale.training.loop import Progress, learn, named
from gzscale.training.processes import in_a_pool, members_at_a_time

__all__ = ["Lessons", "Member", "learn_members", "sides"]

#: Of so many objects one is held back from a single network.
_HELD_BACK = 9
#: Fewer images a fold than this, and objects are dealt out instead.
_IMAGES_A_FOLD = 2
#: Lenses that are drawn into what is held back, at least.
_FEWEST = 64
#: Of so many lenses that are learnt one is drawn to calibrate on, of a sample and of the sky.
_CALIBRATED = 2


@dataclass(frozen=True)
class Lessons:
    """What is learnt, and how it is shown.

    Attributes
    ----------
    stamps
        Cutouts.
    lens
        Which of them are lenses, shape (n,); None where lenses are put into them.
    inputs
        How flux is shown to the network.
    parameters
        Keyword arguments of `gzscale.models.equivariant.EquivariantNetwork`.
    """

    stamps: Stamps
    lens: NDArray[np.bool_] | None
    inputs: FluxInputs
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One network, and what it says of examples that it has not learnt.

    Attributes
    ----------
    network
        On the CPU, in evaluation mode.
    unseen
        What it says of them.
    """

    network: Network
    unseen: Unseen


def learn_members(
    lessons: Lessons, recipe: LensRecipe, work: Path, progress: Progress | None
) -> list[Member]:
    """Train all members, one a core.

    Parameters
    ----------
    lessons
        What is learnt.
    recipe
        How.
    work
        Folder for the checkpoints.
    progress
        Called after each epoch, perhaps in another process.

    Raises
    ------
    CatalogError
        If a member would have too little to learn.
    """
    shares = sides(lessons.stamps, recipe.members)
    for number, (learnt, back) in enumerate(shares):
        _require_both(lessons, learnt, f"for network {number + 1} of {recipe.members} to learn")
        if lessons.lens is not None:
            _require_both(lessons, back, "held back")
    if lessons.lens is None and not any(lessons.stamps.deflector[back].any() for _, back in shares):
        raise CatalogError("no bright red galaxy is held back to calibrate chances on: give more cutouts")
    if members_at_a_time(recipe.members) == 1:
        return [_learn_member(number, lessons, recipe, work, progress) for number in range(recipe.members)]
    # The processes read one file, not what waits for them in a pipe, in memory once for each.
    path = work / "images.npy"
    np.save(path, lessons.stamps.images)
    rest = replace(lessons, stamps=replace(lessons.stamps, images=lessons.stamps.images[:0]))
    return in_a_pool(_learn_mapped, recipe.members, path, rest, recipe, work, progress)


def sides(stamps: Stamps, members: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return for each member which cutouts it learns, and which are held back from it.

    Parameters
    ----------
    stamps
        Cutouts.
    members
        How many.
    """
    if members == 1:
        back = stamps.object_id % _HELD_BACK == 0
        return [(~back, back)]
    fold = _folds(stamps, members)
    return [(fold != number, fold == number) for number in range(members)]


def _folds(stamps: Stamps, members: int) -> NDArray[np.int64]:
    # An image that is in two stores is kept from the same member in both.
    images, place = np.unique(stamps.source, return_inverse=True)
    if len(images) < _IMAGES_A_FOLD * members:
        return folds([str(identifier) for identifier in stamps.object_id], members)
    dealt: NDArray[np.int64] = place % members
    return dealt


def _require_both(lessons: Lessons, chosen: NDArray[np.bool_], what: str) -> None:
    """Refuse a side without deflectors, or of labelled images, without one of the two kinds."""
    if lessons.lens is None:
        if not lessons.stamps.deflector[chosen].any():
            raise CatalogError(
                f"none of {int(chosen.sum())} cutouts {what} shows a bright red galaxy that could be a lens: "
                "give more, or set members=1"
            )
        return
    lenses = int(lessons.lens[chosen].sum())
    if not 0 < lenses < int(chosen.sum()):
        raise CatalogError(
            f"{int(chosen.sum())} images {what}, {lenses} of them lenses: both are needed; "
            "give more, or set members=1"
        )


def _learn_mapped(number: int, path: Path, rest: Lessons, *common: Any) -> Member:
    stamps = replace(rest.stamps, images=np.load(path, mmap_mode="r"))
    return _learn_member(number, replace(rest, stamps=stamps), *common)


def _learn_member(
    number: int,
    lessons: Lessons,
    recipe: LensRecipe,
    work: Path,
    progress: Progress | None,
) -> Member:
    several = recipe.members > 1
    pace = replace(recipe.pace, seed=recipe.pace.seed + number)
    examples, held = _examples(number, lessons, recipe, pace.seed)
    stage = f"member {number + 1} of {recipe.members}" if several else "lenses"
    checkpoint = work / (f"lenses-{number + 1}.safetensors" if several else "lenses.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pace.seed)
        network = build_network("equivariant", lessons.parameters)
        side = side_of(lessons.stamps, recipe.extent)
        lesson = LensLesson(examples, lessons.inputs, (side, recipe.size), recipe.views, held)
        network = learn(network, lesson, pace, checkpoint=checkpoint, progress=named(stage, progress))
    # What is calibrated is what the bundle holds.
    network.load_state_dict(half_weights(network.state_dict()))
    if lessons.lens is None:
        # Their light takes as much memory as what is drawn now.
        del examples, held, lesson
        return Member(network, _say_unseen(network, number, lessons, recipe))
    assert held is not None
    return Member(network, _said(network, held, lessons, recipe))


def _say_unseen(network: Network, number: int, lessons: Lessons, recipe: LensRecipe) -> Unseen:
    """Show a member new examples of its fold: of samples, and as many of the sky."""
    back = sides(lessons.stamps, recipe.members)[number][1]
    rng = np.random.default_rng([recipe.pace.seed + number, 1])
    mix = replace(recipe.mix, lenses=max(_FEWEST, recipe.mix.lenses // _CALIBRATED))
    parts = [Unseen.nothing()]
    for simulated in (True, False):
        chosen = back & (lessons.stamps.simulated == simulated)
        if not lessons.stamps.deflector[chosen].any():
            continue
        try:
            examples = make_examples(lessons.stamps.take(chosen), recipe.bands, mix, rng, recipe.survey)
        except CatalogError:
            # Too faint for lenses to be seen in them: other members' folds calibrate.
            continue
        parts.append(_said(network, examples, lessons, recipe))
    return Unseen.joined(parts)


def _said(network: Network, examples: LensExamples, lessons: Lessons, recipe: LensRecipe) -> Unseen:
    """Return what a network says of examples, beside what they are."""
    said = predict_examples(network, examples, lessons.inputs)
    seeing = middle_seeing(recipe.bands, examples.stamps.told_seeing[examples.base])
    return Unseen(
        chance=said[LENS][:, 0],
        lens=examples.lens,
        seeing=np.full(len(examples), np.nan) if seeing is None else seeing,
        simulated=examples.stamps.simulated[examples.base],
        share=said[RADIUS],
        radius=examples.radius,
        weight=examples.radius_weight,
    )


def _examples(
    number: int, lessons: Lessons, recipe: LensRecipe, seed: int
) -> tuple[LensExamples, LensExamples | None]:
    """Return what a member learns, and what its learning curve shows; a fold may be without a deflector."""
    stamps, lens = lessons.stamps, lessons.lens
    learnt, back = sides(stamps, recipe.members)[number]
    if lens is not None:
        first, second = (
            labelled_examples(stamps.take(chosen), lens[chosen], recipe.bands) for chosen in (learnt, back)
        )
        return first, second
    rng = np.random.default_rng(seed)
    few = replace(recipe.mix, lenses=max(_FEWEST, recipe.mix.lenses // _HELD_BACK))
    examples = make_examples(stamps.take(learnt), recipe.bands, recipe.mix, rng, recipe.survey)
    if not stamps.deflector[back].any():
        return examples, None
    try:
        return examples, make_examples(stamps.take(back), recipe.bands, few, rng, recipe.survey)
    except CatalogError:
        if recipe.members == 1:
            raise
        # Too faint for lenses to be seen in them: no curve.
        return examples, None
