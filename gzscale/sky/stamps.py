"""Cutouts with what has to be known to put light into them: read from stores, measured as deflectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.errors import CatalogError, MissingError
from gzscale.sky.blocks import FIELD
from gzscale.sky.deflectors import measure, measure_seeing
from gzscale.sky.lens_population import Deflectors
from gzscale.sky.samples import is_sample, read_sample, require_survey
from gzscale.storage import open_storage

__all__ = ["Stamps", "measured_stamps", "read_stamps", "stamps_at", "stored_cutouts"]

#: Cutouts of one image from which its own seeing is measured; with fewer, that of all the partition's.
_FOR_SEEING = 10


@dataclass(frozen=True)
class Stamps:
    """Cutouts with what has to be known to put a lens into them.

    Attributes
    ----------
    object_id
        int64, shape (n,).
    ra, dec
        Degrees, shape (n,).
    source
        Name of the image that the middle band came from, shape (n,).
    location
        Number of the store that it was read from, int64, shape (n,).
    images
        Nanomaggies a pixel, float16, shape (n, bands, y, x).
    scale
        Arcsec a pixel, shape (n,).
    noise
        Sigma of a pixel in nanomaggies, float32, shape (n, bands).
    seeing
        Full width at half maximum of a star in arcsec, shape (n, bands); where nobody says it, it is measured
        on the cutouts: good enough to draw with.
    redshift, magnitude, axis_ratio, angle
        See `gzscale.sky.lens_population.Deflectors`.
    colours
        g, r, i magnitudes within 2 arcsec, shape (n, 3).
    deflector
        Whether it can be a lens, bool, shape (n,).
    seeing_known
        Whether the store or the sample says its seeing, bool, shape (n, bands).
    simulated
        Whether it is of a sample (`gzscale.sky.samples`), bool, shape (n,).
    """

    object_id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    source: NDArray[np.str_]
    location: NDArray[np.int64]
    images: NDArray[np.float16]
    scale: NDArray[np.float64]
    noise: NDArray[np.float32]
    seeing: NDArray[np.float64]
    redshift: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    axis_ratio: NDArray[np.float64]
    angle: NDArray[np.float64]
    colours: NDArray[np.float64]
    deflector: NDArray[np.bool_]
    seeing_known: NDArray[np.bool_]
    simulated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def deflectors(self) -> Deflectors:
        """All of them as deflectors."""
        return Deflectors(self.redshift, self.magnitude, self.axis_ratio, self.angle)

    @property
    def told_seeing(self) -> NDArray[np.float64]:
        """What a night would know of the seeing, NaN where it is not known, shape (n, bands)."""
        return np.where(self.seeing_known, self.seeing, np.nan)

    def take(self, rows: NDArray) -> Stamps:
        """Return some of them."""
        return Stamps(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def even_shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how often each of some is to be drawn, so that a few of an image count as much as many.

        Each store has the same share, within a store each image, within an image each object.

        Returns
        -------
        NDArray[np.float64]
            Shape (rows,); the sum is 1.
        """
        _, image = np.unique(self.source[rows], return_inverse=True)
        group = np.stack([self.location[rows], image], axis=1)
        images, place, count = np.unique(group, axis=0, return_inverse=True, return_counts=True)
        stores, many = np.unique(images[:, 0], return_counts=True)
        of_image = 1 / (len(stores) * many[np.searchsorted(stores, images[:, 0])])
        shares: NDArray[np.float64] = (of_image / count)[place.ravel()]
        return shares

    @classmethod
    def joined(cls, parts: Sequence[Stamps]) -> Stamps:
        """Return those of several in a row."""
        return cls(
            **{
                item.name: np.concatenate([getattr(part, item.name) for part in parts])
                for item in fields(cls)
            }
        )


def stored_cutouts(location: str, geometry: str) -> Iterator[Cutouts]:
    """Yield the cutouts of every partition below a folder or URL, in the order of their names.

    Raises
    ------
    MissingError
        If there is none of that geometry.
    """
    storage = open_storage(location)
    ending = f".zarr/{geometry}/zarr.json"
    keys = sorted(entry.key for entry in storage.list("") if entry.key.endswith(ending))
    if not keys:
        raise MissingError(f"{location}: no cutouts of a geometry {geometry!r} in it")
    for key in keys:
        if json.loads(storage.get(key)).get("node_type") == "group":
            yield read_cutouts(storage, key.removesuffix(f"/{geometry}/zarr.json"), geometry)


def read_stamps(
    locations: Sequence[str],
    bands: str,
    geometry: str = "sky",
    held_out: Sequence[str] = (),
    survey: str = "sdss",
) -> tuple[Stamps, Stamps]:
    """Read cutouts, and part those of some images from the others.

    Parameters
    ----------
    locations
        Folders or URLs of nights' outputs, cutout stores, or samples (`gzscale.sky.samples`), of whose
        cutouts seeing and redshift are known.
    bands
        The bands to read; a cutout that lacks one is left out.
    geometry
        Name of the geometry.
    held_out
        Parts of names of images, such as ``003918-3-0213``: their cutouts come second.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose cutouts they are.

    Returns
    -------
    learnt, kept : Stamps

    Raises
    ------
    CatalogError
        If there is nothing to learn from, or an image to keep apart is not there.
    """
    parts = []
    for number, place in enumerate(locations):
        for part in stamps_at(place, bands, geometry, survey):
            parts.append(replace(part, location=np.full(len(part), number)))
    stamps = Stamps.joined(parts)
    apart = np.zeros(len(stamps), bool)
    for name in held_out:
        found = np.char.find(stamps.source, name) >= 0
        if not found.any():
            raise CatalogError(f"no cutout comes from an image {name!r}, which is to be kept apart")
        apart |= found
    if apart.all():
        raise CatalogError(f"{', '.join(locations)}: no cutout with the bands {bands} to learn from")
    return stamps.take(~apart), stamps.take(apart)


def stamps_at(location: str, bands: str, geometry: str, survey: str) -> Iterator[Stamps]:
    """Yield the stamps of each partition below a folder or URL, a sample's with what is known of them.

    Parameters
    ----------
    location
        Of a night's output, a cutout store, or a sample.
    bands, geometry, survey
        See `read_stamps`.

    Raises
    ------
    MissingError
        If there are no cutouts of that geometry.
    ConfigError
        If it is a sample of another survey.
    """
    if not is_sample(location):
        for cutouts in stored_cutouts(location, geometry):
            yield measured_stamps(cutouts, bands, survey=survey)
        return
    require_survey(location, survey)
    for cutouts, truth in read_sample(location):
        yield measured_stamps(cutouts, bands, truth, survey)


def measured_stamps(
    cutouts: Cutouts, bands: str, truth: pa.Table | None = None, survey: str = "sdss"
) -> Stamps:
    """Return those of a partition's cutouts that are good in some bands, measured.

    Parameters
    ----------
    cutouts
        Of one partition.
    bands
        The bands to keep, g, r and i among them; half of a cutout must be measured in each.
    truth
        What is known of them, in the same order: ``redshift``, and ``seeing_<band>``; None if nothing is.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose they are.
    """
    places = [cutouts.bands.index(band) for band in bands]
    whole = (cutouts.band_status[:, places] == 0).all(axis=1) & (cutouts.coverage[:, places] > 0.5).all(
        axis=1
    )
    rows = np.flatnonzero(whole)
    images, noise = cutouts.images[rows][:, places], cutouts.noise[rows][:, places]
    scale = cutouts.scale[rows]
    redshift = None
    if truth is None:
        source = _sources(cutouts, places[len(places) // 2])[rows]
        told = cutouts.seeing[rows][:, places]
        seeing = told.astype(np.float64)
        if not np.isfinite(told).all():
            measured = _seeing(images, bands, scale, noise, source, survey)
            seeing = np.where(np.isfinite(told), seeing, measured)
    else:
        source = _fields(cutouts.object_id[rows])
        seeing = told = np.stack([truth[f"seeing_{band}"].to_numpy()[rows] for band in bands], axis=1)
        redshift = truth["redshift"].to_numpy()[rows]
    found = measure(images, bands, scale, seeing, noise, redshift, survey)
    return Stamps(
        object_id=cutouts.object_id[rows],
        ra=cutouts.ra[rows],
        dec=cutouts.dec[rows],
        source=source,
        location=np.zeros(len(rows), np.int64),
        images=images,
        scale=scale,
        noise=noise,
        seeing=seeing,
        redshift=found.deflectors.redshift,
        magnitude=found.deflectors.magnitude,
        axis_ratio=found.deflectors.axis_ratio,
        angle=found.deflectors.angle,
        colours=found.magnitudes,
        deflector=found.chosen,
        seeing_known=np.isfinite(told),
        simulated=np.full(len(rows), truth is not None),
    )


def _sources(cutouts: Cutouts, band: int) -> NDArray[np.str_]:
    names = np.array([str(source["name"]) for source in cutouts.sources] or [""])
    found: NDArray[np.str_] = names[np.clip(cutouts.image_index[:, band, 0], 0, None)]
    return found


def _fields(object_id: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return names of a sample's fields: its objects are numbered from 1 in their order."""
    number = ((object_id & 0xFFFFFFFF) - 1) // FIELD
    names: NDArray[np.str_] = np.char.add("field-", number.astype(str))
    return names


def _seeing(
    images: NDArray[np.float16],
    bands: str,
    scale: NDArray[np.float64],
    noise: NDArray[np.float32],
    source: NDArray[np.str_],
    survey: str,
) -> NDArray[np.float64]:
    """Return each cutout's seeing: that of its image, where enough of its cutouts are here."""
    seeing = np.empty((len(images), len(bands)))
    seeing[:] = measure_seeing(images, bands, scale, noise, survey)
    for name, count in zip(*np.unique(source, return_counts=True), strict=True):
        if count >= _FOR_SEEING:
            mine = source == name
            seeing[mine] = measure_seeing(images[mine], bands, scale[mine], noise[mine], survey)
    return seeing
