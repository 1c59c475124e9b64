"""Fits a network to pictures and votes; `gzscale.training.loop` says how a fit goes.

Muon needs a third of the epochs that AdamW needs here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.training.augment import Augmentation, change_light, turn
from gzscale.training.loop import Epoch, Pace, autocast, learn
from gzscale.training.losses import LOSSES

__all__ = ["OUTPUT", "Examples", "Settings", "fit", "predict", "rmse"]

#: Name of the head that is fitted.
OUTPUT = "vote_fractions"
#: Pictures that are read together.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Settings(Pace):
    """How to fit: the pace, and what is peculiar to votes.

    Attributes
    ----------
    loss
        ``multinomial``, ``dirichlet`` or ``squared``.
    augmentation
        How far views differ.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """

    loss: str = "multinomial"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        # Without arguments super() looks for the class that slots have replaced.
        Pace.__post_init__(self)
        if self.loss not in LOSSES:
            raise ConfigError(f"loss {self.loss!r}: one of {', '.join(sorted(LOSSES))}")
        for name, value in asdict(self.augmentation).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value}: 0 or more")


@dataclass(frozen=True)
class Examples:
    """Pictures and votes.

    Attributes
    ----------
    pictures
        uint8, shape (m, 3, side, side); may lie on disk, and is never copied as a whole.
    joint
        Joint fractions in the Kaggle scheme, float32, shape (n, 37).
    votes
        How many were asked each question, float32, shape (n, 11).
    whole
        The pictures show what is to be seen already: they are not turned.
    rows
        Which picture is that of each example, shape (n,); the first n in their order if absent.
    """

    pictures: NDArray[np.uint8]
    joint: NDArray[np.float32]
    votes: NDArray[np.float32]
    whole: bool = False
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.joint)

    def take(self, chosen: NDArray[np.bool_]) -> Examples:
        """Return some of the examples; the pictures are shared."""
        rows = np.flatnonzero(chosen) if self.rows is None else self.rows[chosen]
        return replace(self, joint=self.joint[chosen], votes=self.votes[chosen], rows=rows)

    def shown(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return a copy of the pictures of some examples, shape (k, 3, side, side)."""
        copied: NDArray[np.uint8] = self.pictures[chosen if self.rows is None else self.rows[chosen]]
        return copied

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pictures of all examples, some at a time, in their order."""
        for first in range(0, len(self), _BLOCK):
            yield self.shown(np.arange(first, min(first + _BLOCK, len(self))))


def fit(
    network: Network,
    examples: Examples,
    settings: Settings,
    *,
    held_back: Examples | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Network:
    """Fit a network.

    Parameters
    ----------
    network
        With a head named `OUTPUT`; changed in place.
    examples
        What it learns.
    settings
        How.
    held_back
        Galaxies that it does not learn, scored after each fifth epoch; after each, where ``patience`` goes by
        them.
    checkpoint
        File that the state is kept in; if it is there and of this fit, the fit goes on from it.
    progress
        Called after each epoch.

    Returns
    -------
    Network
        The averaged network, in evaluation mode, on the CPU.

    Raises
    ------
    ConfigError
        If ``patience`` is set and no galaxies are held back.
    """
    if settings.patience and held_back is None:
        raise ConfigError(f"patience={settings.patience}: no galaxies are held back to end the fit by")
    lesson = _Votes(network, examples, settings, held_back)
    return learn(network, lesson, settings, checkpoint=checkpoint, progress=progress)


def predict(network: Network, examples: Examples, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """Return the joint fractions that a network gives to pictures as they are, shape (n, 37).

    The network is on ``device`` already.
    """
    parts = [np.empty((0, 37), np.float32)]
    training = network.training
    network.eval()
    with torch.inference_mode(), autocast(device):
        for block in examples.blocks():
            prepared = network.prepare(torch.from_numpy(block).to(device).float().div_(255))
            parts.append(network.outputs(prepared)[OUTPUT].float().cpu().numpy())
    network.train(training)
    return np.concatenate(parts)


def rmse(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> float:
    """Return the root mean square error over all galaxies and answers, Kaggle's measure."""
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - joint))))


class _Votes:
    """Pictures and votes as something to be learnt. See `gzscale.training.loop.Lesson`."""

    def __init__(
        self, network: Network, examples: Examples, settings: Settings, held_back: Examples | None
    ) -> None:
        self.examples, self.settings, self.held_back = examples, settings, held_back
        # Views without zoom show what the network will look at when it predicts.
        self.extent = network.crop or examples.pictures.shape[-1]
        self.size = network.size or self.extent
        # How sure of itself the likelihood may be, by question; only the Dirichlet loss uses it.
        self.extra = nn.ParameterDict({"logarithm": nn.Parameter(torch.full((11,), 2.0))})

    def __len__(self) -> int:
        return len(self.examples)

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        settings = self.settings
        pictures = torch.from_numpy(self.examples.shown(chosen)).to(device).float().div_(255)
        if not self.examples.whole:
            pictures = turn(pictures, self.extent, self.size, settings.augmentation, generator)
        elif pictures.shape[-1] != self.size:
            # As `Network.prepare` does it, and the turning of the others.
            pictures = functional.interpolate(pictures, size=(self.size, self.size), mode="bilinear")
        return change_light(pictures, settings.augmentation, generator)

    def loss(self, outputs: dict[str, Tensor], chosen: NDArray[np.int64]) -> Tensor:
        predicted = outputs[OUTPUT]
        joint, votes = (
            torch.from_numpy(values[chosen]).to(predicted.device)
            for values in (self.examples.joint, self.examples.votes)
        )
        return LOSSES[self.settings.loss](predicted, joint, votes, self.extra["logarithm"])

    def score(self, network: Network, device: torch.device) -> float:
        if self.held_back is None:
            return math.nan
        return rmse(predict(network, self.held_back, device), self.held_back.joint)

    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        digest.update(f"{self.extent} {self.size}".encode())
        for examples in (self.examples, self.held_back):
            if examples is None:
                continue
            digest.update(f"{len(examples)} {examples.whole}".encode())
            for values in (examples.joint, examples.votes):
                digest.update(np.ascontiguousarray(values).tobytes())
            for block in examples.blocks():
                digest.update(block.tobytes())
        return digest.hexdigest()
