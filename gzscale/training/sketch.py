"""Sketched galaxies: pictures drawn from shapes by formula, thousands a minute, with votes by rule.

A network that learns them first needs far fewer labelled galaxies afterwards. Light is drawn as Sersic
profiles, exponential disks with logarithmic arms, bars, rings, edge-on disks with sech^2 layers,
companions and stars; blurred by the seeing, given the sky's noise, and rendered in SDSS's colours.

References
----------
.. [1] Sersic 1963 (profiles; the scale b = 2 n - 1/3 of Ciotti 1991, A&A 249, 99).
.. [2] van der Kruit & Searle 1981, A&A 95, 105 (edge-on disks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gzscale.models.inputs import SDSS_STRETCH, render
from gzscale.training.sketch_shapes import Shapes, draw_shapes, rule_votes, uniform

__all__ = ["DRAWING", "draw_sketches"]

#: Version of what is drawn: another number wherever the same seed would give other pictures.
DRAWING = 1
#: Full width of the seeing in arcsec, and SDSS's pixel.
SEEING, PIXEL = 1.4, SDSS_STRETCH.pixel_scale
#: Noise of a native pixel in i, r, g, nanomaggies, and how wide JPEGs leave it, in pixels of 0.08 R90.
NOISE, GRAIN = (0.045, 0.03, 0.02), 0.7
#: Total magnitude at an R90 of 10 arcsec and its scatter: galaxies of all sizes are about as bright an area.
MAGNITUDE, MAGNITUDE_SCATTER = 15.6, 0.5
#: Light of the sky in a picture, from and to; of red, green and blue relative to it.
SKY, SKY_COLOUR = (0.004, 0.028), (1.0, 1.0, 0.65)
#: Stars that may lie in the field, and the share of fields in which each does.
STARS, STAR_SHARE = 3, 0.4
#: Farthest pixel that blurring reaches.
_REACH = 9


@dataclass(frozen=True)
class _Plane:
    """Positions of the pixels, in units of 0.08 R90; each tensor of shape (n, size, size)."""

    east: Tensor
    north: Tensor
    along: Tensor
    across: Tensor


def draw_sketches(
    count: int, generator: torch.Generator, size: int = 64, extent: int = 64, faint: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draw galaxies.

    Parameters
    ----------
    count
        How many.
    generator
        Where the draws come from, on the CPU.
    size
        Side of the pictures in pixels.
    extent
        Side in units of 0.08 R90, the pixel of Galaxy Zoo's cutouts.
    faint
        Share of galaxies that are fainter and smaller than those of Galaxy Zoo 2.

    Returns
    -------
    pictures : Tensor
        Red, green, blue in [0, 1], float32, shape (count, 3, size, size).
    joint : Tensor
        Joint vote fractions in the Kaggle scheme, shape (count, 37).
    """
    shapes = draw_shapes(count, generator, faint)
    plane = _plane(count, generator, size, extent)
    old, young = _light(shapes, plane, generator)
    return _observe(shapes, plane, old, young, size / extent, generator), rule_votes(shapes)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]


def _share(light: Tensor) -> Tensor:
    """Normalise each map to a sum of 1."""
    return light / light.sum(dim=(1, 2), keepdim=True).clamp_min(1e-6)


def _turned(east: Tensor, north: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cosine, sine = _wide(angle.cos()), _wide(angle.sin())
    return east * cosine + north * sine, north * cosine - east * sine


def _plane(count: int, generator: torch.Generator, size: int, extent: int) -> _Plane:
    axis = (torch.arange(size) + 0.5 - size / 2) * (extent / size)
    north, east = torch.meshgrid(axis, axis, indexing="ij")
    east = east - _wide(uniform(count, generator, -1, 1))
    north = north - _wide(uniform(count, generator, -1, 1))
    return _Plane(east, north, *_turned(east, north, uniform(count, generator, 0, 2 * math.pi)))


def _sersic(radius: Tensor, half_light: Tensor, index: Tensor) -> Tensor:
    relative = (radius / _wide(half_light)).clamp_min(1e-3)
    return torch.exp(-_wide(2 * index - 1 / 3) * (relative ** _wide(1 / index) - 1))


def _light(shapes: Shapes, plane: _Plane, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the light of old and of young stars."""
    count, size = len(shapes), plane.east.shape[-1]
    lumps = torch.randn((count, 1, size // 3, size // 3), generator=generator)
    lumps = functional.interpolate(lumps, size=(size, size), mode="bicubic")[:, 0]
    smooth = _smooth(shapes, plane, generator)
    disk_old, disk_young = _face_on(shapes, plane, lumps, generator)
    edge_old, edge_young = _edge_on(shapes, plane, generator)
    old = _wide(shapes.smooth) * smooth + _wide(shapes.face_on) * disk_old + _wide(shapes.edge_on) * edge_old
    young = _wide(shapes.face_on) * disk_young + _wide(shapes.edge_on) * edge_young
    second_old, second_young = _companion(shapes, plane, old, young, generator)
    bridge = _tides(shapes, plane, generator)
    old, young = old + second_old, young + second_young + bridge
    clumpy = _wide(shapes.irregular) > 0
    clumps = 1.3 * _share(young + 0.5 * old) * torch.exp(1.2 * lumps)
    return torch.where(clumpy, 0.3 * old, old), torch.where(clumpy, clumps, young)


def _smooth(shapes: Shapes, plane: _Plane, generator: torch.Generator) -> Tensor:
    count = len(shapes)
    radius = torch.hypot(plane.along, plane.across / _wide(shapes.flattening))
    half_light = uniform(count, generator, 3.9, 7) * shapes.flattening**-0.3
    return _share(_sersic(radius, half_light, uniform(count, generator, 1, 5)))


def _face_on(
    shapes: Shapes, plane: _Plane, lumps: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    count = len(shapes)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, generator, low, high)

    x, y = plane.along, plane.across / _wide(shapes.flattening)
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    disk = torch.exp(-radius / _wide(draw(3.4, 5.6)))
    rounder = torch.hypot(x, plane.across / _wide(shapes.flattening.clamp_min(0.6)))
    bulge = _share(_sersic(rounder, draw(0.8, 2.5), draw(1, 4)))
    # Logarithmic arms, wobbling with the radius, that begin outside the centre.
    sense = torch.where(draw(0, 1) < 0.5, 1.0, -1.0)
    wobble = _wide(draw(0, 0.6)) * torch.sin(radius / _wide(draw(1.5, 4)) + _wide(draw(0, 6.28)))
    wound = _wide(sense / shapes.arm_pitch.tan()) * torch.log(radius.clamp_min(0.3) / 5)
    phase = _wide(shapes.arm_number) * (angle - wound + _wide(draw(0, 6.28)) + wobble)
    arms = torch.exp(_wide(shapes.arm_sharpness) * (torch.cos(phase) - 1))
    arms = arms * torch.sigmoid(1.5 * (radius - _wide(draw(1, 4))))
    length = draw(2.5, 6.5)
    bar_x, bar_y = _turned(x, y, draw(0, math.pi))
    bar = torch.exp(-((bar_x / _wide(length)) ** 4) - (bar_y / _wide(length * draw(0.15, 0.35))) ** 2)
    ring = torch.exp(-(((radius - _wide(draw(5, 10))) / _wide(draw(0.6, 1.5))) ** 2))
    lopsided = 1 + _wide(draw(0, 0.35)) * torch.cos(angle - _wide(draw(0, 6.28))) * (radius / 10).clamp(
        0, 1.5
    )
    weight = _wide(0.65 * shapes.arm_contrast)
    spread, rest = _share(disk), _wide((1 - shapes.bulge - shapes.bar).clamp_min(0.1))
    texture = torch.exp(lumps * _wide(draw(0, 1))) * lopsided
    young = _share((weight * _share(disk * arms) + 0.4 * (1 - weight) * spread) * texture)
    old = _wide(shapes.bulge) * bulge + _wide(shapes.bar) * _share(bar) + 0.4 * rest * spread
    return old, 0.6 * rest * young + _wide(shapes.ring) * _share(ring)


def _edge_on(shapes: Shapes, plane: _Plane, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = len(shapes)
    x, y = plane.along, plane.across
    length, height = _wide(uniform(count, generator, 3.2, 5.0)), _wide(shapes.thickness)
    layer = torch.cosh(y / height).clamp_max(1e6) ** -2
    disk = _share(torch.exp(-x.abs() / length) * layer * torch.exp(-((x / (4.5 * length)) ** 4)))
    # A boxy bulge has superelliptic contours.
    power = _wide(2 + 2 * shapes.boxy)
    flat = _wide(uniform(count, generator, 0.5, 1))
    radius = (x.abs() ** power + (y.abs() / flat) ** power) ** (1 / power)
    index = torch.where(shapes.boxy > 0, torch.tensor(1.0), uniform(count, generator, 1, 4))
    bulge = _share(_sersic(radius, uniform(count, generator, 1, 2.8), index))
    lane = (y - _wide(uniform(count, generator, -0.4, 0.4))) / (0.45 * height)
    dimmed = 1 - _wide(shapes.dust) * torch.exp(-lane.square() - (x / (3 * length)).square())
    weight = _wide(shapes.bulge)
    return (weight * bulge + 0.5 * (1 - weight) * disk) * dimmed, 0.5 * (1 - weight) * disk * dimmed


def _companion(
    shapes: Shapes, plane: _Plane, old: Tensor, young: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the old and young light of a second galaxy: a smooth one, or the next of those drawn."""
    count = len(shapes)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, generator, low, high)

    apart, towards = draw(4, 14), draw(0, 2 * math.pi)
    along, beside = _turned(plane.east, plane.north, towards)
    x, y = _turned(along - _wide(apart), beside, draw(0, math.pi))
    smooth = _share(_sersic(torch.hypot(x, y / _wide(draw(0.35, 1))), draw(1.5, 4.5), draw(1, 4)))
    # Where a pixel of the second galaxy lies in the picture of the next, which is shown smaller.
    half = plane.east.shape[-1] / 2 * (plane.east[0, 0, 1] - plane.east[0, 0, 0])
    grid = torch.stack([x, y], dim=-1) / (half * draw(0.35, 1)[:, None, None, None])
    both = torch.stack([old.roll(1, 0), young.roll(1, 0)], dim=1)
    next_one = functional.grid_sample(both, grid, align_corners=False)
    next_one = next_one / next_one.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    chosen = _wide((draw(0, 1) < 0.5).float())
    light = _wide(shapes.companion)
    return (
        light * (chosen * next_one[:, 0] + (1 - chosen) * 0.7 * smooth),
        light * (chosen * next_one[:, 1] + (1 - chosen) * 0.3 * smooth),
    )


def _tides(shapes: Shapes, plane: _Plane, generator: torch.Generator) -> Tensor:
    """Return what two galaxies draw out of each other: a broad bridge, and a bent tail."""
    count = len(shapes)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, generator, low, high)

    along, beside = _turned(plane.east, plane.north, draw(0, 2 * math.pi))
    middle = along - _wide(draw(2, 7))
    bridge = torch.exp(-((beside / _wide(draw(1, 3))) ** 2) - (middle / _wide(draw(3, 11))) ** 2)
    radius = torch.hypot(along, beside).clamp_min(0.3)
    bent = torch.atan2(beside, along) - _wide(draw(-1.5, 1.5)) * torch.log(radius / 5)
    tail = torch.exp((torch.cos(bent) - 1) * _wide(draw(4, 20))) * torch.sigmoid(radius - _wide(draw(3, 7)))
    tail = tail * torch.exp(-radius / _wide(draw(4, 10)))
    present = (shapes.companion > 0).float()
    torn = present * (draw(0, 1) < 0.6).float()
    return _wide(present * draw(0, 0.15)) * _share(bridge) + _wide(torn * draw(0.03, 0.3)) * _share(tail)


def _observe(
    shapes: Shapes, plane: _Plane, old: Tensor, young: Tensor, zoom: float, generator: torch.Generator
) -> Tensor:
    """Colour, blur, add noise and render; ``zoom`` is the number of pixels in 0.08 R90."""
    count = len(shapes)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, generator, low, high)

    one = torch.ones(count)
    colour_old = torch.stack([draw(1.56, 1.82), one, draw(0.36, 0.47)], dim=1)
    colour_old = colour_old * torch.exp(0.04 * torch.randn((count, 3), generator=generator))
    colour_young = torch.stack([draw(1.18, 1.52), one, draw(0.56, 1)], dim=1)
    flux = colour_old[:, :, None, None] * old[:, None] + colour_young[:, :, None, None] * young[:, None]
    flux = flux + _stars(plane, generator)
    pixel = 0.08 * shapes.size / zoom  # arcsec
    flux = blur(flux, SEEING / 2.355 / pixel)
    scatter = MAGNITUDE_SCATTER * torch.randn(count, generator=generator)
    magnitude = MAGNITUDE - 5 * torch.log10(shapes.size / 10) + scatter + shapes.fainter
    total = 10 ** ((22.5 - magnitude) / 2.5)
    surface = flux * (total * (PIXEL / pixel).square())[:, None, None, None]
    noise = torch.randn(flux.shape, generator=generator) * torch.tensor(NOISE)[:, None, None]
    # The sky's noise is that of native pixels: where they are larger than the picture's, it is smooth.
    width = (0.45 * PIXEL / pixel).clamp_min(GRAIN * zoom)
    rendered = render(surface + blur(noise, width) * _wide(draw(0.5, 1.5))[:, None])
    sky = draw(*SKY)[:, None] * torch.tensor(SKY_COLOUR)
    sky = sky * torch.exp(0.15 * torch.randn((count, 3), generator=generator))
    return (rendered + sky[:, :, None, None]).clamp_(0, 1)


def _stars(plane: _Plane, generator: torch.Generator) -> Tensor:
    count = len(plane.east)
    light = torch.zeros((count, 3, *plane.east.shape[1:]))
    for _ in range(STARS):
        present = (uniform(count, generator, 0, 1) < STAR_SHARE).float()
        bright = present * torch.exp(uniform(count, generator, -7, -2.5))
        x = plane.east - _wide(uniform(count, generator, -32, 32))
        y = plane.north - _wide(uniform(count, generator, -32, 32))
        point = _share(torch.exp(-(x.square() + y.square()) / (2 * 0.35**2))) * _wide(bright)
        colour = torch.exp(0.3 * torch.randn((count, 3), generator=generator))
        light += colour[:, :, None, None] * point[:, None]
    return light


def blur(images: Tensor, width: Tensor) -> Tensor:
    """Convolve each image with a Gaussian of its own.

    Parameters
    ----------
    images
        Shape (n, channels, y, x).
    width
        Standard deviation in pixels, shape (n,); below 0.05 nothing is done.
    """
    n, channels, height, side = images.shape
    kernels = _kernels(width).repeat_interleave(channels, 0)
    flat = images.reshape(1, n * channels, height, side)
    flat = functional.pad(flat, (_REACH, _REACH, 0, 0), mode="replicate")
    flat = functional.conv2d(flat, kernels[:, None, None, :], groups=n * channels)
    flat = functional.pad(flat, (0, 0, _REACH, _REACH), mode="replicate")
    return functional.conv2d(flat, kernels[:, None, :, None], groups=n * channels).reshape(images.shape)


def _kernels(width: Tensor) -> Tensor:
    offset = torch.arange(-_REACH, _REACH + 1, device=width.device)
    kernels = torch.exp(-0.5 * (offset / width[:, None].clamp_min(0.05)) ** 2)
    return kernels / kernels.sum(dim=1, keepdim=True)
