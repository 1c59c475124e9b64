"""Adds lensed arcs, and light that is taken for them, to cutouts: in flux, with the noise that it brings.

The standard way to train a finder and to measure what it misses. The cutout keeps its own noise; what is
added brings the Poisson noise of its own electrons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.conditions import CAMERAS
from gzscale.sky.lens import Lenses, render_arcs

__all__ = ["Arcs", "add_light", "arc_noise", "draw_arcs", "electrons_of"]

#: What counts as visible: Collett's signal-to-noise ratio, and the least contrast in g.
VISIBLE_SIGNAL, VISIBLE_CONTRAST = 20.0, 0.4
#: Area in square arcsec over which the light of an arc is spread, for an estimate of its signal.
_ARC_AREA = 16.0


@dataclass(frozen=True)
class Arcs:
    """Lensed light without noise.

    Attributes
    ----------
    images
        Nanomaggies a pixel, float32, shape (n, bands, y, x).
    magnification
        Of all images together, shape (n,).
    magnitude
        Of all images together in each band, shape (n, bands).
    signal
        Signal-to-noise ratio in each band, the deflector's photons among the noise: of the images weighted
        by themselves, shape (n, bands).
    contrast
        Light of the images over the light that lies there already, where they are brighter than half of their
        brightest pixel, shape (n, bands).
    """

    images: NDArray[np.float32]
    magnification: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    signal: NDArray[np.float64]
    contrast: NDArray[np.float64]

    def take(self, rows: NDArray | slice) -> Arcs:
        """Return some of them."""
        return Arcs(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Arcs]) -> Arcs:
        """Return those of several in a row."""
        return cls(
            **{
                item.name: np.concatenate([getattr(part, item.name) for part in parts])
                for item in fields(cls)
            }
        )

    def visible(self, bands: str) -> NDArray[np.bool_]:
        """Tell which could be seen: a signal of 20 in one band, and enough contrast in g, shape (n,)."""
        blue = bands.index("g") if "g" in bands else 0
        return (self.signal.max(axis=1) > VISIBLE_SIGNAL) & (self.contrast[:, blue] > VISIBLE_CONTRAST)


def electrons_of(
    bands: str, given: Mapping[str, float] | None = None, survey: str = "sdss"
) -> NDArray[np.float64]:
    """Return electrons that a nanomaggy makes in each band, shape (bands,).

    Parameters
    ----------
    bands
        One letter each.
    given
        Of another camera, by band.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose camera it is where none is given.

    Raises
    ------
    ValueError
        If a band is neither given nor the survey's.
    """
    camera = CAMERAS[survey]
    known = {band: camera.electrons(band) for band in camera.gain} | dict(given or {})
    missing = [band for band in bands if band not in known]
    if missing:
        raise ValueError(f"band {missing[0]!r}: name the electrons that a nanomaggy makes in it")
    return np.array([known[band] for band in bands])


def arc_noise(noise: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the flux that is one sigma over the area of an arc in each cutout, shape (n, bands).

    Parameters
    ----------
    noise
        Sigma of a pixel in nanomaggies, shape (n, bands).
    scale
        Arcsec a pixel, shape (n,).
    """
    over_area: NDArray[np.float64] = np.asarray(noise, np.float64) * (np.sqrt(_ARC_AREA) / scale)[:, None]
    return over_area


def draw_arcs(
    lenses: Lenses,
    images: NDArray[np.floating],
    seeing: NDArray[np.float64],
    scale: NDArray[np.float64],
    noise: NDArray[np.floating],
    electrons: NDArray[np.float64],
) -> Arcs:
    """Draw lensed sources for some cutouts, and say how well they show.

    Parameters
    ----------
    lenses
        One for each cutout, n.
    images
        The cutouts: nanomaggies a pixel, shape (n, bands, y, x), NaN where not measured.
    seeing
        Full width at half maximum of a star in arcsec, shape (n, bands).
    scale
        Arcsec a pixel, shape (n,).
    noise
        Sigma of a pixel in nanomaggies, shape (n, bands).
    electrons
        Electrons a nanomaggy, shape (bands,).
    """
    arcs, magnification = render_arcs(lenses, seeing, images.shape[-1], scale)
    behind = np.clip(np.nan_to_num(images.astype(np.float32)), 0, None)
    with np.errstate(divide="ignore"):
        magnitude = 22.5 - 2.5 * np.log10(arcs.sum(axis=(2, 3), dtype=np.float64))
    variance = np.square(noise)[:, :, None, None] + behind / electrons[:, None, None]
    signal = np.sqrt((np.square(arcs) / np.maximum(variance, 1e-12)).sum(axis=(2, 3)))
    clear = arcs > arcs.max(axis=(2, 3), keepdims=True) / 2
    contrast = (arcs * clear).sum(axis=(2, 3)) / np.maximum((behind * clear).sum(axis=(2, 3)), 1e-6)
    return Arcs(arcs, magnification, magnitude, signal, contrast)


def add_light(
    images: NDArray[np.floating],
    light: NDArray[np.float32],
    electrons: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Add light to cutouts with the Poisson noise of its electrons.

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, y, x); NaN stays NaN.
    light
        What is added, same shape, 0 or more but for rounding.
    electrons
        Electrons a nanomaggy, shape (bands,).
    rng
        The source of chance.

    Returns
    -------
    NDArray[np.float32]
        Same shape.
    """
    gain = electrons[:, None, None]
    counts = rng.poisson(np.clip(light, 0, None) * gain)
    return images.astype(np.float32) + (counts / gain).astype(np.float32)
