"""Read a geometry's cutouts back, and never take damage for data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from astropy.wcs import WCS
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from gzscale.cutouts.convention import ARRAYS, CONVENTION, OPTIONAL, VERSION
from gzscale.cutouts.geometry import wcs_of
from gzscale.cutouts.unshard import open_shard
from gzscale.errors import DamageError, MissingError
from gzscale.storage import Storage, sha256_hex

__all__ = ["Cutouts", "read_chosen_cutouts", "read_cutouts"]


@dataclass(frozen=True)
class Cutouts:
    """The cutouts of one partition in one geometry. `gzscale.cutouts.convention` says what each array is.

    Attributes
    ----------
    geometry
        Name, size and scale of the geometry.
    bands
        One letter a band.
    images
        Nanomaggies a pixel, float16, shape (n, bands, size, size); NaN where not measured.
    object_id
        int64, shape (n,).
    ra, dec
        Degrees, float64, shape (n,).
    scale
        Arcsec a pixel, float64, shape (n,).
    coverage
        Fraction of measured pixels, float32, shape (n, bands).
    noise
        Background sigma of a pixel in nanomaggies, float32, shape (n, bands).
    band_status
        uint8, shape (n, bands); 0 is good, else an index into ``status_meanings``.
    status_meanings
        The reasons that ``band_status`` numbers.
    image_index
        Rows of ``sources``, int32, shape (n, bands, slots), -1 where there is none.
    sources
        The survey images: name, band, sha256 and size of each, and its seeing where that is known.
    flags
        Bits of the survey's masks below each cutout, uint8, shape (n, bands); None without masks.
    flag_meanings
        The mask plane of each bit.
    rows
        Their places in the store, int64, shape (n,); None where all were read.
    """

    geometry: Mapping[str, Any]
    bands: str
    images: NDArray[np.float16]
    object_id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    scale: NDArray[np.float64]
    coverage: NDArray[np.float32]
    noise: NDArray[np.float32]
    band_status: NDArray[np.uint8]
    status_meanings: tuple[str, ...]
    image_index: NDArray[np.int32]
    sources: tuple[Mapping[str, Any], ...]
    flags: NDArray[np.uint8] | None = None
    flag_meanings: tuple[str, ...] = ()
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def seeing(self) -> NDArray[np.float32]:
        """Full width at half maximum of a star, of the first image in each band of which it is known.

        Arcsec, float32, shape (n, bands); NaN where it is not known.
        """
        known = [float(source.get("seeing", np.nan)) for source in self.sources]
        # The last one stands for no image, whose index is -1.
        each = np.array([*known, np.nan], np.float32)[self.image_index]
        first = np.isfinite(each).argmax(axis=2)[:, :, None]
        found: NDArray[np.float32] = np.take_along_axis(each, first, axis=2)[:, :, 0]
        return found

    def wcs(self, i: int) -> WCS:
        """Return the world coordinate system of cutout ``i``."""
        return wcs_of(float(self.ra[i]), float(self.dec[i]), float(self.scale[i]), self.images.shape[-1])


def read_cutouts(
    storage: Storage,
    prefix: str,
    geometry: str,
    inventory: Mapping[str, tuple[str, int]] | None = None,
) -> Cutouts:
    """Read the cutouts of one partition in one geometry.

    Parameters
    ----------
    storage
        Where the store is.
    prefix
        Key of the partition's group.
    geometry
        Name of the geometry.
    inventory
        Key -> (sha256, size), as it was committed. With it every byte is checked, and files that it
        does not name are not read. Without it damage is found by the CRC of each chunk only.

    Returns
    -------
    Cutouts

    Raises
    ------
    MissingError
        If there is no such group, and no inventory that promised it.
    DamageError
        If a file is lost or is not what was committed; the message names its key.
    """
    attributes = _attributes(storage, prefix, geometry, inventory)
    group = f"{prefix}/{geometry}"
    names = [name for name in _names(attributes) if name != "images"]
    arrays = {name: _read_array(storage, group, name, inventory) for name in names}
    arrays["images"] = _read_images(storage, group, inventory)
    lengths = {name: len(data) for name, data in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DamageError(f"{storage.url(group)}: the arrays differ in length: {lengths}")
    return _cutouts(attributes, arrays)


def read_chosen_cutouts(
    storage: Storage,
    prefix: str,
    geometry: str,
    object_ids: NDArray[np.int64],
    inventory: Mapping[str, tuple[str, int]] | None = None,
) -> Cutouts:
    """Read the cutouts of some objects of one partition; of the pixels only the chunks that hold them.

    Parameters
    ----------
    storage, prefix, geometry, inventory
        See `read_cutouts`; of the pixels only the length of the file and the CRC of each chunk are checked.
    object_ids
        Which objects; those that the partition does not hold are left out.

    Returns
    -------
    Cutouts
        In the order of the store.

    Raises
    ------
    MissingError, DamageError
        See `read_cutouts`.
    """
    attributes = _attributes(storage, prefix, geometry, inventory)
    group = f"{prefix}/{geometry}"
    names = [name for name in _names(attributes) if name != "images"]
    arrays = {name: _read_array(storage, group, name, inventory) for name in names}
    rows = np.flatnonzero(np.isin(arrays["object_id"], object_ids))
    chosen = {name: data[rows] for name, data in arrays.items()}
    images = _read_images(storage, group, inventory, rows)
    return _cutouts(attributes, {**chosen, "images": images, "rows": rows})


def _attributes(
    storage: Storage, prefix: str, geometry: str, inventory: Mapping[str, tuple[str, int]] | None
) -> Mapping[str, Any]:
    """Return what the group of a geometry says of itself."""
    group = f"{prefix}/{geometry}"
    if inventory is not None and f"{group}/zarr.json" not in inventory:
        raise MissingError(f"{storage.url(group)}: the inventory holds no such group")
    metadata = json.loads(_checked(storage, f"{group}/zarr.json", inventory))
    attributes: Mapping[str, Any] = metadata.get("attributes", {})
    _check_convention(storage.url(group), attributes)
    return attributes


def _names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    return (*ARRAYS, *(OPTIONAL if "flag_meanings" in attributes else ()))


def _cutouts(attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Cutouts:
    return Cutouts(
        geometry=attributes["geometry"],
        bands="".join(attributes["bands"]),
        status_meanings=tuple(attributes["band_status_meanings"]),
        sources=tuple(attributes["images"]),
        flag_meanings=tuple(attributes.get("flag_meanings", ())),
        **arrays,
    )


def _check_convention(url: str, attributes: Mapping[str, Any]) -> None:
    declared = [(c.get("name"), c.get("version")) for c in attributes.get("zarr_conventions", [])]
    if (CONVENTION, VERSION) not in declared:
        raise DamageError(f"{url}: declares {declared}, not {CONVENTION} {VERSION}")


def _checked(storage: Storage, key: str, inventory: Mapping[str, tuple[str, int]] | None) -> bytes:
    """Return a file's bytes, compared with the inventory where there is one."""
    try:
        data = storage.get(key)
    except MissingError as error:
        if inventory is None and key.endswith("zarr.json"):
            raise
        raise DamageError(f"{storage.url(key)}: lost; cut the partition again") from error
    if inventory is not None:
        digest, size = inventory.get(key, ("", -1))
        if len(data) != size:
            raise DamageError(f"{storage.url(key)}: {len(data)} bytes, {size} were committed")
        if sha256_hex(data) != digest:
            raise _other_bytes(storage.url(key), digest)
    return data


def _read_array(
    storage: Storage, group: str, name: str, inventory: Mapping[str, tuple[str, int]] | None
) -> NDArray[Any]:
    """Read one array whole; a missing chunk is damage."""
    files = {"zarr.json": _checked(storage, f"{group}/{name}/zarr.json", inventory)}
    key = f"{group}/{name}/{_chunk(name)}"
    if all(json.loads(files["zarr.json"])["shape"]):
        files[_chunk(name)] = _checked(storage, key, inventory)
    return _decoded(storage.url(f"{group}/{name}"), name, files)


def _read_images(
    storage: Storage,
    group: str,
    inventory: Mapping[str, tuple[str, int]] | None,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Read all cutouts' pixels, or those of some."""
    metadata = json.loads(_checked(storage, f"{group}/images/zarr.json", inventory))
    key = f"{group}/images/{_chunk('images')}"
    size = _length(storage, key, inventory) if all(metadata["shape"]) else 0

    def read(start: int, stop: int) -> bytes:
        try:
            return storage.get_range(key, start, stop)
        except MissingError as error:
            raise DamageError(f"{storage.url(key)}: lost; cut the partition again") from error

    committed = "" if inventory is None or not size else inventory[key][0]
    try:
        shard = open_shard(metadata, read, size) if size else None
        if shard is None:
            data = _read_array(storage, group, "images", inventory)
            return data if rows is None else data[rows]
        if rows is not None:
            return _of_convention(storage.url(f"{group}/images"), "images", shard.take(read, rows))
        data, found = shard.read(read, size)
    except (ValueError, RuntimeError) as error:
        # Told of the file, where its hash tells it; a chunk's checksum names no file.
        if committed and rows is None and sha256_hex(read(0, size)) != committed:
            raise _other_bytes(storage.url(key), committed) from error
        raise DamageError(f"{storage.url(f'{group}/images')}: {error}") from error
    if committed and found != committed:
        raise _other_bytes(storage.url(key), committed)
    return _of_convention(storage.url(f"{group}/images"), "images", data)


def _length(storage: Storage, key: str, inventory: Mapping[str, tuple[str, int]] | None) -> int:
    """Return the length of a file, which has to be there, and as long as it was committed."""
    found = storage.stat(key)
    if found is None:
        raise DamageError(f"{storage.url(key)}: lost; cut the partition again")
    if inventory is not None:
        _, committed = inventory.get(key, ("", -1))
        if found.size != committed:
            raise DamageError(f"{storage.url(key)}: {found.size} bytes, {committed} were committed")
    return found.size


def _other_bytes(url: str, committed: str) -> DamageError:
    return DamageError(f"{url}: sha256 is not the committed {committed}")


def _chunk(name: str) -> str:
    """Return the key of the one file that holds an array."""
    dimensions = {**ARRAYS, **OPTIONAL}[name][1]
    return f"c/{'/'.join('0' * len(dimensions))}"


def _decoded(url: str, name: str, files: Mapping[str, bytes]) -> NDArray[Any]:
    """Decode an array that is in memory."""
    prototype = default_buffer_prototype()
    held = MemoryStore({key: prototype.buffer.from_bytes(data) for key, data in files.items()})
    try:
        return _of_convention(url, name, np.asarray(zarr.open_array(held, mode="r")[...]))
    except (ValueError, RuntimeError) as error:
        raise DamageError(f"{url}: {error}") from error


def _of_convention(url: str, name: str, data: NDArray[Any]) -> NDArray[Any]:
    """Hold an array's type against that of the convention."""
    dtype, dimensions, _, _ = {**ARRAYS, **OPTIONAL}[name]
    if data.dtype != np.dtype(dtype) or data.ndim != len(dimensions):
        raise DamageError(f"{url}: {data.dtype} with {data.ndim} dimensions, not {dtype} {dimensions}")
    return data
