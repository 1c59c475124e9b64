"""Fits a network to pictures and votes: the same weights for the same seed, wherever it was interrupted.

Filters are moved by Muon (Jordan et al. 2024: steps of equal size in all directions of a layer), which
needs a third of the epochs that AdamW needs here; norms, biases and heads by AdamW. The learning rate
rises for the first twentieth and falls as a cosine; the weights that are kept are an exponential moving
average over the last steps. Started by ``torchrun``, every process takes its share of each batch.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.training.augment import Augmentation, change_light, turn
from gzscale.training.checkpoint import load_checkpoint, save_checkpoint
from gzscale.training.losses import LOSSES

__all__ = ["OUTPUT", "Epoch", "Examples", "Settings", "fit", "predict", "rmse"]

#: Name of the head that is fitted.
OUTPUT = "vote_fractions"
#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 20.0
#: Share of the schedule in which the learning rate rises.
_WARM_UP = 0.05


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


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the learning curve; ``score`` is the RMSE on galaxies held back, NaN without any."""

    epoch: int
    rate: float
    loss: float
    score: float
    seconds: float


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = _Run(network.to(device), settings, device)
    mark = _fingerprint(network, examples, settings)
    about = (
        load_checkpoint(checkpoint, run.modules, run.optimizers, run.generator, mark) if checkpoint else None
    )
    first, best = (int(about["epoch"]) + 1, [*about["best"]]) if about else (0, [math.inf, 0])
    saved = start = time.monotonic()
    for epoch in range(first, settings.epochs):
        if settings.patience and epoch - best[1] > settings.patience:
            break
        loss, rate = run.epoch(examples, epoch)
        score = math.nan
        if held_back is not None and (settings.patience or epoch % 5 == 4 or epoch == settings.epochs - 1):
            score = rmse(predict(run.average, held_back.pictures, settings, device), held_back.joint)
            best = [score, epoch] if score < best[0] else best
        if progress is not None:
            progress(Epoch(epoch, rate, loss, score, time.monotonic() - start))
        due = time.monotonic() - saved > CHECKPOINT_EVERY or epoch == settings.epochs - 1
        if checkpoint is not None and due and run.rank == 0:
            run.save(checkpoint, {"fingerprint": mark, "epoch": epoch, "best": best})
            saved = time.monotonic()
    return run.average.to("cpu").eval()


def predict(
    network: Network, pictures: NDArray[np.uint8], settings: Settings, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Return the joint fractions that a network gives to pictures as they are, shape (n, 37)."""
    parts = [np.empty((0, 37), np.float32)]
    training = network.training
    network.eval()
    with torch.inference_mode(), _autocast(torch.device(device)):
        for start in range(0, len(pictures), 64):
            block = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 64])).to(device)
            prepared = network.prepare(block.float().div_(255))
            parts.append(network.outputs(prepared)[OUTPUT].float().cpu().numpy())
    network.train(training)
    return np.concatenate(parts)


def rmse(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> float:
    """Return the root mean square error over all galaxies and answers, Kaggle's measure."""
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - joint))))


class _Run:
    """A fit under way: the network, its average, its optimisers and the draws."""

    def __init__(self, network: Network, settings: Settings, device: torch.device) -> None:
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank, self.processes = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if spread else (0, 1)
        )
        self.settings, self.device = settings, device
        # How sure of itself the likelihood may be, by question; only the Dirichlet loss uses it.
        self.concentration = nn.ParameterDict(
            {"logarithm": nn.Parameter(torch.full((11,), 2.0, device=device))}
        )
        self.network = network.train()
        learner = _Learner(network)
        self.learner: nn.Module = DistributedDataParallel(learner) if spread else learner
        self.average = copy.deepcopy(network).eval()
        self.modules: dict[str, nn.Module] = {
            "network": network,
            "average": self.average,
            "concentration": self.concentration,
        }
        filters = [p for name, p in network.named_parameters() if p.dim() == 2 and "heads" not in name]
        known = {id(parameter) for parameter in filters}
        others = [p for p in network.parameters() if id(p) not in known] + list(
            self.concentration.parameters()
        )
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=settings.head_rate, weight_decay=0.0)
        ]
        if filters:
            self.optimizers.append(
                torch.optim.Muon(filters, lr=settings.rate, weight_decay=settings.decay, nesterov=True)
            )
        self.rates = [settings.head_rate, settings.rate]
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.steps = 0

    def restore(self, path: Path, fingerprint: str) -> dict[str, Any] | None:
        """Go on from a checkpoint of this fit, if there is one."""
        return load_checkpoint(path, self.modules, self.optimizers, self.generator, fingerprint)

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write a checkpoint."""
        save_checkpoint(path, self.modules, self.optimizers, self.generator, about)

    def epoch(self, examples: Examples, epoch: int) -> tuple[float, float]:
        """Draw every picture once; return the mean loss and the learning rate of the filters."""
        per_epoch = max(1, len(examples) // self.settings.batch)
        self.steps = epoch * per_epoch
        total, factor = 0.0, 0.0
        self.network.train()
        for views, joint, votes in self._batches(examples, per_epoch):
            factor = _schedule(self.steps / (self.settings.epochs * per_epoch))
            for optimizer, rate in zip(self.optimizers, self.rates, strict=False):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            total += self._step(views, joint, votes)
            self.steps += 1
        return total / per_epoch, self.settings.rate * factor

    def _batches(self, examples: Examples, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        settings = self.settings
        order = torch.randperm(len(examples), generator=self.generator).numpy()
        for step in range(count):
            chosen = order[step * settings.batch : (step + 1) * settings.batch]
            pictures = torch.from_numpy(examples.pictures[chosen]).to(self.device).float().div_(255)
            if not examples.whole:
                pictures = turn(
                    pictures, settings.extent, settings.size, settings.augmentation, self.generator
                )
            views = change_light(pictures, settings.augmentation, self.generator)
            mine = slice(self.rank, None, self.processes)
            joint, votes = torch.from_numpy(examples.joint[chosen]), torch.from_numpy(examples.votes[chosen])
            yield views[mine], joint[mine].to(self.device), votes[mine].to(self.device)

    def _step(self, views: Tensor, joint: Tensor, votes: Tensor) -> float:
        with _autocast(self.device):
            predicted = self.learner(views)
        loss = LOSSES[self.settings.loss](predicted.float(), joint, votes, self.concentration["logarithm"])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        _follow(self.average, self.network, min(self.settings.memory, (1 + self.steps) / (10 + self.steps)))
        return float(loss.item())


class _Learner(nn.Module):
    """The network as it is trained: views in, the fitted head's output out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: Tensor) -> Tensor:
        network = self.network
        return network.outputs((views - network.mean) / network.spread)[OUTPUT]


def _schedule(spent: float) -> float:
    """Learning rate at a part of the steps, relative to the largest: linear up, then a half cosine down."""
    if spent < _WARM_UP:
        return spent / _WARM_UP + 0.02
    return 0.5 * (1 + math.cos(math.pi * (spent - _WARM_UP) / (1 - _WARM_UP))) + 0.001


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the network's; counts are copied."""
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def _autocast(device: torch.device) -> torch.autocast:
    from gzscale.models.engine import has_native_bfloat16

    return torch.autocast(device.type, torch.bfloat16, enabled=has_native_bfloat16(device))


def _fingerprint(network: nn.Module, examples: Examples, settings: Settings) -> str:
    """Return a hash of what a fit starts from: the first weights, the galaxies, the settings."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(np.ascontiguousarray(examples.joint).tobytes())
    digest.update(np.ascontiguousarray(examples.pictures[:: max(1, len(examples) // 64)]).tobytes())
    return digest.hexdigest()
