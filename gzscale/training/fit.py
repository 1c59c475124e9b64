"""Fit the morphology network to labelled pictures, the same weights for the same seed.

Pictures are averaged over 4 x 4 pixels once; every step then draws a view of each: turned,
mirrored, shifted and zoomed, brighter or fainter, redder or bluer, with more or less sky. The
last three stand for the difference between the JPEGs that volunteers saw and flux rendered
here, so that one network serves both doors (see `gzscale.models.inputs`).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gzscale.models.inputs import PICTURE_FACTOR, PICTURE_SIZE

__all__ = ["OUTPUT", "Settings", "augment", "fit", "reduce_pictures", "rmse"]

#: Name of the head that is fitted.
OUTPUT = "vote_fractions"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to fit.

    Attributes
    ----------
    epochs
        Times that each picture is drawn at most.
    minutes
        Time after which no further epoch is begun; the schedule follows whichever of the two
        limits is nearer. Weights depend on the machine's speed where this is what ends the fit.
    batch
        Pictures of a step.
    rate
        Largest learning rate.
    decay
        Weight decay (decoupled, AdamW).
    sizes
        Side of the views over the course of the fit. Small ones cost less, but what was learnt of
        shapes at one size has to be learnt again at the next.
    seed
        Of the draws.
    """

    epochs: int = 100
    minutes: float = math.inf
    batch: int = 16
    rate: float = 2e-3
    decay: float = 5e-2
    sizes: tuple[int, ...] = (96,)
    seed: int = 20131220


def reduce_pictures(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average pictures over blocks of 4 x 4 pixels, rounded.

    Parameters
    ----------
    pictures
        Shape (n, 424, 424, 3).

    Returns
    -------
    NDArray[np.uint8]
        Shape (n, 3, 106, 106): wider than a cutout of 96, so that views can be turned and shifted.
    """
    side = PICTURE_SIZE // PICTURE_FACTOR
    blocks = pictures.reshape(len(pictures), side, PICTURE_FACTOR, side, PICTURE_FACTOR, 3)
    means = blocks.mean(axis=(2, 4), dtype=np.float32)
    return np.ascontiguousarray(np.rint(means).astype(np.uint8).transpose(0, 3, 1, 2))


def augment(pictures: Tensor, size: int, extent: int, generator: torch.Generator) -> Tensor:
    """Draw one view of each picture.

    Parameters
    ----------
    pictures
        float32 in [0, 1], shape (n, 3, side, side).
    size
        Side of the views.
    extent
        Side of the part of ``pictures`` that a view without zoom shows.
    generator
        Where the draws come from; on the CPU, whatever the device.

    Returns
    -------
    Tensor
        float32 in [0, 1], shape (n, 3, size, size), on the device of ``pictures``.
    """
    n, side, device = len(pictures), pictures.shape[-1], pictures.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((n, *shape), generator=generator) * (high - low) + low

    angle = uniform(0, 2 * math.pi)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zoom = torch.exp(uniform(math.log(0.87), math.log(1.15))) * extent / side
    stretch = torch.exp(uniform(math.log(0.95), math.log(1.05)))
    shift = uniform(-3, 3, 2) * 2 / side
    rows = (
        torch.stack([angle.cos() * zoom * mirror * stretch, -angle.sin() * zoom, shift[:, 0]], dim=1),
        torch.stack([angle.sin() * zoom * mirror * stretch, angle.cos() * zoom, shift[:, 1]], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), [n, 3, size, size], align_corners=False)
    views = functional.grid_sample(
        pictures, grid.to(device), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    gain = torch.exp(uniform(-0.2, 0.2, 1, 1, 1) + uniform(-0.07, 0.07, 3, 1, 1)).to(device)
    sky = uniform(-0.01, 0.01, 3, 1, 1).to(device)
    noise = torch.randn(views.shape, generator=generator).to(device) * uniform(0, 0.01, 1, 1, 1).to(device)
    return (views * gain + sky + noise).clamp_(0, 1)


def fit(
    network: nn.Module,
    pictures: NDArray[np.uint8],
    joint: NDArray[np.float32],
    settings: Settings,
    device: torch.device | str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Fit a network to pictures and their vote fractions.

    The loss is the squared error of the 37 joint fractions; the weights returned are an
    exponential moving average over the last steps.

    Parameters
    ----------
    network
        With a head named `OUTPUT`; changed in place.
    pictures
        Shape (n, 3, 106, 106), see `reduce_pictures`.
    joint
        Joint fractions in the Kaggle scheme, shape (n, 37).
    settings
        How to fit.
    device
        Where to fit.
    progress
        Called after each epoch with its number and the mean loss.

    Returns
    -------
    nn.Module
        The averaged network, in evaluation mode, on the CPU.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    # Not channels_last on a CPU: no faster there, and oneDNN's backward pass of narrow
    # convolutions in that layout crashes (seen with torch 2.13, one thread, 4 channels).
    on_gpu = torch.device(device).type == "cuda"
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    images = torch.from_numpy(pictures)
    targets = torch.from_numpy(joint)
    start = time.monotonic()
    steps = max(1, len(images) // settings.batch)
    for epoch in range(settings.epochs):
        spent = max(epoch / settings.epochs, (time.monotonic() - start) / 60 / settings.minutes)
        if spent >= 1:
            break
        size = settings.sizes[min(int(spent * len(settings.sizes)), len(settings.sizes) - 1)]
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * _schedule(spent)
        network.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(steps):
            chosen = order[step * settings.batch : (step + 1) * settings.batch]
            batch = images[chosen].to(device).float().div_(255)
            views = augment(batch, size, 96, generator).contiguous(memory_format=layout)
            error = network(views)[OUTPUT] - targets[chosen].to(device)
            loss = error.square().sum(dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            _follow(average, network, _keep(epoch * steps + step))
            total += loss.item()
        if progress is not None:
            progress(epoch, total / steps)
    return average.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def rmse(predicted: NDArray[np.floating], joint: NDArray[np.floating]) -> float:
    """Return the root mean square error over all galaxies and answers, Kaggle's measure."""
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - joint))))


def _schedule(spent: float) -> float:
    """Learning rate at a part of the time, relative to the largest: linear up, then a half cosine down."""
    return (
        spent / 0.05 + 0.02 if spent < 0.05 else 0.5 * (1 + math.cos(math.pi * (spent - 0.05) / 0.95)) + 0.002
    )


def _keep(step: int) -> float:
    """Share of the averaged weights that a step keeps: a short memory at first, then 65 steps."""
    return min(0.985, (1 + step) / (10 + step))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the network's; the counts of batch normalisation are copied."""
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)
