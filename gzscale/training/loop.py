"""The loop that fits a network, whatever it learns: the same weights for the same seed, wherever interrupted.

Filters are moved by Muon (Jordan et al. 2024: steps of equal size in all directions of a layer), norms,
biases and heads by AdamW. The learning rate rises for the first twentieth and falls as a cosine; the
weights that are kept are an exponential moving average over the last steps, or where patience ends the fit,
that of the best epoch. Started by ``torchrun``, every process takes its share of each batch
(`gzscale.training.processes`).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.models.engine import has_native_bfloat16
from gzscale.training.checkpoint import load_checkpoint, save_checkpoint
from gzscale.training.processes import count_processes, own_device, process_rank, share_tensors

__all__ = ["Epoch", "Lesson", "Pace", "Progress", "autocast", "learn", "named"]

#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 20.0
#: Share of the schedule in which the learning rate rises.
_WARM_UP = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how long to learn.

    Attributes
    ----------
    epochs
        Times that each example is drawn, but for those of each time that fill no batch.
    batch
        Examples of a step.
    rate, head_rate
        Largest learning rate of the filters (Muon) and of all else (AdamW).
    decay
        Weight decay of the filters (decoupled).
    memory
        Share of the averaged weights that a step keeps.
    patience
        Epochs without a better score after which the fit ends, with the weights of the best; 0: never.
    seed
        Of the draws.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """

    epochs: int = 150
    batch: int = 16
    rate: float = 0.03
    head_rate: float = 3e-3
    decay: float = 0.05
    memory: float = 0.99
    patience: int = 0
    seed: int = 20131220

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: at least {least}")
        for name in ("rate", "head_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}: a learning rate is above 0")
        if not 0 <= self.decay < math.inf:
            raise ConfigError(f"decay={self.decay}: 0 or more")
        if not 0 <= self.memory < 1:
            raise ConfigError(f"memory={self.memory}: from 0 up to, not including, 1")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the learning curve; ``score`` is that of examples held back, NaN without any."""

    epoch: int
    rate: float
    loss: float
    score: float
    seconds: float


#: Told the name of a stage (``sketches``, ``member 1 of 5``) and a line of its learning curve; it is sent to
#: other processes.
Progress = Callable[[str, Epoch], None]


class Lesson(Protocol):
    """What is learnt: examples, and how far the outputs are from what is known of them."""

    #: Learnt beside the network (how sure of itself a likelihood may be); may be empty.
    extra: nn.ParameterDict

    def __len__(self) -> int:
        """Return the number of examples."""

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        """Return the input of the network, as `Network.prepare` leaves it but for shift and scale."""

    def loss(self, outputs: dict[str, Tensor], chosen: NDArray[np.int64]) -> Tensor:
        """Return the mean loss of some examples, given each head's output."""

    def score(self, network: Network, device: torch.device) -> float:
        """Return how well the network does on examples held back, less is better; NaN without any."""

    def digest(self) -> str:
        """Return a hash of the examples and of how they are learnt."""


def learn(
    network: Network,
    lesson: Lesson,
    pace: Pace,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Network:
    """Fit a network.

    Parameters
    ----------
    network
        Changed in place.
    lesson
        What it learns. It is scored after every fifth epoch, or every one where ``pace.patience`` asks.
    pace
        How fast and how long.
    checkpoint
        File that the state is kept in; if it is there and of this fit, the fit goes on from it.
    progress
        Called after each epoch.

    Returns
    -------
    Network
        The averaged network, in evaluation mode, on the CPU; the same in every process.

    Raises
    ------
    ConfigError
        If a batch has fewer examples than there are processes, or patience has no score to go by.
    DamageError
        If the checkpoint is damaged.
    """
    _require_batch(lesson, pace)
    device = own_device()
    run = _Run(network.to(device), lesson, pace, device)
    mark = _fingerprint(network, lesson, pace)
    about = run.restore(checkpoint, mark) if checkpoint else None
    first, best = (int(about["epoch"]) + 1, [*about["best"]]) if about else (0, [math.inf, 0])
    saved = start = time.monotonic()
    for epoch in range(first, pace.epochs):
        if pace.patience and epoch - best[1] > pace.patience:
            break
        loss, rate = run.epoch(epoch)
        score = math.nan
        if pace.patience or epoch % 5 == 4 or epoch == pace.epochs - 1:
            score = run.score()
            best = run.keep(score, epoch) if score < best[0] else best
        if pace.patience and math.isnan(score):
            raise ConfigError(
                f"patience={pace.patience}: epoch {epoch + 1} has no score to go by; nothing is held back, "
                "or the fit has diverged"
            )
        if progress is not None:
            progress(Epoch(epoch, rate, loss, score, time.monotonic() - start))
        ends = epoch == pace.epochs - 1 or (pace.patience and epoch - best[1] >= pace.patience)
        due = time.monotonic() - saved > CHECKPOINT_EVERY or ends
        if checkpoint is not None and due and run.rank == 0:
            run.save(checkpoint, {"fingerprint": mark, "epoch": epoch, "best": best})
            saved = time.monotonic()
    return run.fitted().to("cpu").eval()


def named(stage: str, progress: Progress | None) -> Callable[[Epoch], None] | None:
    """Return what is told the epochs of one stage."""
    return None if progress is None else functools.partial(progress, stage)


def autocast(device: torch.device | str) -> torch.autocast:
    """Return a context in which the device multiplies in bfloat16 where that is faster."""
    device = torch.device(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=has_native_bfloat16(device))


class _Run:
    """A fit under way: the network, its average, its optimisers and the draws."""

    def __init__(self, network: Network, lesson: Lesson, pace: Pace, device: torch.device) -> None:
        self.rank, self.processes = process_rank(), count_processes()
        self.lesson, self.pace, self.device = lesson, pace, device
        self.network = network.train()
        self.average = copy.deepcopy(network).eval()
        extra = lesson.extra.to(device)
        self.modules: dict[str, nn.Module] = {"network": network, "average": self.average, "extra": extra}
        if pace.patience:
            self.modules["best"] = copy.deepcopy(network).eval()
        self.learner: nn.Module = _Learner(network, lesson, extra)
        if self.processes > 1:
            # Not every loss learns all of what may be learnt beside the network.
            self.learner = DistributedDataParallel(self.learner, find_unused_parameters=True)
        filters = [p for name, p in network.named_parameters() if p.dim() == 2 and "heads" not in name]
        known = {id(parameter) for parameter in filters}
        others = [p for p in network.parameters() if id(p) not in known] + list(extra.parameters())
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=pace.head_rate, weight_decay=0.0)
        ]
        if filters:
            self.optimizers.append(
                torch.optim.Muon(filters, lr=pace.rate, weight_decay=pace.decay, nesterov=True)
            )
        self.rates = [pace.head_rate, pace.rate]
        self.generator = torch.Generator().manual_seed(pace.seed)

    def restore(self, path: Path, fingerprint: str) -> dict[str, Any] | None:
        """Go on from a checkpoint of this fit, if there is one."""
        return load_checkpoint(path, self.modules, self.optimizers, self.generator, fingerprint)

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write a checkpoint."""
        save_checkpoint(path, self.modules, self.optimizers, self.generator, about)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Draw every example once, but for those that fill no batch.

        Returns
        -------
        float, float
            The mean loss, and the learning rate of the filters.
        """
        batch = self.pace.batch
        per_epoch = max(1, len(self.lesson) // batch)
        order = torch.randperm(len(self.lesson), generator=self.generator).numpy()
        total, factor = 0.0, 0.0
        self.network.train()
        for step in range(per_epoch):
            done = epoch * per_epoch + step
            factor = _schedule(done / (self.pace.epochs * per_epoch))
            for optimizer, rate in zip(self.optimizers, self.rates, strict=False):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            total += self._step(order[step * batch : (step + 1) * batch], done)
        return total / per_epoch, self.pace.rate * factor

    def score(self) -> float:
        """Score the average of the first process; each has normalised its own share of the batches."""
        share_tensors(self.average.state_dict().values())
        score = torch.tensor([self.lesson.score(self.average, self.device)], dtype=torch.float64)
        score = score.to(self.device)
        share_tensors([score])
        return float(score.item())

    def keep(self, score: float, epoch: int) -> list[float]:
        """Keep the best average, where patience asks for it; return what it reached, and when."""
        if "best" in self.modules:
            self.modules["best"].load_state_dict(self.average.state_dict())
        return [score, epoch]

    def fitted(self) -> Network:
        """Return the network that the fit ends with."""
        if "best" in self.modules:
            self.average.load_state_dict(self.modules["best"].state_dict())
        share_tensors(self.average.state_dict().values())
        return self.average

    def _step(self, chosen: NDArray[np.int64], done: int) -> float:
        mine = slice(self.rank, None, self.processes)
        views = self.lesson.views(chosen, self.generator, self.device)[mine]
        loss: Tensor = self.learner(views, chosen[mine])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        _follow(self.average, self.network, min(self.pace.memory, (1 + done) / (10 + done)))
        return float(loss.item())


class _Learner(nn.Module):
    """What is trained: the network, and what its lesson learns beside it; views in, their mean loss out."""

    def __init__(self, network: Network, lesson: Lesson, extra: nn.Module) -> None:
        super().__init__()
        self.network, self.lesson, self.extra = network, lesson, extra

    def forward(self, views: Tensor, chosen: NDArray[np.int64]) -> Tensor:
        network = self.network
        with autocast(views.device):
            outputs = network.outputs((views - network.mean) / network.spread)
        return self.lesson.loss({name: value.float() for name, value in outputs.items()}, chosen)


def _require_batch(lesson: Lesson, pace: Pace) -> None:
    """Refuse what would leave a process without an example of a batch."""
    fewest = min(pace.batch, len(lesson))
    if fewest < count_processes():
        raise ConfigError(
            f"{fewest} examples a batch for {count_processes()} processes; start fewer, or set a larger batch"
        )


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


def _fingerprint(network: nn.Module, lesson: Lesson, pace: Pace) -> str:
    """Return a hash of what a fit starts from: the first weights, the examples, the settings."""
    digest = hashlib.sha256(json.dumps(asdict(pace), sort_keys=True).encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(lesson.digest().encode())
    return digest.hexdigest()
