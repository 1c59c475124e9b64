"""Write a geometry's group of the cutout store key by key, the metadata last."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from gzscale.config import GeometryConfig
from gzscale.cutouts.account import STATUS
from gzscale.cutouts.convention import ARRAYS, CONVENTION, OPTIONAL, VERSION, WCS_RULE
from gzscale.cutouts.shard import COMPRESSORS, shard_pieces
from gzscale.storage import Storage, sha256_hex

__all__ = ["GroupContent", "PartitionWriter"]

#: Objects of one inner chunk of ``images``: 2.6 MB for 5 bands of 64 x 64 pixels.
CHUNK_OBJECTS = 64


@dataclass(frozen=True)
class GroupContent:
    """What a geometry's group holds; arrays as `gzscale.cutouts.convention` describes them.

    Attributes
    ----------
    geometry
        The geometry.
    bands
        One letter a band.
    images, object_id, ra, dec, scale, coverage, noise, band_status, image_index
        The arrays.
    flags, flag_names
        The optional array and what its bits mean; None, and no names, without masks.
    sources
        The images that went into the cutouts: name, band, sha256, size of each.
    """

    geometry: GeometryConfig
    bands: str
    images: NDArray[np.float16]
    object_id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    scale: NDArray[np.float64]
    coverage: NDArray[np.float32]
    noise: NDArray[np.float32]
    band_status: NDArray[np.uint8]
    image_index: NDArray[np.int32]
    sources: tuple[dict[str, Any], ...]
    flags: NDArray[np.uint8] | None = None
    flag_names: tuple[str, ...] = ()


class PartitionWriter:
    """Writes a partition's store: each geometry's group, then the partition's own metadata, last.

    Parameters
    ----------
    destination
        Where it goes.
    prefix
        Key of the partition's group.

    Attributes
    ----------
    inventory
        Key -> (sha256, size) of every file that was written.
    """

    def __init__(self, destination: Storage, prefix: str) -> None:
        self.inventory: dict[str, tuple[str, int]] = {}
        self._destination = destination
        self._prefix = prefix
        self._geometries: list[str] = []
        self._metadata: dict[str, Buffer] = {}

    def write_group(self, geometry: str, content: GroupContent) -> None:
        """Write one geometry: chunks first, each array's metadata after them, the group's last."""
        self._geometries.append(geometry)
        there = ARRAYS if content.flags is None else {**ARRAYS, **OPTIONAL}
        for name, (dtype, dimensions, unit, long_name) in there.items():
            data = np.ascontiguousarray(getattr(content, name), dtype=dtype)
            if data.size and data.ndim == 4:
                self._put_pieces(f"{geometry}/{name}/c/0/0/0/0", shard_pieces(data, _chunk(data)))
            held = _encode(data, f"{geometry}/{name}", dimensions, {"units": unit, "long_name": long_name})
            for key in sorted(held, key=lambda key: (key.endswith("zarr.json"), key)):
                self._put(key, held.pop(key))
        store = MemoryStore()
        zarr.create_group(store, path=geometry, attributes=_attributes(geometry, content), zarr_format=3)
        self._put(f"{geometry}/zarr.json", store._store_dict[f"{geometry}/zarr.json"])

    def close(self) -> None:
        """Write the partition's own metadata, with that of all groups and arrays in it.

        One request then opens everything. Consolidated metadata is not in the Zarr v3
        specification yet; readers that do not know it read the groups' own.
        """
        store = MemoryStore(dict(self._metadata))
        attributes = {**_declaration(), "geometries": sorted(self._geometries)}
        zarr.create_group(store, attributes=attributes, zarr_format=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(store, zarr_format=3)
        self._put("zarr.json", store._store_dict["zarr.json"])

    def _put(self, name: str, data: Buffer) -> None:
        if name.endswith("zarr.json"):
            self._metadata[name] = data
        key, content = f"{self._prefix}/{name}", data.as_numpy_array().data
        self._destination.put(key, content)
        self.inventory[key] = (sha256_hex(content), len(content))

    def _put_pieces(self, name: str, pieces: Iterator[bytes]) -> None:
        """Put a file that is made while it is put: the pixels need not be held once more."""
        key, digest, size = f"{self._prefix}/{name}", hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece

        self._destination.put_pieces(key, counted())
        self.inventory[key] = digest.hexdigest(), size


def _declaration() -> dict[str, Any]:
    description = "Cutouts of sky objects on common TAN grids, in units of flux"
    return {"zarr_conventions": [{"name": CONVENTION, "version": VERSION, "description": description}]}


def _attributes(geometry: str, content: GroupContent) -> dict[str, Any]:
    masks = {"flag_meanings": list(content.flag_names)} if content.flag_names else {}
    return {
        **_declaration(),
        **masks,
        "geometry": {
            "name": geometry,
            "size": content.geometry.size,
            "scale": content.geometry.scale,
        },
        "bands": list(content.bands),
        "pixel_unit": "nanomaggy",
        "wcs": WCS_RULE,
        "band_status_meanings": list(STATUS),
        "images": list(content.sources),
    }


def _encode(
    data: NDArray[Any], path: str, dimensions: tuple[str, ...], attributes: dict[str, Any]
) -> dict[str, Buffer]:
    """Encode one array with zarr-python in memory; of pixels the metadata alone."""
    store = MemoryStore()
    objects = max(1, data.shape[0])
    whole = (objects, *data.shape[1:])
    compressors: tuple[Any, ...] = (Crc32cCodec(),)
    layout: dict[str, Any] = {"chunks": whole}
    if data.ndim == 4:
        chunk = _chunk(data)
        compressors = COMPRESSORS
        layout = {
            "chunks": (chunk, *data.shape[1:]),
            "shards": (-(-objects // chunk) * chunk, *data.shape[1:]),
        }
    array = zarr.create_array(
        store,
        name=path,
        shape=data.shape,
        dtype=data.dtype,
        filters=None,
        compressors=compressors,
        fill_value=np.nan if data.dtype.kind == "f" else 0,
        attributes=attributes,
        dimension_names=dimensions,
        zarr_format=3,
        # A chunk of nothing but the fill value would be left out, and could not be told from a lost one.
        config={"write_empty_chunks": True},
        **layout,
    )
    if data.size and data.ndim != 4:
        array[...] = data
    return {key: value for key, value in store._store_dict.items() if key.startswith(path)}


def _chunk(data: NDArray[Any]) -> int:
    return min(CHUNK_OBJECTS, max(1, len(data)))
