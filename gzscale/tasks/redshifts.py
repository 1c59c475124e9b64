"""Redshifts from the image: a PDF on the bundle's grid, the numbers that stand for it, and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.redshift_columns import REDSHIFT_COLUMNS, RedshiftFlag
from gzscale.catalog.schema import Column
from gzscale.errors import BundleError
from gzscale.tasks.base import Seen
from gzscale.tasks.redshift_pdf import cumulative, densities, recalibrate, summarise

__all__ = ["OUTPUT", "RedshiftsTask", "grid"]

#: The head that has the probability of each bin.
OUTPUT = "pdf"
#: Least part of a cutout that is measured, most of a PDF at the end of the grid, and what is the end.
COVERED, BEYOND, LAST = 0.9, 0.05, 0.02
#: A PDF is flat if its central 68 % take more than this part of the grid.
FLAT = 0.5


def grid(calibration: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the edges of a bundle's bins: ``bins`` equal ones from 0 to ``limit``.

    Raises
    ------
    BundleError
        If the bundle does not say.
    """
    try:
        return np.linspace(0.0, float(calibration["limit"]), int(calibration["bins"]) + 1)
    except KeyError as error:
        raise BundleError(f"the bundle has no {error}, which redshifts need; train it again") from error


class RedshiftsTask:
    """A redshift PDF for each object.

    Redshifts are those of galaxies: of a star or a quasar the PDF says nothing.
    """

    name = "redshifts"
    columns: tuple[Column, ...] = REDSHIFT_COLUMNS
    #: Key of the PDFs in the values of `table`; they are released in files of their own.
    distribution = "redshift_pdf"

    def edges(self, calibration: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the edges of the bins of the PDFs, shape (bins + 1,). See `grid`."""
        return grid(calibration)

    def table(
        self, outputs: Mapping[str, NDArray], calibration: Mapping[str, Any], seen: Seen
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Turn probabilities into columns.

        Parameters
        ----------
        outputs
            ``pdf``: probability of each bin, shape (n, bins).
        calibration
            ``limit`` and ``bins`` of the grid; ``temperature`` and ``pit``, see
            `gzscale.tasks.redshift_pdf.recalibrate`; ``bands``, those that the network uses;
            ``reference``, the band whose flux is held against ``flux``, the least and the largest usual one
            in nanomaggies; ``saturation``, band -> nanomaggies of a pixel.
        seen
            What the flags follow from.

        Returns
        -------
        values : dict[str, NDArray]
            Name of each of ``columns`` -> shape (n,), masked where no number is given; and
            ``redshift_pdf``: probability densities per unit of redshift, float16, shape (n, bins).
        finite : NDArray[np.bool_]
            False where an output is not finite, shape (n,).

        Raises
        ------
        BundleError
            If an output or a number of the calibration is missing.
        """
        edges = grid(calibration)
        try:
            raw = np.asarray(outputs[OUTPUT], np.float64)
            temperature, pit = float(calibration["temperature"]), calibration["pit"]
            flags, hopeless = _flags(seen, calibration)
        except KeyError as error:
            raise BundleError(f"the bundle has no {error}, which redshifts need; train it again") from error
        finite = np.isfinite(raw).all(axis=1) & (raw.sum(axis=1) > 0)
        raw = np.where(finite[:, None], raw, 1.0)
        probabilities = recalibrate(raw, temperature, pit)
        told = summarise(probabilities, edges)
        flat = told.high68 - told.low68 > FLAT * (edges[-1] - edges[0])
        last = 1 - cumulative(probabilities)[:, np.searchsorted(edges, (1 - LAST) * edges[-1])]
        flags |= np.where(flat, RedshiftFlag.FLAT_PDF, 0)
        flags |= np.where(last > BEYOND, RedshiftFlag.END_OF_GRID, 0)
        numbers = {
            "z_mode": told.mode,
            "z_mean": told.mean,
            "z_median": told.median,
            "z_low68": told.low68,
            "z_high68": told.high68,
            "z_std": told.std,
            "z_odds": told.odds,
        }
        values: dict[str, NDArray] = {
            name: np.ma.masked_array(value.astype(np.float32), mask=flat | hopeless)
            for name, value in numbers.items()
        }
        values["z_flags"] = flags
        values[self.distribution] = densities(probabilities, edges).astype(np.float16)
        return values, finite


def _flags(seen: Seen, calibration: Mapping[str, Any]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the flags that do not follow from the PDF, and for which objects no number is given."""
    bands, saturation = calibration["bands"], calibration["saturation"]
    least, largest = calibration["flux"]
    flags = np.zeros(len(seen), np.int32)
    hopeless = np.zeros(len(seen), bool)
    for band in bands:
        place = seen.band(band)
        if place is None:
            flags |= np.int32(RedshiftFlag.BAND_MISSING)
            continue
        measured, flux = seen.measured[:, place], seen.flux[:, place]
        negative = measured & ~(flux > 0)
        with np.errstate(invalid="ignore"):
            saturated = seen.brightest[:, place] > saturation[band]
        partly = measured & (seen.coverage[:, place] < COVERED)
        flags |= np.where(~measured, RedshiftFlag.BAND_MISSING, 0).astype(np.int32)
        flags |= np.where(negative, RedshiftFlag.NEGATIVE_FLUX, 0).astype(np.int32)
        flags |= np.where(saturated, RedshiftFlag.SATURATED, 0).astype(np.int32)
        flags |= np.where(partly, RedshiftFlag.PARTLY_COVERED, 0).astype(np.int32)
        if band == calibration["reference"]:
            usual = (flux >= least) & (flux <= largest)
            flags |= np.where(usual, 0, RedshiftFlag.UNUSUAL_FLUX).astype(np.int32)
            hopeless |= negative | saturated
    flags |= np.where(np.isnan(seen.extinction), RedshiftFlag.EXTINCTION_UNKNOWN, 0).astype(np.int32)
    return flags, hopeless
