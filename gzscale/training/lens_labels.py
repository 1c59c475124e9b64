"""Images that are known to show a lens or none: the Bologna challenge's, or a cutout store's with a table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.canonical import to_floats, to_identifiers
from gzscale.catalog.locate import locate_table
from gzscale.errors import CatalogError
from gzscale.sky.deflectors import measure, measure_seeing
from gzscale.sky.stamps import Stamps, read_stamps
from gzscale.training.bologna import Challenge, is_challenge, read_challenge

__all__ = ["ID_COLUMNS", "LENS_COLUMNS", "read_labelled_lenses", "read_lens_labels"]

#: Names of the columns of a table of labels, whatever the case.
ID_COLUMNS = ("object_id", "objid", "id")
LENS_COLUMNS = ("lens", "is_lens", "label")
_ROWS = 65536


def read_labelled_lenses(
    images: str, labels: str | None, bands: str, geometry: str = "sky", survey: str = "sdss"
) -> tuple[Stamps, NDArray[np.bool_], str]:
    """Read images with labels.

    Parameters
    ----------
    images
        A folder of the Bologna challenge, or a cutout store.
    labels
        Table of a store's labels; the challenge's are its folders.
    bands
        Bands to read; of Euclid's images its one band.
    geometry
        Name of the store's geometry.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose the store's cutouts are.

    Returns
    -------
    stamps : Stamps
    lens : NDArray[np.bool_]
    bands : str
        Of the stamps.

    Raises
    ------
    CatalogError
        If images or labels are missing, or no image has a label.
    """
    if is_challenge(images):
        challenge = read_challenge(images)
        used = bands if set(bands) <= set(challenge.bands) else challenge.bands
        return _stamps_of(challenge, used), challenge.lens, used
    if labels is None:
        raise CatalogError(f"{images}: these images have no labels of their own; name a table with --labels")
    stamps, _ = read_stamps([images], bands, geometry, survey=survey)
    known = read_lens_labels(labels)
    rows = np.array([row for row, number in enumerate(stamps.object_id.tolist()) if number in known], int)
    if not len(rows):
        raise CatalogError(f"{labels}: none of its {len(known)} objects is among the {len(stamps)} cutouts")
    stamps = stamps.take(rows)
    return stamps, np.array([known[number] for number in stamps.object_id.tolist()]), bands


def read_lens_labels(path: str) -> dict[int, bool]:
    """Read a table of identifiers and labels: Parquet, FITS, VOTable or CSV; 1 or true is a lens.

    Raises
    ------
    CatalogError
        If a column is missing, or a label is neither 0 nor 1.
    """
    with tempfile.TemporaryDirectory(prefix="gzscale-labels-") as scratch:
        source = locate_table(path, "auto", Path(scratch))[2]
        columns = [_find(path, list(source.names), names) for names in (ID_COLUMNS, LENS_COLUMNS)]
        known: dict[int, bool] = {}
        for batch in source.batches(columns, _ROWS):
            ids = to_identifiers(batch.column(columns[0]), columns[0]).to_pylist()
            values = to_floats(batch.column(columns[1]), columns[1]).to_numpy(zero_copy_only=False)
            if not np.isin(values, (0, 1)).all():
                wrong = values[~np.isin(values, (0, 1))][0]
                raise CatalogError(f"{path}: a label in {columns[1]} is {wrong:g}; 1 is a lens, 0 is none")
            known |= {
                number: bool(value) for number, value in zip(ids, values, strict=True) if number is not None
            }
    return known


def _find(path: str, names: list[str], candidates: tuple[str, ...]) -> str:
    lower = {name.lower(): name for name in names}
    found = next((lower[name] for name in candidates if name in lower), None)
    if found is None:
        raise CatalogError(
            f"{path}: none of the columns {', '.join(candidates)} is among {', '.join(names[:40])}"
        )
    return found


def _stamps_of(challenge: Challenge, bands: str) -> Stamps:
    """Return the challenge's images as stamps; with g, r and i they are measured as deflectors are."""
    places = [challenge.bands.index(band) for band in bands]
    images, noise = challenge.images[:, places], challenge.noise[:, places]
    n = len(images)
    scale = np.full(n, challenge.scale)
    seeing = np.repeat(measure_seeing(images, bands, scale, noise)[None], n, axis=0)
    nothing = np.full(n, np.nan)
    redshift, magnitude, ratio, angle = nothing, nothing, np.ones(n), np.zeros(n)
    colours, chosen = np.full((n, 3), np.nan), np.zeros(n, bool)
    if {"g", "r", "i"} <= set(bands):
        found = measure(images, bands, scale, seeing, noise)
        redshift, magnitude = found.deflectors.redshift, found.deflectors.magnitude
        ratio, angle = found.deflectors.axis_ratio, found.deflectors.angle
        colours, chosen = found.magnitudes, found.chosen
    return Stamps(
        object_id=challenge.number,
        ra=np.zeros(n),
        dec=np.zeros(n),
        source=np.full(n, "challenge"),
        location=np.zeros(n, np.int64),
        images=images.astype(np.float16),
        scale=scale,
        noise=noise,
        seeing=seeing,
        redshift=redshift,
        magnitude=magnitude,
        axis_ratio=ratio,
        angle=angle,
        colours=colours,
        deflector=chosen,
        seeing_known=np.zeros((n, len(bands)), bool),
        simulated=np.zeros(n, bool),
    )
