"""Trains the members of a morphology committee: from one start, each learns all folds but one.

The members of a CPU's committee are trained in processes of their own, which map the pictures from one file;
those of a GPU's one after the other; those of several GPUs too, each by all processes of ``torchrun``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.models.heads import DistanceHead
from gzscale.models.network import build_network
from gzscale.training.fit import Examples, fit
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds, positions, require_enough
from gzscale.training.loop import Progress, named
from gzscale.training.processes import in_a_pool, members_at_a_time, own_device
from gzscale.training.recipe import Recipe
from gzscale.training.shown import reserve
from gzscale.training.start import starting_weights

__all__ = ["examples_of", "features_of", "learn_members"]

#: Share of the galaxies of a member that are held back to go by where patience ends its fit.
WATCHED_SHARE = 0.1


def learn_members(
    labelled: LabelledSet, recipe: Recipe, name: str, work: Path, progress: Progress | None = None
) -> list[Network]:
    """Return the members of the committee, trained but not scored; see `train_morphology`.

    It is all that the processes of ``torchrun`` do together; the first of them goes on by itself.
    """
    require_enough(labelled.labels, name)
    recipe.check()
    work.mkdir(parents=True, exist_ok=True)
    names = labelled.labels.split_names()
    fold = folds(names, recipe.members)
    watched = positions(names) * recipe.members % 1 < WATCHED_SHARE
    sides = _Sides(fold, watched if recipe.fit.patience else np.zeros(len(fold), bool))
    alone = [number for number in range(recipe.members) if not (watched & (fold != number)).any()]
    if recipe.fit.patience and alone:
        raise ConfigError(
            f"fit.patience={recipe.fit.patience}: of {len(labelled)} galaxies none is left for member "
            f"{alone[0]} to go by, beside its own fold; set fit.patience=0, or label more"
        )
    start = starting_weights(recipe, work, progress)
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


def _learn_folds(
    start: dict[str, torch.Tensor],
    examples: Examples,
    sides: _Sides,
    recipe: Recipe,
    work: Path,
    progress: Progress | None,
) -> list[Network]:
    """Train the members: one after the other on GPUs, one a core on a CPU, where threads gain little."""
    if members_at_a_time(recipe.members) == 1:
        return [
            _learn_fold(number, start, examples, sides, recipe, work, progress)
            for number in range(recipe.members)
        ]
    # The processes map one file; pictures that were sent would be in memory once for each.
    path = work / "pictures.npy"
    _save_pictures(path, examples)
    rest = replace(examples, pictures=examples.pictures[:0])
    return in_a_pool(_learn_mapped, recipe.members, path, start, rest, sides, recipe, work, progress)


def _save_pictures(path: Path, examples: Examples) -> None:
    """Write the pictures a block at a time.

    Raises
    ------
    StorageError
        If the disk has no room for them.
    """
    shape = (len(examples), *examples.pictures.shape[1:])
    room = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    reserve(path, f"{len(examples)} pictures")
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
            progress=named(f"member {number + 1} of {recipe.members}", progress),
        )
    for head in (head for head in member.heads.values() if isinstance(head, DistanceHead)):
        head.learn(features_of(member, known))
    return member


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
