"""A simulated sample selected like SDSS's spectroscopic galaxies, and its colours beside the real ones.

The table was selected by u < 19.6 and g < 20 (model magnitudes, not dereddened). Nearly all of its galaxies
are of the main sample, Petrosian r < 17.77; in its model magnitudes that is r < 18, beyond which are 80,
mostly active nuclei of other programs, left out here. The simulated galaxies get Galactic extinction and
the errors of SDSS's photometry, pass the same three limits, and
are weighted to the real distribution of redshift (bins of 0.02) and r (bins of 0.25 mag).

``python tests/real/specz_sample.py TABLE PNG`` draws the comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsRegressor

from gzscale.sky import camera, population
from gzscale.sky.spectra import FILTERS

COLOURS = ("ug", "gr", "ri", "iz")
LIMITS = {"u": 19.6, "g": 20.0, "r": 18.0}
BIN, LEAST = 0.02, 50


def real_galaxies(path):
    table = pd.read_csv(path)
    galaxies = table[(table["class"] == "GALAXY") & (table.r < LIMITS["r"])]
    assert (galaxies.u < LIMITS["u"]).all()
    assert (galaxies.g < LIMITS["g"]).all()
    return galaxies.reset_index(drop=True)


def simulated_galaxies(count, seed):
    """Galaxies with SDSS's photometric errors, after the table's limits."""
    rng = np.random.default_rng(seed)
    kind = population.draw_kinds(count, rng)
    magnitude = population.draw_magnitudes(count, rng, (12.5, 18.8), 0.4)
    drawn = population.draw_objects(kind, magnitude, "sdss", rng)
    flux = sum(drawn[f"flux_{body}"] for body in population.BODIES)
    reddening = np.minimum(np.exp(rng.normal(np.log(0.03), 0.6, count)), 0.3)
    flux = flux * 10 ** (-0.4 * reddening[:, None] * np.array(FILTERS["sdss"].extinction))
    flux = flux + catalog_error(flux, drawn["half_light_radius"]) * rng.standard_normal(flux.shape)
    table = pd.DataFrame(22.5 - 2.5 * np.log10(np.maximum(flux, 1e-3)), columns=list("ugriz"))
    table["redshift"], table["kind"] = drawn["redshift"], kind
    inside = np.all([table[band] < limit for band, limit in LIMITS.items()], axis=0)
    return table[inside].reset_index(drop=True)


def catalog_error(flux, radius):
    """Error of a model flux, nanomaggies: photons of an effective area, and the calibration.

    The area is that of optimal weights for a Gaussian of the same size after seeing, 4 pi sigma^2; relative
    errors that do not fall with flux are those of repeated observations (Padmanabhan et al. 2008, ApJ 674,
    1217: 1 % in griz, 2 % in u), with half as much again for what the model does not fit.
    """
    bands = "ugriz"
    seeing, sky, unit = (
        np.array([table[band] for band in bands])
        for table in (camera.SEEING, camera.SKY_COUNTS, camera.NANOMAGGIES_PER_COUNT)
    )
    gain, dark = (
        np.array([table[band][2] for band in bands]) for table in (camera.GAIN, camera.DARK_VARIANCE)
    )
    width2 = (0.75 * radius[:, None]) ** 2 + (seeing / 2.355) ** 2
    background = 4 * np.pi * width2 / 0.396**2 * (sky / gain + dark) * unit**2
    floor = np.array([0.03, 0.015, 0.015, 0.015, 0.015]) * flux
    return np.sqrt(background + np.maximum(flux, 0) * unit / gain + floor**2)


def bins_of(real):
    """The redshift bins up to the last one that has enough galaxies."""
    counts = np.bincount((real.redshift[real.redshift >= 0] / BIN).astype(int))
    return range(int(np.flatnonzero(counts >= LEAST).max()) + 1)


def weights(simulated, real):
    """Weights that give the simulated galaxies the real distribution of (redshift, r)."""

    def cell(table):
        return np.floor(table.redshift / BIN) * 1000 + np.floor(table.r / 0.25)

    wanted, there = cell(real).value_counts(), cell(simulated).value_counts()
    ratio = (wanted / there).fillna(0.0)
    return cell(simulated).map(ratio).to_numpy()


def weighted_median(values, weight):
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def medians(table, weight, number):
    """Median colours in a redshift bin, and their scatters by 1.4826 of the median absolute deviation."""
    here = ((table.redshift >= number * BIN) & (table.redshift < (number + 1) * BIN)).to_numpy()
    out = {}
    for blue, red in COLOURS:
        colour = (table[blue] - table[red]).to_numpy()[here]
        middle = weighted_median(colour, weight[here])
        out[blue + red] = middle, 1.4826 * weighted_median(np.abs(colour - middle), weight[here])
    return out


def colours_only(table, folds=5, neighbours=20, seed=0):
    """sigma_MAD, bias and outlier fraction of redshifts by nearest neighbours in four colours and r."""
    features = np.stack([*(table[b] - table[r] for b, r in COLOURS), table.r], axis=1)
    middle = np.median(features, axis=0)
    features = (features - middle) / np.median(np.abs(features - middle), axis=0)
    redshift = table.redshift.to_numpy()
    fold = np.random.default_rng(seed).integers(0, folds, len(table))
    found = np.empty(len(table))
    for part in range(folds):
        model = KNeighborsRegressor(neighbours, weights="distance")
        found[fold == part] = model.fit(features[fold != part], redshift[fold != part]).predict(
            features[fold == part]
        )
    error = (found - redshift) / (1 + redshift)
    sigma = 1.4826 * np.median(np.abs(error - np.median(error)))
    return float(sigma), float(error.mean()), float((np.abs(error) > 0.05).mean())


def resampled(simulated, weight, count, seed):
    chosen = np.random.default_rng(seed).choice(len(simulated), count, replace=False, p=weight / weight.sum())
    return simulated.iloc[chosen].reset_index(drop=True)


def plot(real, simulated, weight, path):
    """Median and scatter of the colours against redshift, real and simulated, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    numbers = np.array(bins_of(real))
    middle = (numbers + 0.5) * BIN
    for axis, colour in zip(axes.flat, COLOURS, strict=True):
        axis.plot(real.redshift, real[colour[0]] - real[colour[1]], ".", ms=1, color="0.75", zorder=0)
        for name, table, weight_of, shade, step in (
            ("SDSS", real, np.ones(len(real)), "black", -0.001),
            ("simulated", simulated, weight, "tab:red", 0.001),
        ):
            found = [medians(table, weight_of, number)[colour] for number in numbers]
            centre, spread = np.array(found).T
            axis.errorbar(middle + step, centre, spread, fmt="o-", ms=4, capsize=2, color=shade, label=name)
        axis.set_ylabel(f"{colour[0]} - {colour[1]}  [mag]")
        centre = np.median(real[colour[0]] - real[colour[1]])
        axis.set(xlim=(0, middle[-1] + BIN / 2), ylim=(centre - 0.9, centre + 0.9))
    for axis in axes[1]:
        axis.set_xlabel("redshift")
    axes[0, 0].legend()
    figure.suptitle("Median colours in redshift bins, bars: 1.4826 MAD")
    figure.savefig(path, dpi=110)


def main(path, png):
    real, simulated = real_galaxies(path), simulated_galaxies(200_000, 1)
    weight = weights(simulated, real)
    for number in bins_of(real):
        ours, theirs = medians(simulated, weight, number), medians(real, np.ones(len(real)), number)
        cells = [
            f"{c}: {ours[c][0] - theirs[c][0]:+.3f} ({ours[c][1]:.3f}/{theirs[c][1]:.3f})" for c in COLOURS
        ]
        print(f"z {number * BIN:.2f}  " + "  ".join(cells))
    print("colours-only, simulated", colours_only(resampled(simulated, weight, len(real), 2)))
    print("colours-only, real     ", colours_only(real))
    plot(real, simulated, weight, Path(png))


if __name__ == "__main__":
    main(*sys.argv[1:])
