"""What the members of a morphology committee start from: weights that have learnt sketched galaxies.

They need no label, so that one bundle of them can serve many trainings.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle, load_bundle
from gzscale.models.equivariant import EquivariantNetwork
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS
from gzscale.tasks.morphology import DISTANCE, OUTPUT
from gzscale.training.ending import half_weights
from gzscale.training.fit import Examples, fit
from gzscale.training.loop import Epoch, Progress, named
from gzscale.training.processes import process_rank
from gzscale.training.recipe import SKETCHES, Recipe
from gzscale.training.shown import GEOMETRY, reserve
from gzscale.training.sketch import DRAWING, draw_sketches

__all__ = [
    "START",
    "complete",
    "learn_from",
    "other_settings",
    "require_sketches",
    "sketches",
    "start_of",
    "starting_weights",
    "story_of",
    "train_sketches",
]

#: What the bundle is for: not a task of a night, but of a training.
START = "sketches"
#: Threads of one process that need the same sketches draw them once.
_DRAWING_ONE = threading.Lock()
#: Parameters of a network that may differ from those of the one whose weights it starts from.
_FREE = ("dropout",)


def starting_weights(recipe: Recipe, work: Path, progress: Progress | None) -> dict[str, torch.Tensor]:
    """Return the weights that every member starts from.

    Parameters
    ----------
    recipe
        Its ``start`` is loaded, else weights are drawn; then its sketches are learnt, if there are any.
    work
        Folder for the sketches and the checkpoint.
    progress
        Called after each epoch.

    Raises
    ------
    BundleError
        If the start cannot be read.
    ConfigError
        If it is of another network.
    """
    start = start_of(recipe)
    given = None if start is None else start.tensors
    return learn_from(given, recipe, work, work / "sketches.safetensors", named(START, progress))


def learn_from(
    given: Mapping[str, torch.Tensor] | None,
    recipe: Recipe,
    work: Path,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Return weights that have learnt the recipe's sketches, if it has any.

    Parameters
    ----------
    given
        What they were before; None for weights drawn at random.
    recipe
        Which sketches, and how they are learnt.
    work
        Folder for the sketches.
    checkpoint, progress
        See `gzscale.training.fit.fit`.
    """
    settings = recipe.sketch_fit
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network("equivariant", recipe.network)
        if given is not None:
            network.load_state_dict({name: tensor.float() for name, tensor in given.items()})
        if recipe.sketches:
            drawn = sketches(recipe.sketches, settings.seed, network, work, recipe.faint)
            network = fit(network, drawn, settings, checkpoint=checkpoint, progress=progress)
        return network.state_dict()


def train_sketches(recipe: Recipe, name: str, work: Path, progress: Progress | None = None) -> Bundle:
    """Train a bundle to start from: one network that has learnt sketches, and no labelled galaxy.

    Parameters
    ----------
    recipe
        How; with sketches.
    name
        Name of the model.
    work
        Folder for the sketches and the checkpoint.
    progress
        Called after each epoch.

    Raises
    ------
    ConfigError
        If the recipe cannot be trained, or has no sketches.
    """
    require_sketches(recipe)
    work.mkdir(parents=True, exist_ok=True)
    weights = starting_weights(recipe, work, progress)
    return Bundle(
        task=START,
        name=name,
        network="equivariant",
        parameters=dict(recipe.network),
        geometry=GEOMETRY,
        inputs=SDSS_STRETCH,
        symmetries=1,
        outputs={OUTPUT: list(ANSWERS), DISTANCE: ["distance"]},
        training={
            "data": "sketched galaxies, whose votes are given by rule; no real galaxy, no volunteer's vote",
            "recipe": {
                "start": story_of(recipe),
                "sketches": recipe.sketches,
                "faint": recipe.faint,
                "sketch_fit": asdict(recipe.sketch_fit),
            },
        },
        scores={},
        terms=dict(recipe.terms),
        tensors=half_weights(weights),
    )


def require_sketches(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be trained, or has no sketches; see `train_sketches`."""
    recipe.check()
    if not recipe.sketches:
        raise ConfigError(f"sketches=0: there is nothing to learn; set sketches={SKETCHES}, say")
    start_of(recipe)


def start_of(recipe: Recipe) -> Bundle | None:
    """Return the bundle that the members start from, None where weights are drawn.

    Raises
    ------
    BundleError
        If it cannot be read.
    ConfigError
        If it has learnt galaxies, or is of another network.
    """
    if not recipe.start:
        return None
    start = load_bundle(recipe.start)
    if start.task != START or start.network != "equivariant":
        # One that has learnt galaxies may have learnt some of these: scores out of fold would be none.
        raise ConfigError(
            f"start={recipe.start}: bundle {start.name!r} is for the task {start.task!r}, not {START!r}; "
            "give one that `gzscale train sketches` made"
        )
    other = other_settings(start.parameters, recipe.network)
    if other:
        raise ConfigError(
            f"start={recipe.start}: bundle {start.name!r} has another network than the recipe, which sets "
            f"{other}: let this one learn sketches, by leaving start out"
        )
    return start


def story_of(recipe: Recipe) -> dict[str, Any] | None:
    """Return what a header says of the start: its name, the hash of its file, and what it had learnt."""
    start = start_of(recipe)
    if start is None:
        return None
    return {"name": start.name, "sha256": start.sha256, "recipe": start.training.get("recipe")}


def other_settings(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that keep the second of two equivariant networks from the first's weights."""
    first, second = (complete(parameters) for parameters in (one, two))
    return {key: value for key, value in second.items() if key not in _FREE and value != first[key]}


def complete(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of an equivariant network, its defaults among them, as a header has them."""
    bound = inspect.signature(EquivariantNetwork).bind(**parameters)
    bound.apply_defaults()
    # Of lists and tuples, lists.
    plain: dict[str, Any] = json.loads(json.dumps(bound.arguments))
    return plain


def sketches(count: int, seed: int, network: Network, work: Path, faint: float = 0.0) -> Examples:
    """Draw sketched galaxies, as large as what a network looks at of a picture, the same for the same seed.

    They lie on disk, some 12 kB each, and are there already where a training goes on.

    Raises
    ------
    StorageError
        If the disk has no room for them.
    """
    size = network.crop or GEOMETRY.size
    # Every process draws its own: they need not share a folder.
    folder = work / f"sketches-{DRAWING}-{count}-{faint:g}-{seed}-{size}-{process_rank()}"
    pictures, votes = folder / "pictures.npy", folder / "joint.npy"
    with _DRAWING_ONE:
        if not votes.exists():
            folder.mkdir(exist_ok=True)
            _draw(pictures, votes, count, seed, size, faint)
    asked = np.ones((count, 11), np.float32)
    return Examples(np.load(pictures, mmap_mode="r"), np.load(votes), asked, whole=True)


def _draw(pictures: Path, votes: Path, count: int, seed: int, size: int, faint: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    room = np.lib.format.open_memmap(pictures, "w+", np.uint8, (count, 3, size, size))
    reserve(pictures, f"{count} sketches")
    joint = np.empty((count, len(ANSWERS)), np.float32)
    for first in range(0, count, 64):
        block = slice(first, min(first + 64, count))
        drawn, said = draw_sketches(block.stop - block.start, generator, size, size, faint)
        room[block] = (drawn * 255).round_().to(torch.uint8).numpy()
        joint[block] = said.numpy()
    room.flush()
    part = votes.with_name("joint.part.npy")
    np.save(part, joint)
    part.replace(votes)
