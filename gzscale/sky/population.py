"""Who lives in the synthetic sky: galaxies of many kinds and stars, with the truth about each.

Magnitude, redshift, luminosity, size, shape and colours hang together by published relations:
`gzscale.sky.luminosity`, `gzscale.sky.shapes` and `gzscale.sky.starlight` name them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.sky import luminosity, scan
from gzscale.sky.shapes import draw_shapes
from gzscale.sky.spectra import library
from gzscale.sky.starlight import body_fluxes, star_fluxes

__all__ = [
    "BODIES",
    "KINDS",
    "OBJECTS_PER_FIELD",
    "RUBIN_MAGNITUDES",
    "draw",
    "draw_kinds",
    "draw_magnitudes",
    "draw_objects",
    "truth_table",
]

#: Catalog objects of a field; a real one has some 60 galaxies this bright.
OBJECTS_PER_FIELD = 250
#: Stars of a field that are in no galaxy catalog.
FIELD_STARS = 60
#: Share of catalog entries that are stars: what a real galaxy sample is polluted by.
STAR_SHARE = 0.04

#: Kinds of galaxies and their shares in a magnitude-limited sample; the order is part of a seed's meaning.
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

#: Range of r and slope of log10 N(r): SDSS's main sample (to 17.8) and somewhat deeper. The real sky
#: has 0.6 a magnitude (Yasuda et al. 2001, AJ 122, 1104); a flatter one makes more of those whose
#: shape can be seen.
MAGNITUDES, SLOPE = (14.0, 19.0), 0.25
#: The same of Rubin's sky: four magnitudes deeper at its faint end.
RUBIN_MAGNITUDES = (16.5, 23.0)
#: Half-light radii that are drawn, arcsec: a point to the seeing, and what the largest stamp holds.
RADII = (0.25, 9.0)


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
    kind = draw_kinds(total, rng)
    kind[rng.random(total) < STAR_SHARE] = "star"
    kind[~catalogued] = "star"
    truth = {"catalogued": catalogued, **draw_objects(kind, draw_magnitudes(total, rng), "sdss", rng)}
    truth |= _places(fields, total, rng)
    order = np.argsort(truth["object_id"])
    return truth_table({name: values[order] for name, values in truth.items()}, scan.BANDS)


def draw_kinds(count: int, rng: np.random.Generator) -> NDArray[np.str_]:
    """Draw kinds of galaxies by their shares, shape (count,)."""
    return rng.choice(list(KINDS), count, p=list(KINDS.values()))


def draw_magnitudes(
    count: int, rng: np.random.Generator, limits: tuple[float, float] = MAGNITUDES, slope: float = SLOPE
) -> NDArray[np.float64]:
    """Draw apparent r magnitudes between limits from counts N(r) ~ 10^(slope r), shape (count,)."""
    low, high = limits
    return low + np.log10(1 + rng.random(count) * (10 ** (slope * (high - low)) - 1)) / slope


def draw_objects(
    kind: NDArray[np.str_], magnitude: NDArray[np.float64], survey: str, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Draw everything about objects of known kind and apparent r magnitude but their places.

    Parameters
    ----------
    kind
        Keys of `KINDS`, or ``star``; shape (n,).
    magnitude
        Apparent r, shape (n,), without Galactic extinction.
    survey
        A key of `gzscale.sky.spectra.FILTERS`: through whose filters they are seen.
    rng
        The generator.

    Returns
    -------
    dict
        Columns of the truth table, each of length n; ``flux_<body>`` of shape (n, bands).
    """
    table, star = library(survey), kind == "star"
    redshift = luminosity.draw_redshift(kind, magnitude, rng, survey)
    # Stars are drawn as nearby galaxies too, so that each object takes the same random numbers.
    known = np.where(star, 0.1, redshift)
    absolute = luminosity.absolute_magnitude(kind, magnitude, known, survey)
    early = np.isin(kind, ["elliptical", "lenticular"])
    today = luminosity.faded(absolute, known, survey)
    radius = luminosity.shrunk(luminosity.draw_radius(early, absolute, known, rng), known, survey)
    radius = np.clip(radius, *RADII)
    columns: dict[str, NDArray[Any]] = {
        "kind": kind,
        "total_r": magnitude,
        "redshift": known,
        "absolute_r": today,
        "half_light_radius": np.where(star, 0.0, radius),
    }
    columns |= draw_shapes(kind, columns["half_light_radius"], today, rng)
    fluxes = body_fluxes(columns, table, rng)
    fluxes["bulge"] = np.where(
        star[:, None], star_fluxes(magnitude, table.filters.bands, rng), fluxes["bulge"]
    )
    columns |= {f"flux_{body}": fluxes[body] for body in BODIES}
    columns["redshift"] = redshift
    columns["absolute_r"] = np.where(star, np.nan, absolute)
    return columns


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
    **{f"mag_{band}": "mag" for band in "ugrizy"},
    "absolute_r": "mag",
    "ebv": "mag",
    "measured_radius": "arcsec",
    **{f"seeing_{band}": "arcsec" for band in "ugrizy"},
    **{f"measured_mag_{band}": "mag" for band in "ugrizy"},
    **{f"measured_flux_{band}": "nmgy" for band in "ugrizy"},
    **{f"measured_flux_error_{band}": "nmgy" for band in "ugrizy"},
    **{f"flux_{body}": "nmgy" for body in BODIES},
}
_FIRST = ("object_id", "catalogued", "kind", "ra", "dec", "run", "camcol", "field", "redshift")


def truth_table(columns: dict[str, NDArray[Any]], bands: str) -> pa.Table:
    """Turn the columns of `draw_objects`, and any others, into a table with units.

    ``mag_<band>`` is the sum of the bodies; the drawn r magnitude is ``mag_r``. NaN becomes a missing value.
    """
    total = sum(columns[f"flux_{body}"] for body in BODIES)
    magnitudes = 22.5 - 2.5 * np.log10(total)
    columns = columns | {f"mag_{band}": magnitudes[:, i] for i, band in enumerate(bands)}
    first = [name for name in _FIRST if name in columns]
    names = [*first, *(name for name in columns if name not in {*first, "total_r"})]
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
