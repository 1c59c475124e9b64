"""Who lives in the synthetic Rubin sky, where, and what they look like on a patch's pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.sky import render
from gzscale.sky.population import (
    RUBIN_MAGNITUDES,
    STAR_SHARE,
    draw_kinds,
    draw_magnitudes,
    draw_objects,
    truth_table,
)
from gzscale.sky.render import galsim
from gzscale.sky.rubin_camera import BANDS, SEEING
from gzscale.sky.rubin_grid import INNER, PIXEL_SCALE, Tract

__all__ = ["REACH", "draw_patch", "draw_truth", "kron_radius"]

#: Half the side of the largest stamp in pixels: how far off a patch an object may shine onto it.
REACH = 260
#: A star's wings (Racine 1996, PASP 108, 699).
_MOFFAT_BETA = 3.5


def draw_truth(objects: int, seed: int, tracts: Sequence[Tract]) -> pa.Table:
    """Draw the objects of a sky.

    Parameters
    ----------
    objects
        Their number.
    seed
        The same seed and numbers give the same table.
    tracts
        Objects are spread evenly over the patches.

    Returns
    -------
    pa.Table
        One row an object, sorted by ``object_id``: the truth about it, as `gzscale.sky.population` has it,
        with ``tract`` and ``patch``; ``flux_<body>`` holds nanomaggies in ugrizy.
    """
    rng = np.random.Generator(np.random.PCG64([seed, objects]))
    kind = draw_kinds(objects, rng)
    kind[rng.random(objects) < STAR_SHARE] = "star"
    columns = draw_objects(kind, draw_magnitudes(objects, rng, RUBIN_MAGNITUDES), "rubin", rng)
    columns |= _places(objects, tracts, rng)
    order = np.argsort(columns["object_id"])
    return truth_table({name: values[order] for name, values in columns.items()}, BANDS)


def _places(objects: int, tracts: Sequence[Tract], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Spread objects over the pixels that each tract owns."""
    shares = np.array([len(tract.patches) for tract in tracts], dtype=np.float64)
    bounds = np.rint(np.concatenate([[0], np.cumsum(shares)]) / shares.sum() * objects).astype(np.int64)
    place = {name: np.empty(objects) for name in ("ra", "dec", "column_angle")}
    place |= {name: np.empty(objects, np.int64) for name in ("object_id", "tract", "patch")}
    for tract, start, stop in zip(tracts, bounds[:-1], bounds[1:], strict=True):
        mine = slice(start, stop)
        x0, y0, x1, y1 = tract.owned()
        x = rng.uniform(x0 - 0.5, x1 - 0.5, stop - start)
        y = rng.uniform(y0 - 0.5, y1 - 0.5, stop - start)
        wcs = tract.wcs()
        place["ra"][mine], place["dec"][mine] = wcs.all_pix2world(x, y, 0)
        before, after = (wcs.all_pix2world(x + step, y, 0) for step in (-0.5, 0.5))
        east = (after[0] - before[0] + 180) % 360 - 180
        place["column_angle"][mine] = np.degrees(
            np.arctan2(east * np.cos(np.radians(place["dec"][mine])), after[1] - before[1])
        )
        cell = np.floor((np.stack([x, y]) + 0.5) / INNER).astype(np.int64)
        place["tract"][mine] = tract.number
        place["patch"][mine] = cell[1] * tract.columns + cell[0]
        place["object_id"][mine] = (tract.number + 1) * 2**32 + 1 + np.arange(stop - start)
    return place


def draw_patch(
    tract: Tract, patch: int, rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, NDArray[np.float32]], dict[int, float]]:
    """Draw a patch in every band, without noise.

    Stamps are added in the order of ``rows``: patches that share pixels get the same values there if they
    list the objects in the same order.

    Parameters
    ----------
    tract, patch
        Which patch.
    rows
        Rows of the truth table that may touch it.

    Returns
    -------
    dict
        Band to nanomaggies a pixel, shape (ny, nx), float32.
    dict
        object_id to Kron radius in r in pixels, of the objects that the patch owns.
    """
    x0, y0, x1, y1 = tract.outer(patch)
    planes = {band: np.zeros((y1 - y0, x1 - x0), np.float32) for band in BANDS}
    sizes: dict[int, float] = {}
    if not rows:
        return planes, sizes
    sky = np.array([(row["ra"], row["dec"]) for row in rows])
    x, y = tract.wcs().all_world2pix(sky[:, 0], sky[:, 1], 0)
    for row, column, line in zip(rows, x.tolist(), y.tolist(), strict=True):
        side = render.stamp_side(row, PIXEL_SCALE)
        left, bottom = round(column) - side // 2, round(line) - side // 2
        if left >= x1 or bottom >= y1 or left + side <= x0 or bottom + side <= y0:
            continue
        moved = render.shift(column - left, line - bottom, side)
        for band, spectrum in zip(BANDS, render.light(row, side, len(BANDS), PIXEL_SCALE), strict=True):
            stamp = np.fft.irfft2(spectrum * _response(band, side) * moved, s=(side, side), axes=(0, 1))
            _add(planes[band], stamp.astype(np.float32), left - x0, bottom - y0)
            if band == "r" and (row["tract"], row["patch"]) == (tract.number, patch):
                sizes[row["object_id"]] = kron_radius(stamp)
    return planes, sizes


@cache
def _response(band: str, side: int) -> NDArray[np.complex128]:
    """Return the transform of a band's seeing and of the pixel."""
    seeing = galsim.Moffat(_MOFFAT_BETA, fwhm=SEEING[band])
    return render.transform(galsim.Convolve([seeing, galsim.Pixel(PIXEL_SCALE)]), side, PIXEL_SCALE)


def _add(plane: NDArray[np.float32], stamp: NDArray[np.float32], left: int, bottom: int) -> None:
    rows = slice(max(bottom, 0), min(bottom + stamp.shape[0], plane.shape[0]))
    columns = slice(max(left, 0), min(left + stamp.shape[1], plane.shape[1]))
    plane[rows, columns] += stamp[
        rows.start - bottom : rows.stop - bottom, columns.start - left : columns.stop - left
    ]


def kron_radius(stamp: NDArray[np.floating]) -> float:
    """Return the first moment of a noiseless stamp's light about its middle, (side/2, side/2), in pixels.

    References
    ----------
    R. G. Kron 1980, ApJS 43, 305.
    """
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0]) - half
    radius = np.hypot(axis[:, None], axis[None, :])
    inside = radius < half
    return float((radius * stamp)[inside].sum() / stamp[inside].sum())
