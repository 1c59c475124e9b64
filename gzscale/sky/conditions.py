"""What changes from one field of a survey to the next: seeing, sky, zero point, orientation, dust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, kv

from gzscale.errors import ConfigError
from gzscale.sky import camera, rubin_camera
from gzscale.sky.rubin_grid import PIXEL_SCALE
from gzscale.surveys.rubin_coadd import NANOJANSKY

__all__ = ["CAMERAS", "Camera", "Conditions", "draw_conditions"]

#: Moffat index of the wings (Racine 1996, PASP 108, 699).
_WINGS = (2.8, 4.2)
#: E(B-V) of Schlegel, Finkbeiner & Davis 1998 over SDSS's footprint is roughly log-normal: median, scatter
#: (ln); beyond the largest no survey of galaxies looks.
_REDDENING, _REDDENING_SCATTER, _MOST_REDDENING = 0.030, 0.60, 0.30


@dataclass(frozen=True, slots=True)
class Scatter:
    """Widths of log-normal distributions, natural logarithms.

    Attributes
    ----------
    seeing, band_seeing
        Of a field's seeing in all bands together, and of each band's beside it.
    sky
        Of the sky's counts, each band for itself.
    zero_point
        Of nanomaggies a count, each band for itself.
    """

    seeing: float
    band_seeing: float
    sky: float
    zero_point: float


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
    scatter
        How conditions differ from field to field.
    footprint
        Right ascensions and declinations of fields' centres: least and largest, degrees.
    column_angles
        Position angles of growing columns: least and largest, degrees.
    shift
        How far the bands' grids lie apart at most, pixels, either way.
    compressed
        Whether pixels are stored with ten binary digits.
    """

    pixel_scale: float
    seeing: Mapping[str, float]
    sky: Mapping[str, float]
    unit: Mapping[str, float]
    gain: Mapping[str, tuple[float, ...]]
    dark: Mapping[str, tuple[float, ...]]
    saturation: float
    scatter: Scatter
    footprint: tuple[tuple[float, float], tuple[float, float]]
    column_angles: tuple[float, float]
    shift: float
    compressed: bool

    def electrons(self, band: str) -> float:
        """Return the electrons that a nanomaggy makes in a band, the mean over the CCDs."""
        return float(np.mean(self.gain[band])) / self.unit[band]


def _rubin() -> Camera:
    """Return the camera of `gzscale.sky.rubin_camera`, a year's coadd: a count is an electron of all visits.

    The sky has the electrons whose Poisson noise is the coadd's, read noise included, so that the depth of a
    point source comes back. A coadd's seeing is the mean of several visits' (6 in u, 18 in r), so that it
    scatters less than theirs; depths scatter by 0.14 mag, since patches get more visits or fewer. How much is
    our choice, not a measurement. Bands share one grid, whose columns grow to the west.
    """
    bands = rubin_camera.BANDS
    unit = {band: NANOJANSKY / rubin_camera.electrons(band) for band in bands}
    sigma = {band: rubin_camera.background_sigma(band) * NANOJANSKY for band in bands}
    return Camera(
        PIXEL_SCALE,
        rubin_camera.SEEING,
        {band: (sigma[band] / unit[band]) ** 2 for band in bands},
        unit,
        dict.fromkeys(bands, (1.0,)),
        dict.fromkeys(bands, (0.0,)),
        np.inf,
        Scatter(seeing=0.05, band_seeing=0.05, sky=0.26, zero_point=0.02),
        footprint=((1.0, 359.0), (-65.0, 5.0)),
        column_angles=(268.0, 272.0),
        shift=0.0,
        compressed=False,
    )


CAMERAS: Mapping[str, Camera] = {
    # Scatters of seeing and sky: about the widths in the Data Release 7 paper (Abazajian et al. 2009, ApJS
    # 182, 543).
    "sdss": Camera(
        0.396,
        camera.SEEING,
        camera.SKY_COUNTS,
        camera.NANOMAGGIES_PER_COUNT,
        camera.GAIN,
        camera.DARK_VARIANCE,
        camera.SATURATION,
        Scatter(seeing=0.11, band_seeing=0.02, sky=0.15, zero_point=0.04),
        footprint=((110.0, 260.0), (-5.0, 65.0)),
        column_angles=(0.0, 360.0),
        shift=0.5,
        compressed=True,
    ),
    "rubin": _rubin(),
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
    compressed
        Whether pixels are stored with ten binary digits.
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
    compressed: bool

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


def draw_conditions(
    survey: str,
    bands: str,
    rng: np.random.Generator,
    seeing: float = 1.0,
    seeing_scatter: float | None = None,
) -> Conditions:
    """Draw one field's conditions.

    Parameters
    ----------
    survey
        A key of `CAMERAS`.
    bands
        One letter a band.
    rng
        The generator.
    seeing
        Factor of the camera's median seeing.
    seeing_scatter
        In place of the camera's own.

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
    scatter = instrument.scatter
    spread = scatter.seeing if seeing_scatter is None else seeing_scatter
    common = seeing * np.exp(spread * rng.standard_normal())
    reddening = _REDDENING * np.exp(_REDDENING_SCATTER * rng.standard_normal())
    return Conditions(
        seeing=of(instrument.seeing) * common * np.exp(scatter.band_seeing * rng.standard_normal(count)),
        wings=float(rng.uniform(*_WINGS)),
        sky=of(instrument.sky) * np.exp(scatter.sky * rng.standard_normal(count)),
        unit=of(instrument.unit) * np.exp(scatter.zero_point * rng.standard_normal(count)),
        gain=np.array([instrument.gain[band][ccd] for band in bands]),
        dark=np.array([instrument.dark[band][ccd] for band in bands]),
        saturation=instrument.saturation,
        pixel_scale=instrument.pixel_scale,
        shifts=rng.uniform(-instrument.shift, instrument.shift, (count, 2)),
        column_angle=float(rng.uniform(*instrument.column_angles)),
        centre=(float(rng.uniform(*instrument.footprint[0])), float(rng.uniform(*instrument.footprint[1]))),
        reddening=float(min(reddening, _MOST_REDDENING)),
        compressed=instrument.compressed,
    )
