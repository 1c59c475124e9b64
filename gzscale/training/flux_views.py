"""Views of galaxies in flux: what must not matter is varied, and what may be missing is left out.

A galaxy may lie in any direction and a pixel or two off the centre, under more noise than in the
images that are learnt from; a band, a part of the stamp or the extinction may not be known. Its flux is
what is measured, and stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.models.inputs import FluxInputs, to_channels
from gzscale.models.observation import Observation

__all__ = ["FluxViews", "draw_views", "plain_views"]


@dataclass(frozen=True, slots=True)
class FluxViews:
    """How views differ.

    Attributes
    ----------
    shift
        Largest shift in pixels along either axis; the stamps are larger than the views by twice as much.
    noise
        Largest noise that is added, in units of the stamp's own.
    noisy
        Share of views with added noise.
    dropped
        Share of views in which a band that is not required is left out, for each such band; the bluest
        is left out ``bluest`` times as often.
    bluest
        See ``dropped``.
    covered
        Share of views that are measured on a part of the stamp only.
    corrected
        Share of views whose extinction is known.
    """

    shift: int = 2
    noise: float = 1.0
    noisy: float = 0.25
    dropped: float = 0.02
    bluest: float = 3.0
    covered: float = 0.02
    corrected: float = 0.97


def draw_views(
    observation: Observation,
    chosen: NDArray[np.int64],
    inputs: FluxInputs,
    settings: FluxViews,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Draw a view of each galaxy that is chosen.

    Parameters
    ----------
    observation
        Stamps larger than the views by ``2 * settings.shift``.
    chosen
        Rows.
    inputs, settings, generator, device
        How they are shown, how they differ, the draws, and where the views are made.

    Returns
    -------
    Tensor
        As `gzscale.models.inputs.to_channels` makes them.
    """
    draws = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator).item()))
    images = _turned(observation.images, chosen, settings.shift, draws).astype(np.float32)
    noise = observation.noise[chosen].astype(np.float32)
    count, side = len(chosen), images.shape[-1]
    more = np.where(draws.random(count) < settings.noisy, draws.random(count) * settings.noise, 0)
    rows = np.flatnonzero(more)
    added = draws.standard_normal((len(rows), *images.shape[1:]), dtype=np.float32)
    images[rows] += added * np.nan_to_num(noise[rows] * more[rows, None])[:, :, None, None]
    noise *= np.sqrt(1 + more**2)[:, None].astype(np.float32)
    for row in np.flatnonzero(draws.random(count) < settings.covered):
        images[row, :, :, draws.integers(side // 2 + 1, side) :] = np.nan
    for band in (band for band in inputs.bands if band not in inputs.required):
        share = settings.dropped * (settings.bluest if band == inputs.bands[0] else 1)
        images[draws.random(count) < share, inputs.bands.index(band)] = np.nan
    extinction = np.where(draws.random(count) < settings.corrected, observation.extinction[chosen], np.nan)
    drawn = Observation.of(images, observation.bands, observation.scale[chosen], noise, extinction)
    return _shown(drawn, inputs, device)


def plain_views(
    observation: Observation, chosen: NDArray[np.int64], inputs: FluxInputs, side: int, device: torch.device
) -> Tensor:
    """Return the galaxies as they are, the central square of a side of their stamps."""
    start = (observation.images.shape[-1] - side) // 2
    square = slice(start, start + side)
    taken = observation.take(chosen)
    return _shown(replace(taken, images=taken.images[:, :, square, square]), inputs, device)


def _shown(observation: Observation, inputs: FluxInputs, device: torch.device) -> Tensor:
    images, scale, noise, extinction = (
        torch.from_numpy(np.ascontiguousarray(array)).to(device)
        for array in (observation.images, observation.scale, observation.noise, observation.extinction)
    )
    return to_channels(images, scale, noise, extinction, inputs)


def _turned(
    images: NDArray[np.floating], chosen: NDArray[np.int64], shift: int, draws: np.random.Generator
) -> NDArray[np.floating]:
    """Return shifted squares of the images, each in one of the 8 orientations of the square."""
    count, side = len(chosen), images.shape[-1] - 2 * shift
    index = np.arange(side) + draws.integers(0, 2 * shift + 1, (2, count, 1))
    mirrored = draws.random((2, count)) < 0.5
    index[mirrored] = index[mirrored, ::-1]
    bands = np.arange(images.shape[1])
    found: NDArray[np.floating] = images[
        chosen[:, None, None, None], bands[:, None, None], index[0][:, None, :, None], index[1][:, None, None]
    ]
    swapped = draws.random(count) < 0.5
    found[swapped] = found[swapped].swapaxes(2, 3)
    return found
