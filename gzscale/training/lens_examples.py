"""Examples for a lens finder: cutouts with arcs put into them, with mimics, and as they are.

Base and added light stay apart until a batch is made: a few hundred real galaxies and thousands of arcs make
examples that are new in every epoch, in place and in the noise of the added photons. Deflectors
occur with arcs, with mimics and bare, so that none of them is known by itself; a few stars may lie over any
example; and of every image half of the examples are lenses, so that none is told by the image's noise or
seeing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.errors import CatalogError
from gzscale.sky.crowds import CROWDED, SPARSE, draw_crowds
from gzscale.sky.inject import electrons_of
from gzscale.sky.lens import Lenses
from gzscale.sky.lens_population import RadiusPrior
from gzscale.sky.mimics import draw_kinds, draw_mimics
from gzscale.sky.stamps import Stamps
from gzscale.tasks.lenses import RADIUS_EDGES, radius_bin
from gzscale.training.lens_visible import draw_visible

__all__ = [
    "EXTENT",
    "LensExamples",
    "Mix",
    "labelled_examples",
    "light_side",
    "make_examples",
    "side_of",
]

#: Side in arcsec of what is kept of added light, and of what a network need look at.
EXTENT = 19.0
#: Arcsec beyond that are kept of added light, so that views which are shifted show no edge of it.
_MARGIN = 1.5
#: Mimics that are drawn at a time; their pixels are in memory together.
_BLOCK = 256


@dataclass(frozen=True)
class Mix:
    """Of what examples consist.

    Attributes
    ----------
    lenses
        Arcs, and as many examples of lenses.
    uniform
        Share of them whose Einstein radii are uniform, not by luminosity.
    mimics
        Share of the other examples that are mimics: deflectors with one, and crowds.
    deflectors
        Share of the other examples that are deflectors as they are; the rest are all objects.
    radii
        Least and largest Einstein radius in arcsec.
    companions
        Share of the others that are companions in the galaxy's own colours.
    crowds
        Share of the mimics that are crowds of stars over all of the cutout, whatever it shows.
    stars
        Share of all examples, lenses and others alike, with a few stars over all of the cutout: were they
        only seen in crowds, a lens among stars would be taken for none. Now and then one hides the arcs.
    """

    lenses: int = 6000
    uniform: float = 0.5
    mimics: float = 0.35
    deflectors: float = 0.15
    radii: tuple[float, float] = (0.7, 4.0)
    companions: float = 0.0
    crowds: float = 0.0
    stars: float = 0.0


@dataclass(frozen=True)
class LensExamples:
    """What a lens finder learns.

    Attributes
    ----------
    stamps
        Bases.
    light
        Added light in nanomaggies a pixel, float16, shape (m, bands, side, side): the central part.
    base
        Row of the stamps, int64, shape (n,).
    added
        Row of ``light``, -1 where nothing is added, int64, shape (n,).
    lens
        Whether arcs are among the light, bool, shape (n,).
    radius
        Einstein radius in arcsec; NaN where there is no lens, float32, shape (n,).
    radius_weight
        How much the Einstein radius counts: so that radii are as frequent as luminosities have them, float32,
        shape (n,).
    electrons
        Electrons a nanomaggy, shape (bands,).
    """

    stamps: Stamps
    light: NDArray[np.float16]
    base: NDArray[np.int64]
    added: NDArray[np.int64]
    lens: NDArray[np.bool_]
    radius: NDArray[np.float32]
    radius_weight: NDArray[np.float32]
    electrons: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.base)

    def images(self, rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        """Return nanomaggies a pixel of some examples, float32, shape (n, bands, y, x); NaN not measured.

        The added photons' noise is normal: 100 electrons a pixel are few for an arc.
        """
        images = torch.from_numpy(self.stamps.images[self.base[rows]]).float()
        which = np.flatnonzero(self.added[rows] >= 0)
        light = torch.from_numpy(self.light[self.added[rows[which]]]).float().clamp_(min=0)
        gain = torch.from_numpy(self.electrons).float()[:, None, None]
        light += torch.randn(light.shape, generator=generator) * (light / gain).sqrt_()
        start = (images.shape[-1] - light.shape[-1]) // 2
        inner = slice(start, start + light.shape[-1])
        images[torch.from_numpy(which), :, inner, inner] += light
        return images

    def noise(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the background's sigma in nanomaggies, float32, shape (n, bands)."""
        return torch.from_numpy(self.stamps.noise[self.base[rows]])


def light_side(stamps: Stamps) -> int:
    """Return the side in pixels of what is kept of added light."""
    return side_of(stamps, EXTENT + 2 * _MARGIN)


def make_examples(
    stamps: Stamps, bands: str, mix: Mix, rng: np.random.Generator, survey: str = "sdss"
) -> LensExamples:
    """Make examples, half of them lenses: of all, and of each image.

    Some images give more visible lenses than others. For each lens there is an other example from its
    image: were an image mostly of others, its noise and seeing would tell that it shows no lens.

    Parameters
    ----------
    stamps
        What to put light into.
    bands
        Their bands.
    mix
        How many of what.
    rng
        The source of chance.
    survey
        Whose bands and camera they are.
    """
    possible = np.flatnonzero(stamps.deflector)
    if not len(possible):
        raise CatalogError(f"none of {len(stamps)} cutouts shows a bright red galaxy that could be a lens")
    uniform = round(mix.uniform * mix.lenses)
    priors: tuple[tuple[RadiusPrior, int], ...] = (("uniform", uniform), ("luminosity", mix.lenses - uniform))
    drawn = [
        draw_visible(stamps, possible, n, bands, rng, mix.radii, prior, survey) for prior, n in priors if n
    ]
    base = np.concatenate([part.row for part in drawn])
    radius = np.concatenate([part.lenses.einstein_radius for part in drawn]).astype(np.float32)
    side = light_side(stamps)
    light = [np.concatenate([_inner(part.arcs.images, side) for part in drawn])]
    decoys = round(mix.mimics * mix.lenses)
    single = decoys - round(mix.crowds * decoys)
    bare = decoys + round(mix.deflectors * mix.lenses)
    order = rng.permutation(mix.lenses)
    shapes = Lenses.joined([part.lenses for part in drawn]).take(order[:single])
    light.append(_mimics(shapes, stamps.take(base[order[:single]]), mix.companions, side, rng))
    # Crowds lie over anything: in a cluster's field no galaxy need be at the centre.
    crowded = _of_the_same_images(stamps, base[order[single:decoys]], rng)
    light.append(_crowds(stamps.take(crowded), bands, CROWDED, side, rng))
    any_object = _of_the_same_images(stamps, base[order[bare:]], rng)
    others = np.concatenate([base[order[:single]], crowded, base[order[decoys:bare]], any_object])
    weight = np.concatenate([_natural_weights(radius, uniform), np.ones(mix.lenses, np.float32)])
    lenses = np.arange(2 * mix.lenses) < mix.lenses
    examples = LensExamples(
        stamps=stamps,
        light=np.concatenate(light),
        base=np.concatenate([base, others]),
        added=np.concatenate([np.arange(mix.lenses + decoys), np.full(mix.lenses - decoys, -1)]),
        lens=lenses,
        radius=np.concatenate([radius, np.full(mix.lenses, np.nan, np.float32)]),
        radius_weight=weight,
        electrons=electrons_of(bands, survey=survey),
    )
    return _with_stars(examples, bands, mix.stars, side, rng) if mix.stars else examples


def labelled_examples(stamps: Stamps, lens: NDArray[np.bool_], bands: str) -> LensExamples:
    """Return images with labels as examples: nothing is added to them, and no Einstein radius is known.

    Parameters
    ----------
    stamps
        The images.
    lens
        Which are lenses, shape (n,).
    bands
        Their bands.
    """
    n = len(stamps)
    return LensExamples(
        stamps=stamps,
        light=np.zeros((1, len(bands), 2, 2), np.float16),
        base=np.arange(n),
        added=np.full(n, -1, np.int64),
        lens=lens,
        radius=np.full(n, np.nan, np.float32),
        radius_weight=np.ones(n, np.float32),
        electrons=np.ones(len(bands)),
    )


def _of_the_same_images(
    stamps: Stamps, rows: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return for each of some objects any object of the same image and store."""
    _, image = np.unique(stamps.source, return_inverse=True)
    image = image * (1 + int(stamps.location.max())) + stamps.location
    order = np.argsort(image, kind="stable")
    first = np.searchsorted(image[order], image[rows])
    count = np.searchsorted(image[order], image[rows], side="right") - first
    chosen: NDArray[np.int64] = order[first + (rng.random(len(rows)) * count).astype(np.int64)]
    return chosen


def _natural_weights(radius: NDArray[np.float32], uniform: int) -> NDArray[np.float32]:
    """Return weights that make radii as frequent as those by luminosity, which follow the uniform ones.

    With them what a network says of the Einstein radius holds for lenses as they are; without, it would be
    too large, as uniform ones are. Where all are of one kind they are 1.
    """
    if not 0 < uniform < len(radius):
        return np.ones(len(radius), np.float32)
    place = radius_bin(radius)
    natural = np.bincount(place[uniform:], minlength=len(RADIUS_EDGES) - 1) / (len(radius) - uniform)
    drawn = np.bincount(place, minlength=len(RADIUS_EDGES) - 1) / len(radius)
    weights: NDArray[np.float32] = (natural[place] / drawn[place]).astype(np.float32)
    return weights


def _mimics(
    lenses: Lenses, base: Stamps, companions: float, side: int, rng: np.random.Generator
) -> NDArray[np.float16]:
    """Return the light of mimics, one for each of some lenses, shape (n, bands, side, side)."""
    light = np.empty((len(base), base.images.shape[1], side, side), np.float16)
    kinds = draw_kinds(len(base), rng, companions)
    for rows in _blocks(len(base)):
        light[rows] = _inner(draw_mimics(lenses.take(rows), kinds[rows], base.take(rows), rng), side)
    return light


def _crowds(
    base: Stamps, bands: str, stars: tuple[float, float], side: int, rng: np.random.Generator
) -> NDArray[np.float16]:
    """Return the light of crowds of stars, shape (n, bands, side, side)."""
    light = np.empty((len(base), len(bands), side, side), np.float16)
    for rows in _blocks(len(base)):
        light[rows] = _inner(draw_crowds(base.take(rows), bands, rng, stars), side)
    return light


def _with_stars(
    examples: LensExamples, bands: str, share: float, side: int, rng: np.random.Generator
) -> LensExamples:
    """Lay a few stars over a share of the examples, on what is added already or by themselves."""
    starry = rng.choice(len(examples), round(share * len(examples)), replace=False)
    stars = _crowds(examples.stamps.take(examples.base[starry]), bands, SPARSE, side, rng)
    added, bare = examples.added.copy(), examples.added[starry] < 0
    light = np.concatenate([examples.light, stars[bare]])
    light[added[starry[~bare]]] += stars[~bare]
    added[starry[bare]] = len(examples.light) + np.arange(bare.sum())
    return replace(examples, light=light, added=added)


def _blocks(count: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, count, _BLOCK):
        yield np.arange(first, min(first + _BLOCK, count))


def side_of(stamps: Stamps, extent: float) -> int:
    """Return how many pixels about the centre cover an extent in arcsec, even, at most the whole side."""
    size = stamps.images.shape[-1]
    return min(size - size % 2, 2 * round(extent / float(stamps.scale[0]) / 2))


def _inner(images: NDArray[np.float32], side: int) -> NDArray[np.float16]:
    start = (images.shape[-1] - side) // 2
    return images[:, :, start : start + side, start : start + side].astype(np.float16)
