"""What a network was shown of each object, in numbers from which a task makes its flags."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.models.observation import Observation

__all__ = ["Seen", "look"]

#: Objects that are looked at together: their pixels are held once more, in float32.
_BLOCK = 64


@dataclass(frozen=True)
class Seen:
    """What was there to be seen of n objects in B bands.

    Attributes
    ----------
    bands
        The bands, one letter each.
    measured
        Whether the band has a pixel that was measured and is not 0, bool, shape (n, B).
    coverage
        Fraction of measured pixels, float32, shape (n, B).
    noise
        Background sigma of a pixel in nanomaggies, float32, shape (n, B); NaN where not known.
    flux
        Sum of the measured pixels in nanomaggies, not corrected for extinction, float32, shape (n, B).
    brightest
        Brightest pixel in nanomaggies, float32, shape (n, B); NaN where none was measured.
    extinction
        E(B-V) in magnitudes, float32, shape (n,); NaN where not known.
    seeing
        Full width at half maximum of a star in arcsec, float32, shape (n, B), NaN where not known; None where
        nothing is known.
    """

    bands: str
    measured: NDArray[np.bool_]
    coverage: NDArray[np.float32]
    noise: NDArray[np.float32]
    flux: NDArray[np.float32]
    brightest: NDArray[np.float32]
    extinction: NDArray[np.float32]
    seeing: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.extinction)

    def take(self, rows: NDArray[np.integer] | slice) -> Seen:
        """Return what was seen of some of the objects, in that order."""
        return Seen(
            self.bands,
            self.measured[rows],
            self.coverage[rows],
            self.noise[rows],
            self.flux[rows],
            self.brightest[rows],
            self.extinction[rows],
            None if self.seeing is None else self.seeing[rows],
        )

    def band(self, letter: str) -> int | None:
        """Return the column of a band, None where the observation lacks it."""
        return self.bands.index(letter) if letter in self.bands else None


def look(observation: Observation) -> Seen:
    """Sum up an observation, a block of objects at a time."""
    shape = (len(observation), len(observation.bands))
    coverage, flux, brightest = (np.zeros(shape, np.float32) for _ in range(3))
    measured = np.zeros(shape, bool)
    for start in range(0, len(observation), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = observation.images[rows].astype(np.float32)
        known = np.isfinite(block)
        coverage[rows] = known.mean(axis=(2, 3))
        measured[rows] = (known & (block != 0)).any(axis=(2, 3))
        block[~known] = np.nan
        flux[rows] = np.nansum(block, axis=(2, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a band without a pixel: NaN
            brightest[rows] = np.nanmax(block, axis=(2, 3))
    return Seen(
        observation.bands,
        measured,
        coverage,
        observation.noise,
        flux,
        brightest,
        observation.extinction,
        observation.seeing,
    )
