"""What is taken for a lens and is none: rings, spiral arms, satellites, companions, disks, tails, spikes.

Drawn as lensed arcs are, with fluxes and colours of lensed arcs, so that only their shape tells them apart;
but companions, galaxies like the bright one that belong to it, have its colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.deflectors import aperture_flux
from gzscale.sky.lens import CLUMPS, OVERSAMPLING, Lenses, observed, render_arcs
from gzscale.sky.stamps import Stamps

__all__ = ["MIMICS", "draw_kinds", "draw_mimics"]

#: Radius in arcsec within which the galaxy's colours are measured; light of its companions relative to that.
COMPANION_APERTURE, COMPANION_LIGHT = 2.0, (0.03, 0.7)
#: A pattern: offsets in arcsec from the galaxy, radius of the lens that it stands for, chance -> light.
_Pattern = Callable[
    [NDArray[np.float64], NDArray[np.float64], float, np.random.Generator], NDArray[np.float64]
]


def draw_mimics(
    lenses: Lenses, kinds: NDArray[np.str_], base: Stamps, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw light of other shapes, as bright and as blue as arcs; companions in the galaxy's own colours.

    Parameters
    ----------
    lenses
        Lenses whose Einstein radii and arcs they stand for, n of them.
    kinds
        One of `MIMICS` each, shape (n,).
    base
        Cutouts of the galaxies that they are put about, n of them.
    rng
        The source of chance.

    Returns
    -------
    NDArray[np.float32]
        Nanomaggies a pixel without noise, shape (n, bands, size, size).
    """
    seeing, size, scale = base.seeing, base.images.shape[-1], base.scale
    # The magnification of a point at the source's place: what its arcs add up to, on average.
    impact = np.maximum(np.hypot(lenses.x[:, 0], lenses.y[:, 0]), lenses.radius[:, 0] / 2)
    magnified = (
        lenses.flux * np.clip(2 * lenses.einstein_radius / np.maximum(impact, 1e-3), 1, 20)[:, None, None]
    )
    images = np.zeros((len(lenses), lenses.flux.shape[2], size, size), np.float32)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        if kind in _UNLENSED:
            blue = replace(lenses, flux=magnified).take(rows)
            shown = _UNLENSED[str(kind)](_reddened(blue, base.take(rows), rng) if kind in _RED else blue, rng)
            images[rows] = render_arcs(shown, seeing[rows], size, scale[rows])[0]
            continue
        for row in rows:
            axis = (
                (np.arange(size * OVERSAMPLING) - (size * OVERSAMPLING - 1) / 2) * scale[row] / OVERSAMPLING
            )
            x, y = np.meshgrid(axis, axis)
            light = _PATTERNS[str(kind)](x, y, float(lenses.einstein_radius[row]), rng)
            light /= max(light.sum(), 1e-12)
            # A pattern is all young light or, with its old part, of the source's mean colour.
            images[row] = observed(
                np.stack([light, light]), magnified[row], seeing[row], size, float(scale[row])
            )
    return images


def _turned(
    x: NDArray[np.float64], y: NDArray[np.float64], flattening: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return radius and azimuth in the plane of a disk that is seen flattened, at a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return np.hypot(along, across / flattening), np.arctan2(across / flattening, along)


def _knotted(azimuth: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a modulation along the azimuth, as of regions of star formation; mean about 1."""
    waves = sum(
        rng.normal(0, 0.35) * np.cos(number * azimuth + rng.uniform(0, 2 * np.pi)) for number in range(2, 9)
    )
    return np.exp(np.clip(waves, -2, 2))


def _ring(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a ring galaxy: a whole, broad, knotted ring, larger than most Einstein rings."""
    distance, azimuth = _turned(x, y, rng.uniform(0.45, 0.98), rng)
    centre = radius * rng.uniform(1.0, 2.5) + 0.5
    width = centre * rng.uniform(0.12, 0.3)
    return np.exp(-(((distance - centre) / width) ** 2) / 2) * _knotted(azimuth, rng)


def _spiral(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw logarithmic arms about the bulge (pitch angles of Kennicutt 1981, AJ 86, 1847)."""
    distance, azimuth = _turned(x, y, rng.uniform(0.4, 0.98), rng)
    pitch = np.radians(rng.uniform(8, 35)) * rng.choice([-1, 1])
    arms = rng.choice([1, 2, 2, 2, 3, 4])
    phase = arms * (azimuth - np.log(distance + 0.1) / np.tan(pitch))
    crest = ((1 + np.cos(phase)) / 2) ** rng.uniform(2, 5)
    scale = radius * rng.uniform(0.8, 1.8)
    inner = 1 - np.exp(-((distance / (0.6 * scale)) ** 2))
    return crest * np.exp(-distance / scale) * inner * _knotted(azimuth + distance, rng)


def _tail(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a tidal tail: an arc that bends away from the galaxy, or starts in it, as no lensed one does."""
    angle = rng.uniform(0, 2 * np.pi)
    bend = radius * rng.uniform(0.8, 2.5)
    apart = radius * rng.uniform(0.8, 1.6) + (bend if rng.random() < 0.6 else bend * rng.uniform(0.3, 0.7))
    dx, dy = x - apart * np.cos(angle), y - apart * np.sin(angle)
    distance = np.hypot(dx, dy)
    facing = np.cos(np.arctan2(dy, dx) - angle - np.pi + rng.normal(0, 0.4))
    width = rng.uniform(0.15, 0.45)
    return np.exp(-(((distance - bend) / width) ** 2) / 2) * np.exp((facing - 1) / rng.uniform(0.1, 0.5))


def _spikes(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a star with the four spikes of the secondary's vanes, beside the galaxy."""
    angle, apart = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.8, 3.0) + 0.8
    dx, dy = x - apart * np.cos(angle), y - apart * np.sin(angle)
    tilt = rng.uniform(0, np.pi / 2)
    u, v = np.cos(tilt) * dx + np.sin(tilt) * dy, np.cos(tilt) * dy - np.sin(tilt) * dx
    core = np.exp(-(u**2 + v**2) / (2 * 0.15**2))
    length = rng.uniform(1.0, 3.0)
    spikes = sum(np.exp(-np.abs(a) / length) * np.exp(-(b**2) / (2 * 0.2**2)) for a, b in ((u, v), (v, u)))
    return core / core.sum() + rng.uniform(0.0, 0.4) * spikes / np.sum(spikes)


def _scattered(lenses: Lenses, rng: np.random.Generator, numbers: NDArray[np.int64]) -> Lenses:
    """Return unlensed galaxies about the deflector, some of each row, with the source's flux."""
    n = len(lenses)
    angle = rng.uniform(0, 2 * np.pi, (n, CLUMPS))
    apart = lenses.einstein_radius[:, None] * rng.uniform(0.8, 2.5, (n, CLUMPS)) + 0.4
    weight = rng.uniform(0.2, 1.0, (n, CLUMPS)) * (np.arange(CLUMPS) < numbers[:, None])
    share = np.repeat((weight / weight.sum(axis=1, keepdims=True))[:, None], 2, axis=1)
    return replace(
        lenses,
        einstein_radius=np.full(n, 1e-6),
        shear=np.zeros(n),
        x=apart * np.cos(angle),
        y=apart * np.sin(angle),
        radius=rng.uniform(0.2, 0.9, (n, CLUMPS)),
        index=rng.uniform(0.8, 1.5, (n, CLUMPS)),
        flattening=rng.uniform(0.3, 1.0, (n, CLUMPS)),
        tilt=rng.uniform(0, np.pi, (n, CLUMPS)),
        share=share,
    )


def _satellites(lenses: Lenses, rng: np.random.Generator) -> Lenses:
    """Put one to four small galaxies about the bright one."""
    return _scattered(lenses, rng, rng.choice([1, 1, 1, 2, 2, 3, 4], len(lenses)))


def _companions(lenses: Lenses, rng: np.random.Generator) -> Lenses:
    """Put one or two compact galaxies close by."""
    few = _scattered(lenses, rng, rng.choice([1, 1, 1, 2], len(lenses)))
    return replace(
        few, index=rng.uniform(1.0, 4.0, few.index.shape), radius=rng.uniform(0.3, 1.2, few.radius.shape)
    )


def _reddened(lenses: Lenses, base: Stamps, rng: np.random.Generator) -> Lenses:
    """Return sources with 3 to 70 % of the galaxy's own light, as red as it or a little bluer.

    Galaxies of a group lie on one red sequence, whose scatter is some hundredths of a magnitude (Bower, Lucey
    & Ellis 1992, MNRAS 254, 601); those before and behind it have other colours.
    """
    n, bands = len(lenses), lenses.flux.shape[2]
    own = np.maximum(aperture_flux(base.images, base.scale, COMPANION_APERTURE), 1e-3)
    source = np.maximum(lenses.flux.sum(axis=1), 1e-6)
    bluer = rng.uniform(0, 1, (n, 1)) ** 3
    colours = np.exp(
        (1 - bluer) * np.log(own / own.sum(axis=1, keepdims=True))
        + bluer * np.log(source / source.sum(axis=1, keepdims=True))
        + rng.normal(0, 0.05, (n, bands))
    )
    share = np.exp(rng.uniform(np.log(COMPANION_LIGHT[0]), np.log(COMPANION_LIGHT[1]), (n, 1)))
    flux = share * own.sum(axis=1, keepdims=True) * colours / colours.sum(axis=1, keepdims=True)
    return replace(lenses, flux=np.repeat(flux[:, None] / 2, 2, axis=1))


def _edge_on(lenses: Lenses, rng: np.random.Generator) -> Lenses:
    """Put one thin disk beside the bright galaxy; half of them lie across the direction to it, as arcs do."""
    n = len(lenses)
    one = _scattered(lenses, rng, np.ones(n, np.int64))
    towards = np.arctan2(one.y, one.x)
    tilt = np.where(rng.random((n, 1)) < 0.5, towards + np.pi / 2, one.tilt)
    thin = rng.uniform(0.08, 0.22, (n, CLUMPS))
    return replace(one, radius=rng.uniform(0.7, 2.0, (n, CLUMPS)), flattening=thin, tilt=tilt)


def _points(lenses: Lenses, rng: np.random.Generator) -> Lenses:
    """Put one or two stars beside the galaxy."""
    few = _scattered(lenses, rng, rng.choice([1, 1, 2], len(lenses)))
    return replace(
        few, radius=np.full((len(lenses), CLUMPS), 0.06), flattening=np.ones((len(lenses), CLUMPS))
    )


_PATTERNS: dict[str, _Pattern] = {"ring": _ring, "spiral": _spiral, "tail": _tail, "spikes": _spikes}
_UNLENSED: dict[str, Callable[[Lenses, np.random.Generator], Lenses]] = {
    "satellites": _satellites,
    "edge_on": _edge_on,
    "stars": _points,
    "companions": _companions,
}
#: Kinds with the colours of the galaxy that they are put about.
_RED = ("companions",)
#: The kinds, each with how often it is drawn among those of an arc's colours; companions are drawn apart.
MIMICS = {
    "satellites": 0.34,
    "spiral": 0.18,
    "edge_on": 0.14,
    "ring": 0.12,
    "tail": 0.10,
    "stars": 0.07,
    "spikes": 0.05,
    "companions": 0.0,
}


def draw_kinds(count: int, rng: np.random.Generator, companions: float) -> NDArray[np.str_]:
    """Draw what mimics are.

    Parameters
    ----------
    count
        How many.
    rng
        The source of chance.
    companions
        Share of companions.

    Returns
    -------
    NDArray[np.str_]
        Shape (count,).
    """
    weights = np.array(list(MIMICS.values()))
    shares = weights / weights.sum() * (1 - companions)
    shares[list(MIMICS).index("companions")] = companions
    kinds: NDArray[np.str_] = rng.choice(list(MIMICS), count, p=shares)
    return kinds
