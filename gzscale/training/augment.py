"""Views of a galaxy that volunteers would vote on alike, drawn on the device.

Any turn and mirror image, a little zoom, shift and stretch; brighter or fainter, redder or bluer, paler,
less sharp, with more noise and another sky. The latter stand for the difference between the
JPEGs that volunteers saw and flux rendered here, so that one network serves both doors
(see `gzscale.models.inputs`), and between one survey's seeing and another's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gzscale.training.sketch import blur

__all__ = ["Augmentation", "change_light", "turn"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far views may differ.

    Attributes
    ----------
    zoom
        Natural logarithm of the largest zoom, in or out.
    stretch
        The same, along one axis, while the other shrinks: it stands for the small errors of a size.
    shift
        Largest shift in pixels.
    brightness, colour
        Natural logarithm of the largest gain of all colours together, and of each by itself.
    sky, noise
        Largest offset, and largest noise, of the values in [0, 1].
    pale
        Largest share of the colours that is replaced by their mean; half of the views keep theirs.
    blur
        Largest blur (standard deviation in pixels); half of the views keep their sharpness.
    """

    zoom: float = 0.25
    stretch: float = 0.1
    shift: float = 2.0
    brightness: float = 0.2
    colour: float = 0.05
    sky: float = 0.01
    noise: float = 0.01
    pale: float = 0.6
    blur: float = 0.8


def turn(
    pictures: Tensor, extent: int, size: int, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Turn, mirror, zoom, stretch and shift each picture.

    Parameters
    ----------
    pictures
        float32 in [0, 1], shape (n, 3, side, side).
    extent
        Side of the part of ``pictures`` that a view without zoom shows.
    size
        Side of the views.
    settings
        How far.
    generator
        Where the draws come from; on the CPU, whatever the device.

    Returns
    -------
    Tensor
        Shape (n, 3, size, size), on the device of ``pictures``.
    """
    n, side = len(pictures), pictures.shape[-1]

    def draw(reach: float, *shape: int) -> Tensor:
        return (torch.rand((n, *shape), generator=generator) * 2 - 1) * reach

    angle, mirror = draw(math.pi), torch.where(draw(1.0) < 0, -1.0, 1.0)
    zoom = torch.exp(draw(settings.zoom)) * extent / side
    axis, factor = draw(math.pi / 2), torch.exp(draw(settings.stretch))
    turned = _matrix(angle.cos() * mirror, -angle.sin(), angle.sin() * mirror, angle.cos())
    cosine, sine = axis.cos(), axis.sin()
    stretched = _matrix(
        cosine**2 * factor + sine**2 / factor,
        cosine * sine * (factor - 1 / factor),
        cosine * sine * (factor - 1 / factor),
        sine**2 * factor + cosine**2 / factor,
    )
    linear = torch.bmm(stretched, turned) * zoom[:, None, None]
    shift = draw(settings.shift, 2, 1) * 2 / side
    grid = functional.affine_grid(
        torch.cat([linear, shift], dim=2).to(pictures.device), [n, 3, size, size], align_corners=False
    )
    return functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def change_light(views: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Change brightness, colours, sharpness, sky and noise of each view.

    Parameters
    ----------
    views
        float32 in [0, 1], shape (n, 3, size, size).
    settings
        How far.
    generator
        Where the draws come from; on the CPU, whatever the device.

    Returns
    -------
    Tensor
        In [0, 1], same shape and device.
    """
    n, device = len(views), views.device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((n, *shape), generator=generator) * (high - low) + low

    if settings.blur:
        views = blur(views, draw(-settings.blur, settings.blur).clamp_min(0.05).to(device))
    pale = draw(-settings.pale, settings.pale, 1, 1, 1).clamp_min(0).to(device)
    views = views * (1 - pale) + views.mean(dim=1, keepdim=True) * pale
    gain = draw(-settings.brightness, settings.brightness, 1, 1, 1)
    gain = torch.exp(gain + draw(-settings.colour, settings.colour, 3, 1, 1)).to(device)
    sky = draw(-settings.sky, settings.sky, 3, 1, 1).to(device)
    grain = torch.randn(views.shape, generator=generator).to(device)
    noise = grain * draw(0, settings.noise, 1, 1, 1).to(device)
    return (views * gain + sky + noise).clamp_(0, 1)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], dim=1), torch.stack([c, d], dim=1)], dim=1)
