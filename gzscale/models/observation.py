"""What was measured of some objects: their images and what has to be known to read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Observation", "background_noise"]

#: Pixels along each edge of a cutout that are taken for sky.
_RIM = 6


@dataclass(frozen=True)
class Observation:
    """Images of n objects in the bands of a survey, in units of flux.

    Attributes
    ----------
    images
        Nanomaggies a pixel, any float dtype, shape (n, B, y, x); NaN where there is no measurement.
        Not corrected for extinction.
    bands
        The B bands, one letter each.
    scale
        Arcsec a pixel, float64, shape (n,).
    noise
        Background sigma of a pixel in nanomaggies, float32, shape (n, B); NaN where not known.
    extinction
        E(B-V) towards each object in magnitudes, float32, shape (n,); NaN where not known.
    seeing
        Full width at half maximum of a star in arcsec, float32, shape (n, B), NaN where not known; None where
        nothing is known.
    """

    images: NDArray[np.floating]
    bands: str
    scale: NDArray[np.float64]
    noise: NDArray[np.float32]
    extinction: NDArray[np.float32]
    seeing: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        images: NDArray[np.floating],
        bands: str,
        scale: NDArray[np.floating],
        noise: NDArray[np.floating] | None = None,
        extinction: NDArray[np.floating] | None = None,
        seeing: NDArray[np.floating] | None = None,
    ) -> Observation:
        """Return an observation whose noise, extinction or seeing need not be known."""
        count = len(images)
        if noise is None:
            noise = np.full((count, len(bands)), np.nan)
        if extinction is None:
            extinction = np.full(count, np.nan)
        return cls(
            images,
            bands,
            np.asarray(scale, np.float64),
            np.asarray(noise, np.float32),
            np.asarray(extinction, np.float32),
            None if seeing is None else np.asarray(seeing, np.float32),
        )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.integer] | slice) -> Observation:
        """Return the observation of some of the objects, in that order."""
        seeing = None if self.seeing is None else self.seeing[rows]
        return Observation(
            self.images[rows], self.bands, self.scale[rows], self.noise[rows], self.extinction[rows], seeing
        )


def background_noise(images: NDArray[np.floating]) -> NDArray[np.float32]:
    """Estimate the background sigma of a pixel from the rim of each cutout.

    1.4826 times the median absolute deviation of the pixels within 6 of an edge: for cutouts whose
    maker does not say it, and in which the object does not fill the rim.

    Parameters
    ----------
    images
        Shape (n, B, y, x), NaN where there is no measurement.

    Returns
    -------
    NDArray[np.float32]
        Shape (n, B), in the unit of ``images``; NaN where the rim has no measurement.
    """
    rim = np.ones(images.shape[2:], bool)
    rim[_RIM:-_RIM, _RIM:-_RIM] = False
    values = np.ma.masked_invalid(images[:, :, rim].astype(np.float32))
    middle = np.ma.median(values, axis=2, keepdims=True)
    spread = 1.4826 * np.ma.median(np.ma.abs(values - middle), axis=2)
    return np.ma.filled(spread, np.nan).astype(np.float32)
