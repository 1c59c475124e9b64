"""Strong lenses: the chance that a galaxy is one, at a stated prevalence, and its Einstein radius.

References
----------
.. [1] Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21 (correction to another prevalence).
.. [2] Platt 1999, Advances in Large Margin Classifiers, 61 (calibration by a slope and an offset).
.. [3] Guo, Pleiss, Sun & Weinberger 2017, ICML, PMLR 70, 1321 (calibration by a temperature).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.lens_columns import LENS_COLUMNS, LensFlag
from gzscale.catalog.schema import Column
from gzscale.errors import BundleError
from gzscale.tasks.base import Seen

__all__ = [
    "LENS",
    "RADIUS",
    "RADIUS_EDGES",
    "LensesTask",
    "blur",
    "calibrated_chance",
    "middle_seeing",
    "radius_bin",
    "radius_quantiles",
    "shift_prevalence",
    "tempered",
]

#: The head that has the chance of a lens at the training prevalence.
LENS = "lens"
#: The head that has the probability of each bin of the Einstein radius, given a lens.
RADIUS = "einstein_radius"
#: Edges of these bins in arcsec.
RADIUS_EDGES = np.geomspace(0.5, 4.0, 22)
#: Bands that all lens bundles use; others are not looked at for flags.
BANDS = "gri"
#: Nanomaggies of a pixel from which on SDSS treats cores as saturated (idlutils, sdss_frame_jpg).
SATURATION = 100.0
#: Total flux below minus so many sigma of a pixel is negative: five sigma of the sum of 64 x 64 pixels.
_DARK = 5 * 64
#: How much better or worse than the usual one a seeing counts at most.
_BLUR = (0.55, 1.8)
#: Where the loss of information near 0 and 1 ends, in float32.
_FLOOR = 1e-7


class LensesTask:
    """Lens score, Einstein radius, flags.

    The score is calibrated on injections: it is a probability among objects like those learnt. It ranks; how
    pure a list is, only its review tells.
    """

    name = "lenses"
    columns: tuple[Column, ...] = LENS_COLUMNS
    #: See `gzscale.tasks.base.Ranked`. The Dark Energy Survey's lists were as long.
    ranked_by, evidence, review = "lens_score", LENS, 1e-4

    def table(
        self, outputs: Mapping[str, NDArray], calibration: Mapping[str, Any], seen: Seen
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Turn chances into columns.

        Parameters
        ----------
        outputs
            ``lens``: chance at the training prevalence, shape (n, 1); ``einstein_radius``: probability of
            each bin of `RADIUS_EDGES`, shape (n, 21).
        calibration
            See `calibrated_chance` and `tempered`; ``prevalence``, the one that scores are stated at;
            ``usual_noise``, the median sigma of a pixel in the images learnt, nanomaggies, by band;
            ``saturation``, nanomaggies of a pixel from which on cores are saturated, by band, `SATURATION`
            where not stated.
        seen
            What was there to be seen.

        Returns
        -------
        values : dict[str, NDArray]
            ``lens_score``, ``einstein_radius`` and its error are masked where a flag says that there is no
            score.
        finite : NDArray[np.bool_]
            False where an output is not finite, shape (n,).

        Raises
        ------
        BundleError
            If an output or a number of the calibration is missing.
        """
        try:
            chance = np.asarray(outputs[LENS], np.float64)[:, 0]
            share = tempered(outputs[RADIUS], calibration)
            score = shift_prevalence(
                calibrated_chance(chance, calibration, middle_seeing(seen.bands, seen.seeing)),
                float(calibration["training_prevalence"]),
                float(calibration["prevalence"]),
            )
            usual = calibration["usual_noise"]
        except KeyError as error:
            raise BundleError(f"the bundle has no {error}, which lenses needs; train it again") from error
        finite = np.isfinite(chance) & np.isfinite(share).all(axis=1)
        low, radius, high = radius_quantiles(share, (0.16, 0.5, 0.84)).T
        spread = (high - low) / 2
        flags = _flags(seen, usual, calibration.get("saturation", {}))
        nameless = int(LensFlag.HALF_COVERED | LensFlag.SATURATED | LensFlag.NO_LIGHT)
        refused = (flags & nameless) > 0
        values: dict[str, NDArray] = {
            name: np.ma.masked_array(numbers.astype(np.float32), refused)
            for name, numbers in (
                ("lens_score", score),
                ("einstein_radius", radius),
                ("einstein_radius_error", spread),
            )
        }
        values["lens_flags"] = flags
        return values, finite


def calibrated_chance(
    chance: NDArray[np.floating], calibration: Mapping[str, Any], seeing: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return chances at the training prevalence, calibrated: slope x logit + offset [2]_.

    What an image's chance means depends on its seeing, which a network cannot see: in a sharp image more of
    what looks doubtful is a lens. So a term slope x ln(seeing / usual seeing) is added.

    Parameters
    ----------
    chance
        The network's, in [0, 1].
    calibration
        ``slope`` and ``offset``; and ``seeing`` with ``slope`` and ``usual``, arcsec, where it was learnt.
    seeing
        Full width at half maximum of a star in arcsec, shape of ``chance``; NaN: the usual one.

    Returns
    -------
    NDArray[np.float64]
        In (0, 1), shape of ``chance``.
    """
    safe = np.clip(np.asarray(chance, np.float64), _FLOOR, 1 - _FLOOR)
    logit = float(calibration["slope"]) * np.log(safe / (1 - safe)) + float(calibration["offset"])
    if "seeing" in calibration and seeing is not None:
        term = calibration["seeing"]
        logit = logit + float(term["slope"]) * blur(seeing, float(term["usual"]))
    return 1 / (1 + np.exp(-logit))


def blur(seeing: NDArray[np.floating], usual: float) -> NDArray[np.float64]:
    """Return ln(seeing / usual), within what a term of the seeing is stated for; 0 where it is not known.

    Parameters
    ----------
    seeing
        Arcsec, shape (n,), NaN where not known.
    usual
        Arcsec.
    """
    relative = np.asarray(seeing, np.float64) / usual
    return np.nan_to_num(np.log(np.clip(relative, *_BLUR)))


def middle_seeing(bands: str, seeing: NDArray[np.floating] | None) -> NDArray[np.float64] | None:
    """Return the median seeing of the bands that lenses are looked for in.

    Parameters
    ----------
    bands
        The B bands, one letter each.
    seeing
        Arcsec, shape (n, B), NaN where not known; None where nothing is known.

    Returns
    -------
    NDArray[np.float64] or None
        Shape (n,), NaN where no band's is known; None where nothing is.
    """
    chosen = [place for place, band in enumerate(bands) if band in BANDS]
    if seeing is None or not chosen:
        return None
    known = np.ma.masked_invalid(np.asarray(seeing, np.float64)[:, chosen])
    return np.ma.filled(np.ma.median(known, axis=1), np.nan)


def shift_prevalence(chance: NDArray[np.float64], learnt: float, stated: float) -> NDArray[np.float64]:
    """Return probabilities at another prevalence: odds times the ratio of prior odds [1]_.

    Parameters
    ----------
    chance
        Probabilities at the prevalence ``learnt``, in [0, 1].
    learnt, stated
        Shares of lenses, in (0, 1).
    """
    ratio = stated / (1 - stated) * (1 - learnt) / learnt
    shifted: NDArray[np.float64] = chance * ratio / (chance * ratio + 1 - chance)
    return shifted


def tempered(share: NDArray[np.floating], calibration: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return probabilities of the Einstein radius as wide as they should be: p^(1/T), normalised [3]_.

    Parameters
    ----------
    share
        The network's probability of each bin of `RADIUS_EDGES`, shape (n, 21).
    calibration
        ``radius_temperature``, T; 1 where not stated.

    Returns
    -------
    NDArray[np.float64]
        Shape (n, 21).
    """
    power = np.asarray(share, np.float64) ** (1 / float(calibration.get("radius_temperature", 1.0)))
    narrowed: NDArray[np.float64] = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-30)
    return narrowed


def radius_bin(radius: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the bin of each Einstein radius in arcsec; those outside belong to the first or the last."""
    place = np.searchsorted(RADIUS_EDGES, radius, side="right") - 1
    return np.clip(place, 0, len(RADIUS_EDGES) - 2).astype(np.int64)


def radius_quantiles(share: NDArray[np.float64], levels: Sequence[float]) -> NDArray[np.float64]:
    """Return quantiles of the Einstein radius in arcsec, which is uniform within each bin.

    Parameters
    ----------
    share
        Probability of each bin of `RADIUS_EDGES`, shape (n, 21).
    levels
        In [0, 1].

    Returns
    -------
    NDArray[np.float64]
        Shape (n, levels).
    """
    reached = np.concatenate([np.zeros((len(share), 1)), np.cumsum(share, axis=1)], axis=1)
    reached /= np.maximum(reached[:, -1:], 1e-30)
    found: NDArray[np.float64] = np.array([np.interp(levels, row, RADIUS_EDGES) for row in reached])
    return found.reshape(len(share), len(levels))


def _flags(seen: Seen, usual: Mapping[str, float], saturation: Mapping[str, float]) -> NDArray[np.int32]:
    flags = np.zeros(len(seen), np.int32)
    for place, band in ((seen.band(band), band) for band in BANDS):
        if place is None:
            continue
        covered = seen.coverage[:, place]
        noise = seen.noise[:, place]
        with np.errstate(invalid="ignore"):
            found = {
                LensFlag.HALF_COVERED: covered < 0.5,
                LensFlag.PARTLY_COVERED: covered < 0.95,
                LensFlag.SATURATED: seen.brightest[:, place] > saturation.get(band, SATURATION),
                LensFlag.NO_LIGHT: ~seen.measured[:, place]
                | ~(seen.brightest[:, place] > 0)
                | ~(seen.flux[:, place] > -_DARK * np.nan_to_num(noise)),
                LensFlag.NOISY: ~((noise > 0) & (noise <= 2 * usual[band])),
            }
        for flag, there in found.items():
            flags |= np.where(there, np.int32(flag), np.int32(0))
    return flags
