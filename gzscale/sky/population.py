"""Who lives in the synthetic sky: galaxies of many shapes and stars, with the truth about each.

The numbers are plausible, not a fit: they follow published relations closely enough
that magnitude, colour, redshift, size and shape hang together as in a real survey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.sky import scan

__all__ = ["BODIES", "KINDS", "OBJECTS_PER_FIELD", "draw"]

#: Catalog objects of a field; a real one has some 60 galaxies this bright.
OBJECTS_PER_FIELD = 250
#: Stars of a field that are in no galaxy catalog.
FIELD_STARS = 60
#: Share of catalog entries that are stars: what a real galaxy sample is polluted by.
STAR_SHARE = 0.04

#: Kinds of galaxies and their shares; the order is part of a seed's meaning.
KINDS = {
    "elliptical": 0.28,
    "lenticular": 0.14,
    "spiral": 0.24,
    "barred_spiral": 0.10,
    "edge_on": 0.12,
    "irregular": 0.06,
    "merger": 0.06,
}
#: The parts of which an object is made; each has one shape and one colour.
BODIES = ("bulge", "disk", "bar", "arms", "companion")

#: Range of r and slope of log10 N(r). The real sky has 0.6 a magnitude (Yasuda et al. 2001,
#: AJ 122, 1104); a flatter one makes more of those whose shape can be seen.
MAGNITUDES, SLOPE = (14.0, 19.0), 0.25
#: u-g, g-r, r-i, i-z of old, mixed and young stars: E, Sbc and Im of Fukugita et al. 1995 (PASP 107, 945).
_COLOURS = {
    "bulge": (1.75, 0.77, 0.39, 0.27),
    "bar": (1.65, 0.74, 0.38, 0.26),
    "disk": (1.35, 0.58, 0.32, 0.20),
    "companion": (1.45, 0.64, 0.34, 0.22),
    "arms": (1.05, 0.30, 0.16, 0.06),
}
#: Reddening with redshift, magnitudes per unit z, of a passive galaxy's colours (Eisenstein et al. 2001,
#: AJ 122, 2267, figure 4; valid to z of 0.35).
_REDDENING = (0.6, 2.2, 0.6, 0.5)
#: The stellar locus: g-r and with it u-g, r-i, i-z (Covey et al. 2007, AJ 134, 2398, table 3).
_LOCUS = np.array(
    [
        [0.25, 0.45, 0.70, 1.00, 1.30, 1.42],
        [0.95, 1.17, 1.65, 2.15, 2.50, 2.55],
        [0.07, 0.15, 0.25, 0.39, 0.65, 1.30],
        [0.01, 0.06, 0.14, 0.23, 0.38, 0.72],
    ]
)


def draw(objects: int, seed: int, per_field: int = OBJECTS_PER_FIELD) -> pa.Table:
    """Draw the catalog's objects and the stars among them.

    Parameters
    ----------
    objects
        Number of catalog objects.
    seed
        The same seed and numbers give the same table.
    per_field
        Catalog objects of a field, at most.

    Returns
    -------
    pa.Table
        One row an object, sorted by ``object_id``, the truth about it; units in the fields' metadata.
        ``flux_<body>`` holds nanomaggies in ugriz; ``catalogued`` tells catalog objects from field stars.
    """
    fields = scan.exposures(-(-objects // per_field))
    rng = np.random.Generator(np.random.PCG64([seed, objects]))
    total = objects + FIELD_STARS * len(fields)
    catalogued = np.arange(total) < objects
    kind = rng.choice(list(KINDS), total, p=list(KINDS.values()))
    kind[rng.random(total) < STAR_SHARE] = "star"
    kind[~catalogued] = "star"
    truth: dict[str, NDArray[Any]] = {"catalogued": catalogued, "kind": kind}
    truth |= _distances(kind, rng)
    truth |= _shapes(truth, rng)
    truth |= _fluxes(truth, rng)
    truth |= _places(fields, total, rng)
    order = np.argsort(truth["object_id"])
    return _table({name: values[order] for name, values in truth.items()})


def _distances(kind: NDArray, rng: np.random.Generator) -> dict[str, NDArray]:
    """Draw apparent magnitude, luminosity, and with them redshift and size."""
    low, high = MAGNITUDES
    share = rng.random(kind.size)
    mag = low + np.log10(1 + share * (10 ** (SLOPE * (high - low)) - 1)) / SLOPE
    early = np.isin(kind, ["elliptical", "lenticular"])
    # About the characteristic luminosity of the SDSS luminosity function (Blanton et al. 2003, ApJ 592, 819).
    luminosity = rng.normal(np.where(early, -21.4, -20.9), 0.8)
    z_grid = np.linspace(1e-4, 0.5, 5000)
    modulus = _distance_modulus(z_grid)
    redshift = np.clip(np.interp(mag - luminosity, modulus, z_grid), 0.01, 0.35)
    absolute = mag - np.interp(redshift, z_grid, modulus)
    # Half-light radius in kpc: Shen et al. 2003 (MNRAS 343, 978), early and late types, log-normal.
    early_kpc = 10 ** (-0.4 * 0.65 * absolute - 5.06)
    late_kpc = 10 ** (
        -0.4 * 0.26 * absolute + (0.51 - 0.26) * np.log10(1 + 10 ** (-0.4 * (absolute + 20.91))) - 1.71
    )
    kpc = np.where(early, early_kpc, late_kpc) * np.exp(rng.normal(0, 0.25, kind.size))
    megaparsec = 10 ** (np.interp(redshift, z_grid, modulus) / 5 - 5) / (1 + redshift) ** 2
    radius = np.clip(np.degrees(kpc / 1000 / megaparsec) * 3600, 0.7, 9.0)
    star = kind == "star"
    return {
        "total_r": mag,
        "redshift": np.where(star, np.nan, redshift),
        "half_light_radius": np.where(star, 0.0, radius),
    }


def _distance_modulus(redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance modulus of a flat universe of H0 = 70 km/s/Mpc and matter density 0.3."""
    rate = 1 / np.sqrt(0.3 * (1 + redshift) ** 3 + 0.7)
    steps = np.diff(redshift, prepend=0.0) * (rate + np.concatenate([[1.0], rate[:-1]])) / 2
    luminosity_distance = (1 + redshift) * np.cumsum(steps) * 299792.458 / 70
    return 5 * np.log10(luminosity_distance) + 25


def _shapes(truth: dict[str, NDArray], rng: np.random.Generator) -> dict[str, NDArray]:
    """Draw how each object looks: its bodies' shares of the r light, profiles and orientation."""
    kind, n = truth["kind"], truth["kind"].size
    radius = truth["half_light_radius"]
    spiral = np.isin(kind, ["spiral", "barred_spiral"])
    disky = spiral | np.isin(kind, ["lenticular", "edge_on"])

    def among(rule: dict[str, tuple[float, float]], elsewhere: float = 0.0) -> NDArray[np.float64]:
        share, values = rng.random(n), np.full(n, elsewhere)
        for name, (low, high) in rule.items():
            values = np.where(kind == name, low + (high - low) * share, values)
        return values

    ranges = {"spiral": (0.04, 0.3), "barred_spiral": (0.05, 0.25), "lenticular": (0.25, 0.6)}
    bulge = among(ranges | {"edge_on": (0.0, 0.4), "merger": (0.2, 0.5)})
    bulge[np.isin(kind, ["elliptical", "star"])] = 1.0
    bar = among({"barred_spiral": (0.10, 0.22)})
    arms = among(
        {
            "spiral": (0.2, 0.45),
            "barred_spiral": (0.2, 0.4),
            "irregular": (0.4, 0.8),
            "merger": (0.08, 0.2),
        }
    )
    companion = among({"merger": (0.15, 0.4)})
    scale = np.maximum(1.0, bulge + bar + arms + companion)
    bulge, bar, arms, companion = (part / scale for part in (bulge, bar, arms, companion))

    # Discs seen at random inclination, with an intrinsic thickness of 0.15 (Lambas et al. 1992); those
    # that are nearly edge-on are the kind of that name.
    cosine = rng.uniform(0.35, 1.0, n)
    face = np.sqrt(cosine**2 * (1 - 0.15**2) + 0.15**2)
    ratio = np.where(disky, face, rng.uniform(0.5, 1.0, n))
    ratio = np.where(kind == "edge_on", rng.uniform(0.12, 0.22, n), ratio)
    # Half-integer Sersic indices: a profile's tables are computed once for each.
    index = np.where(kind == "elliptical", rng.integers(5, 12, n), rng.integers(2, 8, n)) / 2
    count = np.where(spiral, rng.choice([1, 2, 3, 4, 5], n, p=[0.06, 0.58, 0.18, 0.1, 0.08]), 0)
    # The size relation is for circularised radii; these are semi-major axes, as the truth table has them.
    shape = {
        "fraction_bulge": bulge,
        "fraction_disk": np.maximum(0.0, 1 - bulge - bar - arms - companion),
        "fraction_bar": bar,
        "fraction_arms": arms,
        "fraction_companion": companion,
        "axis_ratio": np.where(kind == "star", 1.0, ratio),
        "position_angle": rng.uniform(0, 180, n),
        "bulge_sersic": index,
        "bulge_radius": np.where(
            kind == "elliptical", radius / np.sqrt(ratio), radius * rng.uniform(0.2, 0.4, n)
        ),
        "disk_radius": np.where(kind == "elliptical", 0.0, 1.15 * radius / np.sqrt(np.maximum(ratio, 0.35))),
        "bar_angle": rng.uniform(0, 180, n),
        "arm_count": np.where(kind == "merger", 1, count).astype(np.int32),
        # Pitch angles of real arms: 8 (tight) to 35 degrees (loose), Kennicutt 1981 (AJ 86, 1847).
        "arm_pitch": np.where(kind == "merger", rng.uniform(30, 45, n), rng.uniform(8, 35, n)),
        "arm_sense": rng.choice([-1, 1], n).astype(np.int32),
        "pattern_seed": rng.integers(0, 2**31, n).astype(np.int32),
        "companion_separation": among({"merger": (1.0, 2.6)}) * radius,
        "companion_angle": rng.uniform(0, 360, n),
    }
    return shape


def _fluxes(truth: dict[str, NDArray], rng: np.random.Generator) -> dict[str, NDArray]:
    """Give each body its colour: fluxes in nanomaggies, shape (n, 5), and the object's magnitudes."""
    n = truth["kind"].size
    star = truth["kind"] == "star"
    redshift = np.nan_to_num(truth["redshift"])
    scatter = rng.normal(0, 0.04, (n, 4))
    locus = _LOCUS[0]
    giant, dwarf = rng.normal(0.45, 0.12, n), rng.normal(1.38, 0.06, n)
    g_r = np.clip(np.where(rng.random(n) < 0.6, giant, dwarf), locus[0], locus[-1])
    stellar = np.stack(
        [np.interp(g_r, locus, _LOCUS[1]), g_r, *(np.interp(g_r, locus, row) for row in _LOCUS[2:])], axis=1
    )
    fluxes, total = {}, np.zeros((n, 5))
    for body in BODIES:
        colours = np.array(_COLOURS[body]) + np.array(_REDDENING) * redshift[:, None]
        colours = np.where(star[:, None], stellar, colours) + scatter
        mags = truth["total_r"][:, None] + _against_r(colours)
        fluxes[f"flux_{body}"] = truth[f"fraction_{body}"][:, None] * 10 ** (0.4 * (22.5 - mags))
        total += fluxes[f"flux_{body}"]
    magnitudes = 22.5 - 2.5 * np.log10(total)
    return fluxes | {f"mag_{band}": magnitudes[:, i] for i, band in enumerate(scan.BANDS)}


def _against_r(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn u-g, g-r, r-i, i-z into ugriz minus r."""
    ug, gr, ri, iz = colours.T
    return np.stack([ug + gr, gr, np.zeros_like(gr), -ri, -ri - iz], axis=1)


def _places(fields: list[scan.FieldKey], total: int, rng: np.random.Generator) -> dict[str, NDArray]:
    """Spread the objects evenly over the fields; the run's two ends are filled to their last row."""
    position = np.arange(total) % len(fields)
    camcol = np.array([key.camcol for key in fields])[position]
    field = np.array([key.field for key in fields])[position]
    per_camcol = {c: [key.field for key in fields if key.camcol == c] for c in set(camcol.tolist())}
    first = np.array([min(per_camcol[c]) for c in camcol.tolist()]) == field
    last = np.array([max(per_camcol[c]) for c in camcol.tolist()]) == field
    low = np.where(first, -0.5, scan.PRIMARY_MARGIN)
    high = np.where(last, scan.ROWS - 0.5, scan.PRIMARY_MARGIN + scan.FIELD_STEP)
    row = scan.FIELD_STEP * (field - scan.FIRST_FIELD) + low + (high - low) * rng.random(total)
    column = rng.uniform(-0.5, scan.COLUMNS - 0.5, total)
    ra, dec, mu, nu, tilt = (np.empty(total) for _ in range(5))
    for c in per_camcol:
        here = camcol == c
        ra[here], dec[here] = scan.pixel_to_sky(c, "r", column[here], row[here])
        mu[here], nu[here] = scan.mu_nu(c, "r", column[here], row[here])
        tilt[here] = scan.column_angle(c, column[here], row[here])
    # Objects are numbered within their field along the scan.
    order = np.lexsort((row, field, camcol))
    number = np.empty(total, np.int64)
    for key in fields:
        members = order[(camcol[order] == key.camcol) & (field[order] == key.field)]
        number[members] = np.arange(1, members.size + 1)
    return {
        "object_id": scan.object_id(camcol, field, number),
        "ra": ra,
        "dec": dec,
        "mu": mu,
        "nu": nu,
        "column_angle": tilt,
        "run": np.full(total, scan.RUN, np.int32),
        "camcol": camcol.astype(np.int32),
        "field": field.astype(np.int32),
    }


_UNITS = {
    **dict.fromkeys(("ra", "dec", "mu", "nu", "column_angle", "position_angle", "bar_angle"), "deg"),
    **dict.fromkeys(("arm_pitch", "companion_angle"), "deg"),
    **dict.fromkeys(("half_light_radius", "bulge_radius", "disk_radius", "companion_separation"), "arcsec"),
    **{f"mag_{band}": "mag" for band in scan.BANDS},
    **{f"flux_{body}": "nmgy" for body in BODIES},
}
_FIRST = ("object_id", "catalogued", "kind", "ra", "dec", "run", "camcol", "field", "redshift")


def _table(columns: dict[str, NDArray[Any]]) -> pa.Table:
    """Turn columns into a table with units; the drawn r magnitude is ``mag_r``."""
    columns.pop("total_r")
    names = [*_FIRST, *(name for name in columns if name not in _FIRST)]
    arrays, schema = [], []
    for name in names:
        values = columns[name]
        if values.ndim == 2:
            array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            # A star's redshift is missing, not NaN.
            array = pa.array(values, from_pandas=True)
        metadata = {"unit": _UNITS[name]} if name in _UNITS else None
        arrays.append(array)
        schema.append(pa.field(name, array.type, metadata=metadata))
    return pa.table(arrays, schema=pa.schema(schema))
