"""Trains the members of a morphology committee: sketches first, then all folds but one for each.

The members of a CPU's committee are trained in processes of their own, which map the pictures from one file;
those of a GPU's one after the other; those of several GPUs too, each by all processes of ``torchrun``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.models.backbone import Network
from gzscale.models.heads import DistanceHead
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS
from gzscale.training.fit import Examples, fit
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds, positions, require_enough
from gzscale.training.loop import Epoch
from gzscale.training.processes import count_processes, end_with_parent, own_device, process_rank
from gzscale.training.recipe import Recipe
from gzscale.training.shown import GEOMETRY
from gzscale.training.sketch import draw_sketches

__all__ = ["Progress", "examples_of", "features_of", "learn_members", "sketches"]

#: Share of the galaxies of a member that are held back to go by where patience ends its fit.
WATCHED_SHARE = 0.1
#: Told the name of the stage (``sketches``, ``member 1 of 5``) and the line of its learning curve; it is sent
#: to other processes.
Progress = Callable[[str, Epoch], None]


def learn_members(
    labelled: LabelledSet, recipe: Recipe, name: str, work: Path, progress: Progress | None = None
) -> list[Network]:
    """Return the members of the committee, trained but not scored; see `train_morphology`.

    It is all that the processes of ``torchrun`` do together; the first of them goes on by itself.
    """
    require_enough(labelled.labels, name)
    recipe.check()
    work.mkdir(parents=True, exist_ok=True)
    fold = folds(labelled.labels.names, recipe.members)
    watched = positions(labelled.labels.names) * recipe.members % 1 < WATCHED_SHARE
    sides = _Sides(fold, watched if recipe.fit.patience else np.zeros(len(fold), bool))
    start = _learn_sketches(recipe, work, progress)
    return _learn_folds(start, examples_of(labelled), sides, recipe, work, progress)


@dataclass(frozen=True)
class _Sides:
    """On which side of each member's split the galaxies stand, shape (n,)."""

    fold: NDArray[np.int64]
    watched: NDArray[np.bool_]

    def of(self, member: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which galaxies a member learns, and which its learning curve shows."""
        mine = self.fold != member
        if not self.watched.any():
            return mine, ~mine
        return mine & ~self.watched, mine & self.watched


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
            examples = sketches(recipe.sketches, settings.seed, network, work)
            checkpoint = work / "sketches.safetensors"
            network = fit(
                network, examples, settings, checkpoint=checkpoint, progress=_named("sketches", progress)
            )
    return network.state_dict()


def sketches(count: int, seed: int, network: Network, work: Path) -> Examples:
    """Draw sketched galaxies, as large as what a network looks at of a picture, the same for the same seed.

    They lie on disk, some 12 kB each, and are there already where a training goes on.
    """
    size = network.crop or GEOMETRY.size
    # Every process draws its own: they need not share a folder.
    folder = work / f"sketches-{count}-{seed}-{size}-{process_rank()}"
    pictures, votes = folder / "pictures.npy", folder / "joint.npy"
    if not votes.exists():
        folder.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        room = np.lib.format.open_memmap(pictures, "w+", np.uint8, (count, 3, size, size))
        joint = np.empty((count, len(ANSWERS)), np.float32)
        for first in range(0, count, 64):
            block = slice(first, min(first + 64, count))
            drawn, said = draw_sketches(block.stop - block.start, generator, size, size)
            room[block] = (drawn * 255).round_().to(torch.uint8).numpy()
            joint[block] = said.numpy()
        room.flush()
        part = folder / "joint.part.npy"
        np.save(part, joint)
        part.replace(votes)
    asked = np.ones((count, 11), np.float32)
    return Examples(np.load(pictures, mmap_mode="r"), np.load(votes), asked, whole=True)


def _learn_folds(
    start: dict[str, torch.Tensor],
    examples: Examples,
    sides: _Sides,
    recipe: Recipe,
    work: Path,
    progress: Progress | None,
) -> list[Network]:
    """Train the members: one after the other on GPUs, one a core on a CPU, where threads gain little."""
    alone = torch.cuda.is_available() or count_processes() > 1
    cores = 1 if alone else min(recipe.members, len(os.sched_getaffinity(0)))
    numbers = range(recipe.members)
    if cores == 1:
        return [_learn_fold(number, start, examples, sides, recipe, work, progress) for number in numbers]
    # The processes map one file; pictures that were sent would be in memory once for each.
    path = work / "pictures.npy"
    _save_pictures(path, examples)
    rest = replace(examples, pictures=examples.pictures[:0])
    common = (path, start, rest, sides, recipe, work, progress)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, context, _begin_process) as pool:
        return list(pool.map(_learn_mapped, numbers, *([item] * recipe.members for item in common)))


def _begin_process() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _save_pictures(path: Path, examples: Examples) -> None:
    """Write the pictures a block at a time."""
    shape = (len(examples), *examples.pictures.shape[1:])
    room = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    first = 0
    for block in examples.blocks():
        room[first : first + len(block)] = block
        first += len(block)
    room.flush()


def _learn_mapped(
    number: int, path: Path, start: dict[str, torch.Tensor], rest: Examples, *common: Any
) -> Network:
    examples = replace(rest, pictures=np.load(path, mmap_mode="r"))
    return _learn_fold(number, start, examples, *common)


def _learn_fold(
    number: int,
    start: dict[str, torch.Tensor],
    examples: Examples,
    sides: _Sides,
    recipe: Recipe,
    work: Path,
    progress: Progress | None,
) -> Network:
    """Return the member that has learnt all folds but one, and knows what usual galaxies look like."""
    settings = replace(recipe.fit, seed=recipe.fit.seed + number)
    known, shown = (examples.take(chosen) for chosen in sides.of(number))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network("equivariant", recipe.network)
        network.load_state_dict(start)
        member = fit(
            network,
            known,
            settings,
            held_back=shown,
            checkpoint=work / f"member-{number + 1}.safetensors",
            progress=_named(f"member {number + 1} of {recipe.members}", progress),
        )
    for head in (head for head in member.heads.values() if isinstance(head, DistanceHead)):
        head.learn(features_of(member, known))
    return member


def _named(stage: str, progress: Progress | None) -> Callable[[Epoch], None] | None:
    if progress is None:
        return None
    return functools.partial(progress, stage)


def features_of(network: Network, examples: Examples) -> torch.Tensor:
    """Return the features of all examples on the CPU, of a network on the CPU."""
    device = own_device()
    network.to(device)
    parts = []
    with torch.inference_mode():
        for block in examples.blocks():
            prepared = network.prepare(torch.from_numpy(block).to(device).float().div_(255))
            parts.append(network.features(prepared).cpu())
    network.to("cpu")
    return torch.cat(parts)
