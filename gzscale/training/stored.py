"""Joins labelled galaxies to the cutouts of a store: by identifier, else by position.

The partitions are read one after the other. What may be a galaxy's image is rendered into a file at
once; which of several it is, is settled when all are known, so that neither the order of the partitions nor
their borders matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from astropy import units
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from gzscale.cutouts.pictures import PICTURE_SUFFIXES
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.errors import MissingError
from gzscale.models.inputs import SDSS_STRETCH, from_flux
from gzscale.storage import open_storage
from gzscale.training.labels import Labels, Refusal
from gzscale.training.shown import BLOCK, PictureFile, eight_bit, require_field

__all__ = ["MATCH_RADIUS", "join_store", "partitions"]

#: Labels are joined to cutouts within this angle in arcsec; an identifier whose positions are further apart
#: is not believed.
MATCH_RADIUS = 2.0
#: What a table is keyed by that names images of the archive, and no objects.
_IMAGE_NUMBER = "asset_id"


@dataclass
class _Candidates:
    """Cutouts that may be a galaxy's image, in the order in which they were rendered."""

    label: list[NDArray[np.int64]] = field(default_factory=list)
    by_identifier: list[NDArray[np.bool_]] = field(default_factory=list)
    apart: list[NDArray[np.float64]] = field(default_factory=list)
    identified: list[NDArray[np.int64]] = field(default_factory=list)

    def settle(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the labels that have an image, sorted, and the row of each one's image.

        The identifier goes before the position, and of several by position the nearest is taken: it
        is mutual, for a cutout is a candidate of its own nearest label only. A galaxy whose own cutout was
        not measured does not take its neighbour's.
        """
        if not self.label:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        label, apart = np.concatenate(self.label), np.concatenate(self.apart)
        by_identifier = np.concatenate(self.by_identifier)
        usable = np.flatnonzero(by_identifier | ~np.isin(label, np.concatenate(self.identified)))
        order = usable[np.lexsort((apart[usable], ~by_identifier[usable], label[usable]))]
        found, first = np.unique(label[order], return_index=True)
        return found, order[first]


def join_store(
    labels: Labels, location: str, geometry: str
) -> tuple[NDArray[np.int64], NDArray[np.uint8], Counter[str]]:
    """Find the cutout of each labelled galaxy.

    Parameters
    ----------
    labels
        The votes; their names, but for numbers of images, and their names in the survey's catalog are
        compared with the cutouts'.
    location
        Folder or URL above the partitions.
    geometry
        Which cutouts.

    Returns
    -------
    index : NDArray[np.int64]
        Labels that have a cutout, sorted.
    pictures : NDArray[np.uint8]
        What the network sees of each, mapped into memory, shape (n, 3, 96, 96).
    refused : Counter
        Labels without a cutout, cutouts without a label, further cutouts of a galaxy, and cutouts that
        have a label's identifier but not its position.

    Raises
    ------
    ConfigError
        If the cutouts are of another geometry or without a band that is shown.
    MissingError
        If there is no cutout.
    """
    refused: Counter[str] = Counter()
    by_name = _positions_of_names(labels)
    own_refused = frozenset() if labels.named_by == _IMAGE_NUMBER else labels.refused_names
    rows_refused = labels.refused_objects | own_refused
    candidates, file, groups = _Candidates(), PictureFile(), 0
    for where, cutouts in partitions(location, geometry):
        require_field(cutouts.geometry, cutouts.bands, where)
        groups += 1
        label, by_identifier, apart, elsewhere = _match(labels, by_name, cutouts)
        places = [cutouts.bands.index(band) for band in SDSS_STRETCH.bands]
        measured = (cutouts.coverage[:, places] > 0).all(axis=1)
        refused[Refusal.APART] += int((elsewhere & (label < 0)).sum())
        without = (str(number) for number in cutouts.object_id[(label < 0) & ~elsewhere].tolist())
        refused[Refusal.NO_LABEL] += sum(name not in rows_refused for name in without)
        chosen = np.flatnonzero((label >= 0) & measured)
        _render(cutouts, chosen, file)
        candidates.label.append(label[chosen])
        candidates.by_identifier.append(by_identifier[chosen])
        candidates.apart.append(apart[chosen])
        candidates.identified.append(label[by_identifier])
    if not groups:
        raise MissingError(
            f"{location}: neither pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) nor cutouts "
            f"of a geometry {geometry!r} in it"
        )
    index, rows = candidates.settle()
    refused[Refusal.DUPLICATE_IMAGE] += len(file) - len(index)
    refused[Refusal.NO_IMAGE] += len(labels) - len(index)
    return index, file.chosen(rows), refused


def _positions_of_names(labels: Labels) -> dict[str, int]:
    """Return the label of each identifier; the survey's own goes before the galaxy's name.

    The running number of an image is none: in a catalog that counts its own it is that of another galaxy.
    """
    own = () if labels.named_by == _IMAGE_NUMBER else labels.names
    found = {name: index for index, name in enumerate(own)}
    found.update({name: index for index, name in enumerate(labels.object_names) if name})
    return found


def partitions(location: str, geometry: str) -> Iterator[tuple[str, Cutouts]]:
    """Yield name and cutouts of each partition below a folder or URL, in the order of the names."""
    storage = open_storage(location)
    ending = f".zarr/{geometry}/zarr.json"
    for key in sorted(entry.key for entry in storage.list("") if entry.key.endswith(ending)):
        if json.loads(storage.get(key)).get("node_type") == "group":
            prefix = key.removesuffix(f"/{geometry}/zarr.json")
            yield storage.url(f"{prefix}/{geometry}"), read_cutouts(storage, prefix, geometry)


def _match(
    labels: Labels, by_name: dict[str, int], cutouts: Cutouts
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the label of each cutout, -1 where there is none, and how it was found.

    That is: whether the identifier says so; the angle in arcsec, NaN where the label has no position; and
    whether the identifier is that of a label whose position is another.
    """
    label = np.array([by_name.get(str(number), -1) for number in cutouts.object_id.tolist()], np.int64)
    apart = np.full(len(cutouts), np.nan)
    known = np.isfinite(labels.ra) & np.isfinite(labels.dec)
    where = SkyCoord(cutouts.ra, cutouts.dec, unit="deg")
    named = np.flatnonzero(label >= 0)
    placed = named[known[label[named]]]
    if len(placed):
        wanted = SkyCoord(labels.ra[label[placed]], labels.dec[label[placed]], unit="deg")
        apart[placed] = where[placed].separation(wanted).arcsec
    elsewhere = apart > MATCH_RADIUS
    label[elsewhere] = -1
    by_identifier = label >= 0
    lost = np.flatnonzero(label < 0)
    choices = np.flatnonzero(known)
    if len(choices) and len(lost):
        sky = SkyCoord(labels.ra[choices], labels.dec[choices], unit="deg")
        nearest, angle, _ = where[lost].match_to_catalog_sky(sky)
        near = angle < MATCH_RADIUS * units.arcsec
        label[lost[near]], apart[lost[near]] = choices[nearest[near]], angle[near].arcsec
    return label, by_identifier, apart, elsewhere


def _render(cutouts: Cutouts, chosen: NDArray[np.int64], file: PictureFile) -> None:
    for start in range(0, len(chosen), BLOCK):
        block = chosen[start : start + BLOCK]
        flux, scale = torch.from_numpy(cutouts.images[block]), torch.from_numpy(cutouts.scale[block])
        file.add(eight_bit(from_flux(flux, scale, cutouts.bands, SDSS_STRETCH)))
