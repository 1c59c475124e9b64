"""Fits a network to examples of lenses; `gzscale.training.loop` says how a fit goes.

Two heads learn together: the chance of a lens (cross-entropy) and, of lenses alone, in which bin of the
logarithm the Einstein radius is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gzscale.models.backbone import Network
from gzscale.models.inputs import FluxInputs, to_channels
from gzscale.tasks.lenses import LENS, RADIUS, radius_bin
from gzscale.training.lens_examples import LensExamples
from gzscale.training.loop import autocast

__all__ = ["LensLesson", "LensViews", "predict_examples"]


@dataclass(frozen=True, slots=True)
class LensViews:
    """How views of an example differ.

    Attributes
    ----------
    shift
        Largest shift in pixels along each axis: catalogs' positions are not exact.
    brightness, colour
        Standard deviation of the natural logarithm of the gain of all bands together, and of each.
    radius_weight
        Weight of the Einstein radius in the loss.
    """

    shift: int = 1
    brightness: float = 0.1
    colour: float = 0.02
    radius_weight: float = 0.2


class LensLesson:
    """Examples as something to be learnt. See `gzscale.training.loop.Lesson`."""

    def __init__(
        self,
        examples: LensExamples,
        inputs: FluxInputs,
        side: tuple[int, int],
        views: LensViews,
        held_back: LensExamples | None = None,
    ) -> None:
        self.examples, self.inputs, self.side, self.how, self.held_back = (
            examples,
            inputs,
            side,
            views,
            held_back,
        )
        self.extra = nn.ParameterDict()

    def __len__(self) -> int:
        return len(self.examples)

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        """Return the central parts of the channels of some examples, shifted, brighter or fainter."""
        flux = self.examples.images(chosen, generator)
        n, bands = flux.shape[:2]
        gain = self.how.brightness * torch.randn((n, 1), generator=generator)
        gain = gain + self.how.colour * torch.randn((n, bands), generator=generator)
        flux *= gain.exp()[:, :, None, None]
        channels = _channels(self.examples, chosen, flux, self.inputs, device)
        return _resized(_shifted(channels, self.side[0], self.how.shift, generator), self.side[1])

    def loss(self, outputs: Mapping[str, Tensor], chosen: NDArray[np.int64]) -> Tensor:
        """Return the cross-entropy of lens or not, and that of the Einstein radius of lenses."""
        device = outputs[LENS].device
        lens = torch.from_numpy(self.examples.lens[chosen]).float().to(device)
        chance = outputs[LENS][:, 0].clamp(1e-7, 1 - 1e-7)
        loss = functional.binary_cross_entropy(chance, lens)
        rows = np.flatnonzero(np.isfinite(self.examples.radius[chosen]))
        if len(rows):
            bins = torch.from_numpy(radius_bin(self.examples.radius[chosen[rows]])).to(device)
            share = outputs[RADIUS][torch.from_numpy(rows).to(device), bins]
            weight = torch.from_numpy(self.examples.radius_weight[chosen[rows]]).to(device)
            loss = loss - self.how.radius_weight * (weight * share.clamp(min=1e-9).log()).mean()
        return loss

    def score(self, network: Network, device: torch.device) -> float:
        """Return the cross-entropy of examples held back; NaN without any."""
        if self.held_back is None:
            return math.nan
        chance = predict_examples(network, self.held_back, self.inputs, device)[LENS][:, 0]
        chance = np.clip(chance.astype(np.float64), 1e-7, 1 - 1e-7)
        lens = self.held_back.lens
        return float(-np.mean(np.log(np.where(lens, chance, 1 - chance))))

    def digest(self) -> str:
        """Return a hash of the examples and of how views differ."""
        said = [asdict(self.inputs), asdict(self.how), self.side]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for array in (self.examples.base, self.examples.added, self.examples.lens, self.examples.radius):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(
            np.ascontiguousarray(self.examples.light[:: max(1, len(self.examples) // 64)]).tobytes()
        )
        return digest.hexdigest()


def predict_examples(
    network: Network, examples: LensExamples, inputs: FluxInputs, device: torch.device | str = "cpu"
) -> dict[str, NDArray[np.float32]]:
    """Return each head's output for examples; the noise of the added photons is always the same."""
    generator = torch.Generator().manual_seed(0)
    training = network.training
    network.eval()
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in network.heads}
    with torch.inference_mode(), autocast(device):
        for start in range(0, len(examples), 64):
            rows = np.arange(start, min(start + 64, len(examples)))
            flux = examples.images(rows, generator)
            outputs = network(_channels(examples, rows, flux, inputs, torch.device(device)))
            for name, value in outputs.items():
                parts[name].append(value.float().cpu().numpy())
    network.train(training)
    return {name: np.concatenate(part) for name, part in parts.items()}


def _channels(
    examples: LensExamples, rows: NDArray[np.int64], flux: Tensor, inputs: FluxInputs, device: torch.device
) -> Tensor:
    scale = torch.from_numpy(examples.stamps.scale[examples.base[rows]])
    unknown = torch.full((len(rows),), torch.nan)
    return to_channels(
        flux.to(device), scale.to(device), examples.noise(rows).to(device), unknown.to(device), inputs
    )


def _shifted(channels: Tensor, side: int, reach: int, generator: torch.Generator) -> Tensor:
    """Return a square of a side near the centre of each image."""
    margin = (channels.shape[-1] - side) // 2
    reach = min(reach, margin)
    shifts = torch.randint(-reach, reach + 1, (len(channels), 2), generator=generator).tolist()
    return torch.stack(
        [
            image[:, margin + dy : margin + dy + side, margin + dx : margin + dx + side]
            for image, (dy, dx) in zip(channels, shifts, strict=True)
        ]
    )


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear")
