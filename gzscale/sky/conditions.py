"""What changes from one field of a survey to the next: seeing, sky, zero point, orientation, dust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, kv

from gzscale.errors import ConfigError
from gzscale.sky import camera

__all__ = ["CAMERAS", "Camera", "Conditions", "draw_conditions"]

#: Log-normal scatters: of seeing and sky over SDSS's fields (about the widths in the Data Release 7 paper,
#: Abazajian et al. 2009, ApJS 182, 543), of seeing from band to band, of the zero point.
_SEEING_SCATTER, _BAND_SEEING_SCATTER, _SKY_SCATTER, _ZERO_POINT_SCATTER = 0.11, 0.02, 0.15, 0.04
#: Moffat index of the wings (Racine 1996, PASP 108, 699).
_WINGS = (2.8, 4.2)
#: E(B-V) of Schlegel, Finkbeiner & Davis 1998 over SDSS's footprint is roughly log-normal: median, scatter
#: (ln); beyond the largest no survey of galaxies looks.
_REDDENING, _REDDENING_SCATTER, _MOST_REDDENING = 0.030, 0.60, 0.30


@dataclass(frozen=True, slots=True)
class Camera:
    """A survey's camera; each mapping has one value a band.

    Attributes
    ----------
    pixel_scale
        Arcsec a pixel.
    seeing
        Median full width at half maximum, arcsec.
    sky
        Counts a pixel.
    unit
        Nanomaggies a count.
    gain, dark
        Electrons a count and variance of read noise and dark current in counts squared, one a CCD.
    saturation
        Largest count.
    """

    pixel_scale: float
    seeing: Mapping[str, float]
    sky: Mapping[str, float]
    unit: Mapping[str, float]
    gain: Mapping[str, tuple[float, ...]]
    dark: Mapping[str, tuple[float, ...]]
    saturation: float


CAMERAS: Mapping[str, Camera] = {
    "sdss": Camera(
        0.396,
        camera.SEEING,
        camera.SKY_COUNTS,
        camera.NANOMAGGIES_PER_COUNT,
        camera.GAIN,
        camera.DARK_VARIANCE,
        camera.SATURATION,
    )
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """One field's; arrays have one value a band.

    Attributes
    ----------
    seeing
        Full width at half maximum, arcsec.
    wings
        Moffat index.
    sky
        Counts a pixel.
    unit
        Nanomaggies a count.
    gain, dark
        As in `Camera`, of the CCD that took the field.
    saturation
        Largest count.
    pixel_scale
        Arcsec a pixel.
    shifts
        Where each band's pixel grid lies against the first's, columns and rows, shape (bands, 2).
    column_angle
        Position angle of growing columns, degrees.
    centre
        Right ascension and declination of the field's centre, degrees.
    reddening
        E(B-V) at the centre, magnitudes.
    """

    seeing: NDArray[np.float64]
    wings: float
    sky: NDArray[np.float64]
    unit: NDArray[np.float64]
    gain: NDArray[np.float64]
    dark: NDArray[np.float64]
    saturation: float
    pixel_scale: float
    shifts: NDArray[np.float64]
    column_angle: float
    centre: tuple[float, float]
    reddening: float

    @property
    def background_sigma(self) -> NDArray[np.float64]:
        """Standard deviation of the background, nanomaggies a pixel, shape (bands,)."""
        return np.sqrt(self.sky / self.gain + self.dark) * self.unit

    def seeing_transform(self, band: int, side: int) -> NDArray[np.float64]:
        """Return the transform of a band's seeing and pixel, shape (side, side/2 + 1), as `numpy.fft.rfft2`.

        A Moffat profile's is (x/2)^(b-1) 2 K_(b-1)(x) / Gamma(b-1) with x = k r_d (Trujillo et al. 2001,
        MNRAS 328, 977, equation 6); a square pixel's is a product of sinc.
        """
        width = self.seeing[band] / self.pixel_scale / (2 * np.sqrt(2 ** (1 / self.wings) - 1))
        rows, columns = np.fft.fftfreq(side), np.fft.rfftfreq(side)
        wave = 2 * np.pi * width * np.hypot(rows[:, None], columns[None, :])
        order = self.wings - 1
        x = np.linspace(1e-6, wave.max(), 512)
        profile = 2 * (x / 2) ** order * kv(order, x) / gamma(order)
        return np.interp(wave, x, profile) * np.sinc(rows)[:, None] * np.sinc(columns)[None, :]


def draw_conditions(survey: str, bands: str, rng: np.random.Generator) -> Conditions:
    """Draw one field's conditions.

    Parameters
    ----------
    survey
        A key of `CAMERAS`.
    bands
        One letter a band.
    rng
        The generator.

    Raises
    ------
    ConfigError
        If the survey's camera is not known.
    """
    if survey not in CAMERAS:
        raise ConfigError(f"no camera of survey {survey!r}; there are those of {', '.join(CAMERAS)}")
    instrument, count = CAMERAS[survey], len(bands)

    def of(values: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([values[band] for band in bands])

    ccd = int(rng.integers(len(instrument.gain[bands[0]])))
    common = np.exp(_SEEING_SCATTER * rng.standard_normal())
    reddening = _REDDENING * np.exp(_REDDENING_SCATTER * rng.standard_normal())
    return Conditions(
        seeing=of(instrument.seeing) * common * np.exp(_BAND_SEEING_SCATTER * rng.standard_normal(count)),
        wings=float(rng.uniform(*_WINGS)),
        sky=of(instrument.sky) * np.exp(_SKY_SCATTER * rng.standard_normal(count)),
        unit=of(instrument.unit) * np.exp(_ZERO_POINT_SCATTER * rng.standard_normal(count)),
        gain=np.array([instrument.gain[band][ccd] for band in bands]),
        dark=np.array([instrument.dark[band][ccd] for band in bands]),
        saturation=instrument.saturation,
        pixel_scale=instrument.pixel_scale,
        shifts=rng.uniform(-0.5, 0.5, (count, 2)),
        column_angle=float(rng.uniform(0, 360)),
        centre=(float(rng.uniform(110, 260)), float(rng.uniform(-5, 65))),
        reddening=float(min(reddening, _MOST_REDDENING)),
    )
