"""Teaches a photometric network what its measurements alone tell, before its convolutions learn.

Measurements of many views are taken once, and the layers that read them are fitted to those numbers, a
thousand times faster than with the image. The convolutions then learn what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gzscale.models.backbone import Network
from gzscale.models.photometric import PhotometricNetwork
from gzscale.training.loop import Epoch, Lesson, Pace, learn

__all__ = ["WarmStart", "warm_start"]

#: Examples whose views are drawn together.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How the measurements are learnt.

    Attributes
    ----------
    views
        Views of each example.
    pace
        How fast and how long.
    """

    views: int = 3
    pace: Pace = field(
        default_factory=lambda: Pace(epochs=12, batch=512, rate=0.01, head_rate=2e-3, decay=0.3, memory=0.995)
    )


class _Measured(Network):
    """The part of a photometric network that reads measurements; the body says nothing."""

    def __init__(self, whole: PhotometricNetwork) -> None:
        super().__init__(0.0, 1.0, whole.dropout.p)
        self.silent, self.heads = whole.body.length, whole.heads
        self.first, self.second = whole.first, whole.second
        self.middle, self.breadth = whole.middle, whole.breadth

    def features(self, prepared: Tensor) -> Tensor:
        nothing = prepared.new_zeros((len(prepared), self.silent))
        return torch.cat([nothing, PhotometricNetwork.measured_features(self, prepared)], dim=1)  # type: ignore[arg-type]

    def fuse(self) -> None:
        """Nothing is to be folded."""


class _MeasuredLesson:
    """A lesson whose views are measured already. See `gzscale.training.loop.Lesson`."""

    def __init__(self, lesson: Lesson, measured: NDArray[np.float32]) -> None:
        self.lesson, self.measured = lesson, measured
        self.extra = nn.ParameterDict()

    def __len__(self) -> int:
        return len(self.measured)

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        return torch.from_numpy(self.measured[chosen]).to(device)

    def loss(self, outputs: dict[str, Tensor], chosen: NDArray[np.int64]) -> Tensor:
        return self.lesson.loss(outputs, chosen % len(self.lesson))

    def score(self, network: Network, device: torch.device) -> float:
        return float("nan")

    def digest(self) -> str:
        return self.lesson.digest()


def warm_start(
    network: PhotometricNetwork,
    lesson: Lesson,
    settings: WarmStart,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> None:
    """Fit what reads the measurements of a network, in place.

    Parameters
    ----------
    network
        On the CPU.
    lesson
        What it will learn: its views are drawn, measured and learnt.
    settings
        How.
    seed
        Of the draws.
    checkpoint, progress
        See `gzscale.training.loop.learn`.
    """
    generator, device = torch.Generator().manual_seed(seed), torch.device("cpu")
    parts = []
    for _ in range(settings.views):
        for start in range(0, len(lesson), _BLOCK):
            chosen = np.arange(start, min(start + _BLOCK, len(lesson)))
            parts.append(network.measure(lesson.views(chosen, generator, device)))
    measured = torch.cat(parts)
    network.learn_scale(measured)
    for head in network.heads.values():
        # The body, whose features are at random still, says nothing at first.
        first = next(module for module in head.modules() if isinstance(module, nn.Linear))
        with torch.no_grad():
            first.weight[:, : network.body.length] = 0
    pace = replace(settings.pace, seed=seed)
    quick = _MeasuredLesson(lesson, measured.numpy())
    learnt = learn(_Measured(network), quick, pace, checkpoint=checkpoint, progress=progress)
    network.load_state_dict(learnt.state_dict(), strict=False)
