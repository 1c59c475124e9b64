"""Fits a network to pictures and votes; `gzscale.training.loop` says how a fit goes.

Muon needs a third of the epochs that AdamW needs here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.training.augment import Augmentation, change_light, turn
from gzscale.training.loop import Epoch, Pace, autocast, learn
from gzscale.training.losses import LOSSES

__all__ = ["OUTPUT", "Examples", "Settings", "fit", "predict", "rmse"]

#: Name of the head that is fitted.
OUTPUT = "vote_fractions"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to fit.

    Attributes
    ----------
    epochs
        Times that each picture is drawn.
    batch
        Pictures of a step.
    rate, head_rate
        Largest learning rate of the filters (Muon) and of all else (AdamW).
    decay
        Weight decay of the filters (decoupled).
    loss
        ``multinomial``, ``dirichlet`` or ``squared``.
    memory
        Share of the averaged weights that a step keeps.
    patience
        Epochs without a better score on the galaxies held back after which the fit ends; 0: never.
    extent
        Side in pixels of the part of a picture that a view without zoom shows.
    size
        Side of the views.
    augmentation
        How far views differ.
    seed
        Of the draws.
    """

    epochs: int = 150
    batch: int = 16
    rate: float = 0.03
    head_rate: float = 3e-3
    decay: float = 0.05
    loss: str = "multinomial"
    memory: float = 0.99
    patience: int = 0
    extent: int = 64
    size: int = 96
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 20131220

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"loss {self.loss!r}: one of {', '.join(sorted(LOSSES))}")


@dataclass(frozen=True)
class Examples:
    """Pictures and votes.

    Attributes
    ----------
    pictures
        uint8, shape (n, 3, side, side).
    joint
        Joint fractions in the Kaggle scheme, float32, shape (n, 37).
    votes
        How many were asked each question, float32, shape (n, 11).
    whole
        The pictures are views already: they are not turned.
    """

    pictures: NDArray[np.uint8]
    joint: NDArray[np.float32]
    votes: NDArray[np.float32]
    whole: bool = False

    def __len__(self) -> int:
        return len(self.joint)


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
        Galaxies that it does not learn, scored after each epoch.
    checkpoint
        File that the state is kept in; if it is there and of this fit, the fit goes on from it.
    progress
        Called after each epoch.

    Returns
    -------
    Network
        The averaged network, in evaluation mode, on the CPU.
    """
    pace = Pace(
        settings.epochs,
        settings.batch,
        settings.rate,
        settings.head_rate,
        settings.decay,
        settings.memory,
        settings.patience,
        settings.seed,
    )
    lesson = _Votes(examples, settings, held_back)
    return learn(network, lesson, pace, checkpoint=checkpoint, progress=progress)


def predict(
    network: Network, pictures: NDArray[np.uint8], settings: Settings, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Return the joint fractions that a network gives to pictures as they are, shape (n, 37)."""
    parts = [np.empty((0, 37), np.float32)]
    training = network.training
    network.eval()
    with torch.inference_mode(), autocast(device):
        for start in range(0, len(pictures), 64):
            block = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 64])).to(device)
            prepared = network.prepare(block.float().div_(255))
            parts.append(network.outputs(prepared)[OUTPUT].float().cpu().numpy())
    network.train(training)
    return np.concatenate(parts)


def rmse(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> float:
    """Return the root mean square error over all galaxies and answers, Kaggle's measure."""
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - joint))))


class _Votes:
    """Pictures and votes as something to be learnt. See `gzscale.training.loop.Lesson`."""

    def __init__(self, examples: Examples, settings: Settings, held_back: Examples | None) -> None:
        self.examples, self.settings, self.held_back = examples, settings, held_back
        # How sure of itself the likelihood may be, by question; only the Dirichlet loss uses it.
        self.extra = nn.ParameterDict({"logarithm": nn.Parameter(torch.full((11,), 2.0))})

    def __len__(self) -> int:
        return len(self.examples)

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        settings = self.settings
        pictures = torch.from_numpy(self.examples.pictures[chosen]).to(device).float().div_(255)
        if not self.examples.whole:
            pictures = turn(pictures, settings.extent, settings.size, settings.augmentation, generator)
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
        return rmse(predict(network, self.held_back.pictures, self.settings, device), self.held_back.joint)

    def digest(self) -> str:
        examples = self.examples
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(examples.joint).tobytes())
        digest.update(np.ascontiguousarray(examples.pictures[:: max(1, len(examples) // 64)]).tobytes())
        return digest.hexdigest()
