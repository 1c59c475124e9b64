"""Cutout stores of noise with galaxies' fluxes, as a night writes them, for what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gzscale.config import GeometryConfig
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.models.observation import Observation
from gzscale.storage import LocalStorage, Storage, open_storage

#: Images that differ; the others of a partition repeat them.
_KINDS = 512


@dataclass(frozen=True)
class Group:
    """Cutouts of a geometry: bands, side in pixels, and arcsec a pixel, or how it follows the size."""

    bands: str
    size: int
    scale: float | str


@dataclass(frozen=True)
class Piece:
    """One partition of a store.

    Attributes
    ----------
    prefix
        Key of its group.
    inventory
        Key -> (sha256, size) of its files.
    objects
        How many it has.
    """

    prefix: str
    inventory: Mapping[str, tuple[str, int]]
    objects: int

    def keys(self, geometry: str) -> list[str]:
        """Return the keys of a geometry's files."""
        return [key for key in self.inventory if key.startswith(f"{self.prefix}/{geometry}/")]

    def read(self, storage: Storage, geometry: str) -> Cutouts:
        """Read a geometry as a night does: every byte is compared with the inventory."""
        return read_cutouts(storage, self.prefix, geometry, self.inventory)


def observed(cutouts: Cutouts) -> Observation:
    """Return what a night shows its bundles of cutouts, of objects whose extinction is known."""
    extinction = np.full(len(cutouts), 0.05)
    return Observation.of(cutouts.images, cutouts.bands, cutouts.scale, cutouts.noise, extinction)


def write_store(
    folder: Path, groups: Mapping[str, Group], partitions: int, objects: int
) -> tuple[LocalStorage, Sequence[Piece]]:
    """Write a store of that many partitions of that many objects."""
    storage = open_storage(folder)
    assert isinstance(storage, LocalStorage)
    pieces = []
    for number in range(partitions):
        prefix = f"cutouts/Norder=5/Dir=0/Npix={number}.zarr"
        writer = PartitionWriter(storage, prefix)
        for name, group in groups.items():
            writer.write_group(name, _content(group, objects, number))
        writer.close()
        pieces.append(Piece(prefix, dict(writer.inventory), objects))
    return storage, pieces


def _content(group: Group, objects: int, seed: int) -> GroupContent:
    rng = np.random.default_rng(seed)
    bands = len(group.bands)
    kinds = min(objects, _KINDS)
    images = rng.gamma(0.5, 0.05, (kinds, bands, group.size, group.size)).astype(np.float16)
    sides = rng.uniform(0.2, 1.0, objects)
    fixed = isinstance(group.scale, float)
    return GroupContent(
        geometry=GeometryConfig(size=group.size, scale=group.scale),
        bands=group.bands,
        images=images[np.arange(objects) % kinds],
        object_id=np.arange(objects) + seed * objects,
        ra=rng.uniform(0, 10, objects),
        dec=rng.uniform(0, 10, objects),
        scale=np.full(objects, group.scale) if fixed else sides,
        coverage=np.ones((objects, bands), np.float32),
        noise=np.full((objects, bands), 0.03, np.float32),
        band_status=np.zeros((objects, bands), np.uint8),
        image_index=np.zeros((objects, bands, 1), np.int32),
        sources=({"name": "noise", "band": group.bands[0], "sha256": "0" * 64, "size": 0},),
    )
