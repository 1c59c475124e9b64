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
from gzscale.errors import DamageError, MissingError
from gzscale.storage import Storage, sha256_hex

__all__ = ["Cutouts", "read_cutouts"]


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
        The survey images: name, band, sha256 and size of each.
    flags
        Bits of the survey's masks below each cutout, uint8, shape (n, bands); None without masks.
    flag_meanings
        The mask plane of each bit.
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

    def __len__(self) -> int:
        return len(self.object_id)

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
    group = f"{prefix}/{geometry}"
    if inventory is not None and f"{group}/zarr.json" not in inventory:
        raise MissingError(f"{storage.url(group)}: the inventory holds no such group")
    metadata = json.loads(_checked(storage, f"{group}/zarr.json", inventory))
    attributes = metadata.get("attributes", {})
    _check_convention(storage.url(group), attributes)
    arrays = {name: _read_array(storage, group, name, inventory) for name in ARRAYS}
    if "flag_meanings" in attributes:
        arrays |= {name: _read_array(storage, group, name, inventory) for name in OPTIONAL}
    lengths = {name: len(data) for name, data in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DamageError(f"{storage.url(group)}: the arrays differ in length: {lengths}")
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
            raise DamageError(f"{storage.url(key)}: sha256 is not the committed {digest}")
    return data


def _read_array(
    storage: Storage, group: str, name: str, inventory: Mapping[str, tuple[str, int]] | None
) -> NDArray[Any]:
    """Read one array whole; a missing chunk is damage."""
    dtype, dimensions, _, _ = {**ARRAYS, **OPTIONAL}[name]
    files = {"zarr.json": _checked(storage, f"{group}/{name}/zarr.json", inventory)}
    shape = json.loads(files["zarr.json"])["shape"]
    chunk = f"c/{'/'.join('0' * len(dimensions))}"
    if all(shape):
        files[chunk] = _checked(storage, f"{group}/{name}/{chunk}", inventory)
    prototype = default_buffer_prototype()
    store = MemoryStore({key: prototype.buffer.from_bytes(data) for key, data in files.items()})
    try:
        data = np.asarray(zarr.open_array(store, mode="r")[...])
    except (ValueError, RuntimeError) as error:
        raise DamageError(f"{storage.url(f'{group}/{name}')}: {error}") from error
    if data.dtype != np.dtype(dtype) or data.ndim != len(dimensions):
        raise DamageError(
            f"{storage.url(f'{group}/{name}')}: {data.dtype} with {data.ndim} dimensions, "
            f"not {dtype} {dimensions}"
        )
    return data
