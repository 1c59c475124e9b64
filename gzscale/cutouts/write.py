"""Write a geometry's group of the cutout store: encoded in memory, put key by key, metadata last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from gzscale.config import GeometryConfig
from gzscale.cutouts.account import STATUS
from gzscale.cutouts.convention import ARRAYS, CONVENTION, VERSION, WCS_RULE
from gzscale.storage import Storage, sha256_hex

__all__ = ["GroupContent", "write_group", "write_partition"]

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


def write_group(
    destination: Storage, prefix: str, geometry: str, content: GroupContent
) -> dict[str, tuple[str, int]]:
    """Write one geometry's group: chunks first, each array's metadata after them, the group's last.

    Parameters
    ----------
    destination
        Where it goes.
    prefix
        Key of the group.
    geometry
        Name of the geometry.
    content
        What it holds.

    Returns
    -------
    dict[str, tuple[str, int]]
        Key -> (sha256, size) of every file that was written.
    """
    inventory: dict[str, tuple[str, int]] = {}
    for name, (dtype, dimensions, unit, long_name) in ARRAYS.items():
        data = np.ascontiguousarray(getattr(content, name), dtype=dtype)
        files = _encode(name, data, dimensions, {"units": unit, "long_name": long_name})
        inventory |= _put(destination, prefix, files)
    attributes = _group_attributes(geometry, content)
    return inventory | _put(destination, prefix, _group_metadata(attributes))


def write_partition(
    destination: Storage, prefix: str, geometries: Iterable[str]
) -> dict[str, tuple[str, int]]:
    """Write the metadata of the partition's own group, after its geometries' groups.

    Parameters
    ----------
    destination
        Where it goes.
    prefix
        Key of the partition's group.
    geometries
        Names of the geometries.

    Returns
    -------
    dict[str, tuple[str, int]]
        Key -> (sha256, size) of the one file.
    """
    return _put(destination, prefix, _group_metadata({**_declaration(), "geometries": sorted(geometries)}))


def _declaration() -> dict[str, Any]:
    description = "Cutouts of sky objects on common TAN grids, in units of flux"
    return {"zarr_conventions": [{"name": CONVENTION, "version": VERSION, "description": description}]}


def _group_attributes(geometry: str, content: GroupContent) -> dict[str, Any]:
    return {
        **_declaration(),
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
    name: str, data: NDArray[Any], dimensions: tuple[str, ...], attributes: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Encode one array with zarr-python in memory; its metadata comes last."""
    store = MemoryStore()
    objects = max(1, data.shape[0])
    whole = (objects, *data.shape[1:])
    compressors: list[Any] = [Crc32cCodec()]
    layout: dict[str, Any] = {"chunks": whole}
    if name == "images":
        # Real pixels shrink by an eighth; lz4 after a bit shuffle is the fastest to read that does it.
        compressors.insert(0, BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"))
        chunk = min(CHUNK_OBJECTS, objects)
        layout = {
            "chunks": (chunk, *data.shape[1:]),
            "shards": (-(-objects // chunk) * chunk, *data.shape[1:]),
        }
    array = zarr.create_array(
        store,
        name=name,
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
    if data.size:
        array[...] = data
    return _drain(store)


def _group_metadata(attributes: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    store = MemoryStore()
    zarr.create_group(store, attributes=attributes, zarr_format=3)
    return _drain(store)


def _drain(store: MemoryStore) -> Iterator[tuple[str, bytes]]:
    """Yield what a memory store holds, chunks before metadata, and forget each file when it is taken."""
    held = store._store_dict
    for key in sorted(held, key=lambda key: (key.endswith("zarr.json"), key)):
        if key != "zarr.json" or len(held) == 1:
            yield key, held.pop(key).to_bytes()


def _put(destination: Storage, prefix: str, files: Iterable[tuple[str, bytes]]) -> dict[str, tuple[str, int]]:
    inventory: dict[str, tuple[str, int]] = {}
    for name, data in files:
        key = f"{prefix}/{name}"
        destination.put(key, data)
        inventory[key] = (sha256_hex(data), len(data))
    return inventory
