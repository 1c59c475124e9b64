"""What is done without a network: colour and an arc filter, after RingFinder.

See Gavazzi et al. 2014, ApJ 785, 144. The red light of the deflector is taken out of g by means of i, scaled
to its colour; half of what is symmetric about the centre goes with it. Of what is left, the clearest blue
piece counts by its signal-to-noise ratio and by how much longer it is around the centre than along the
radius.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

__all__ = ["arc_filter"]

#: Radii in arcsec: of the core that the colour is taken from, and of the annulus that arcs are looked for in.
_CORE, _ANNULUS = 1.2, (0.8, 5.0)
#: Smoothing in pixels, and signal-to-noise ratio of a smoothed pixel that belongs to a piece.
_SMOOTHING, _THRESHOLD = 1.0, 2.5
#: A galaxy this red in g-i scores fully; one bluer than the first not at all (a passive galaxy at z > 0.1).
_COLOURS = (0.6, 1.3)


def arc_filter(
    images: NDArray[np.floating], bands: str, scale: NDArray[np.float64], noise: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Score cutouts by their blue arcs around red centres.

    Parameters
    ----------
    images
        Nanomaggies a pixel, shape (n, bands, y, x); NaN counts as 0.
    bands
        One letter each, g and i among them.
    scale
        Arcsec a pixel, shape (n,).
    noise
        Sigma of a pixel in nanomaggies, shape (n, bands).

    Returns
    -------
    NDArray[np.float64]
        Shape (n,), 0 or more; more is likelier a lens.
    """
    blue, red = bands.index("g"), bands.index("i")
    scores = np.zeros(len(images))
    for row in range(len(images)):
        pair = np.nan_to_num(images[row, [blue, red]].astype(np.float64))
        sigma = np.maximum(noise[row, [blue, red]].astype(np.float64), 1e-9)
        scores[row] = _score(pair[0], pair[1], float(sigma[0]), float(sigma[1]), float(scale[row]))
    return scores


def _score(blue: NDArray, red: NDArray, blue_noise: float, red_noise: float, scale: float) -> float:
    size = blue.shape[0]
    axis = (np.arange(size) - (size - 1) / 2) * scale
    radius = np.hypot(axis[:, None], axis[None, :])
    core = radius < _CORE
    light = blue[core].sum(), red[core].sum()
    if min(light) <= 0:
        return 0.0
    ratio = light[0] / light[1]
    residual = blue - ratio * red
    sigma = np.hypot(blue_noise, ratio * red_noise)
    # What the point-symmetric part has is the galaxy's own: only the brighter of two opposite sides is kept.
    residual = residual - np.minimum(residual, residual[::-1, ::-1]).clip(min=0) / 2
    smoothed = gaussian_filter(residual, _SMOOTHING)
    # The noise of the mean over a Gaussian of that width.
    clear = smoothed / (sigma / (2 * np.sqrt(np.pi) * _SMOOTHING))
    inside = (radius > _ANNULUS[0]) & (radius < _ANNULUS[1])
    pieces, count = label((clear > _THRESHOLD) & inside, np.ones((3, 3)))
    best = max((_piece(pieces == k, clear, axis, scale) for k in range(1, count + 1)), default=0.0)
    colour = -2.5 * np.log10(ratio)
    return best * float(np.clip((colour - _COLOURS[0]) / (_COLOURS[1] - _COLOURS[0]), 0, 1))


def _piece(where: NDArray[np.bool_], clear: NDArray, axis: NDArray, scale: float) -> float:
    """Return a piece's signal-to-noise ratio times the square root of its length over its width."""
    row, column = np.nonzero(where)
    weight = clear[where]
    x, y = axis[column], axis[row]
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    centre = np.sum(weight * radius) / weight.sum()
    mean = np.angle(np.sum(weight * np.exp(1j * azimuth)))
    along = np.sum(weight * (centre * np.angle(np.exp(1j * (azimuth - mean)))) ** 2) / weight.sum()
    across = np.sum(weight * (radius - centre) ** 2) / weight.sum()
    floor = scale**2 / 12
    return float(np.sqrt(np.sum(weight**2)) * ((along + floor) / (across + floor)) ** 0.25)
