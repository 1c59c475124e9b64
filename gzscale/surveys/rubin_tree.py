"""Coadd images in a plain tree of files: a path template and a table of tracts and patches, no Butler."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from gzscale._parquet import decode
from gzscale.errors import ConfigError, CredentialsError, StorageError
from gzscale.storage import open_storage
from gzscale.surveys.rubin_find import Dataset
from gzscale.surveys.rubin_skymap import Regions, make_regions
from gzscale.surveys.tan import tan_pixels, tan_sky, unit_vectors

__all__ = ["TreeSource", "read_patches", "write_patches"]

#: A table of all two million patches of an all-sky skymap has some 150 MB.
MAX_TABLE_BYTES = 1_000_000_000
_CORNERS = range(1, 5)
_COLUMNS = ("tract", "patch", *(f"{name}{corner}" for corner in _CORNERS for name in ("ra", "dec")))


class TreeSource:
    """Patches of a table, and files by a template.

    Parameters
    ----------
    root
        Folder or URL of the tree.
    template
        Path below it, with ``{tract}``, ``{patch}`` and ``{band}``.
    index
        Path or URL of the table of patches: see `write_patches`.
    bands
        Bands of interest.
    """

    def __init__(self, root: str, template: str, index: str, bands: str) -> None:
        self.root = root.rstrip("/")
        self.bands = bands
        self._template = template
        self._index = index
        self._lock = threading.Lock()
        self._tables: tuple[Regions, Regions] | None = None

    @property
    def skymap(self) -> str:
        """The table's name: it stands for the skymap's."""
        return self._index.rpartition("/")[2]

    def check(self) -> None:
        """Find that the table of patches can be read, and has any.

        Raises
        ------
        ConfigError
            If it cannot, or is empty.
        """
        if not len(self._read()[1]):
            raise ConfigError(f"{self._index}: the table has no patches; set survey.options.index to another")

    def tracts(self) -> Regions:
        """Return every tract: the convex hull of its patches.

        Raises
        ------
        ConfigError
            If the table of patches cannot be read.
        """
        return self._read()[0]

    def patches(self, tracts: Sequence[int]) -> Regions:
        """Return the patches of some tracts."""
        patches = self._read()[1]
        rows = patches.of_tracts(tracts)
        return Regions(
            patches.tract[rows],
            patches.patch[rows],
            patches.normals[rows],
            patches.centre[rows],
            patches.reach[rows],
        )

    def datasets(self, tract: int) -> Mapping[tuple[int, str], Dataset]:
        """Return the coadd images that a tract has by the template; opening them tells which exist."""
        patches = self._read()[1]
        return {
            (patch, band): Dataset(f"{self.root}/{self._path(tract, patch, band)}", "")
            for patch in patches.patch[patches.of_tracts([tract])].tolist()
            for band in self.bands
        }

    def describe(self, tract: int, patch: int, band: str) -> str:
        """Name an image by its coordinates."""
        return f"coadd {{band: {band!r}, tract: {tract}, patch: {patch}}}"

    def _path(self, tract: int, patch: int, band: str) -> str:
        return self._template.format(tract=tract, patch=patch, band=band)

    def _read(self) -> tuple[Regions, Regions]:
        with self._lock:
            if self._tables is None:
                patches, corners = read_patches(self._index)
                self._tables = _hulls(patches, corners), patches
            return self._tables


def write_patches(
    tract: Sequence[int], patch: Sequence[int], corners: NDArray[np.float64], location: str
) -> None:
    """Write a table of patches as Parquet.

    Parameters
    ----------
    tract, patch
        Identifiers, n of each.
    corners
        ra and dec in degrees of the outer region's corners, shape (n, 4, 2), in order round it.
    location
        Path or URL.
    """
    columns: dict[str, Any] = {"tract": pa.array(tract, pa.int64()), "patch": pa.array(patch, pa.int64())}
    for corner in _CORNERS:
        for axis, name in enumerate(("ra", "dec")):
            columns[f"{name}{corner}"] = np.ascontiguousarray(corners[:, corner - 1, axis])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    folder, _, name = location.rpartition("/")
    open_storage(folder or ".").put(name, sink.getvalue())


def read_patches(location: str) -> tuple[Regions, NDArray[np.float64]]:
    """Read a table of patches.

    Returns
    -------
    tuple[Regions, NDArray]
        The patches by tract and patch, and the unit vectors of their corners, shape (n, 4, 3).

    Raises
    ------
    ConfigError
        If it is missing, too large, or not such a table.
    """
    folder, _, name = location.rpartition("/")
    try:
        storage = open_storage(folder or ".")
        entry = storage.stat(name)
        if entry is None:
            raise ConfigError(f"{location}: there is no table of patches; set survey.options.index to one")
        if entry.size > MAX_TABLE_BYTES:
            raise ConfigError(f"{location}: {entry.size} bytes; a table has at most {MAX_TABLE_BYTES}")
        table = decode(storage.get(name), _COLUMNS)
        tract, patch = (table[key].to_numpy().astype(np.int64) for key in ("tract", "patch"))
        vertices = np.stack(
            [
                unit_vectors(*(table[f"{axis}{k}"].to_numpy().astype(np.float64) for axis in ("ra", "dec")))
                for k in _CORNERS
            ],
            axis=1,
        )
        order = np.lexsort((patch, tract))
        patches = make_regions(tract[order], patch[order], list(vertices[order]))
    except CredentialsError:
        raise
    except StorageError as error:
        raise ConfigError(f"{location}: the table of patches cannot be read: {error}") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{location}: not a table of patches ({error}); it has the columns {', '.join(_COLUMNS)}, "
            "corners in order round the patch"
        ) from error
    return patches, vertices[order]


def _hulls(patches: Regions, corners: NDArray[np.float64]) -> Regions:
    """Return the tracts: great circles stay straight in the gnomonic projection, so hulls are made there."""
    tracts = np.unique(patches.tract)
    vertices = []
    for tract in tracts.tolist():
        points = corners[patches.tract == tract].reshape(-1, 3)
        middle = points.mean(axis=0)
        ra0, dec0 = _sky(middle / np.linalg.norm(middle))
        plane = np.array([ra0, dec0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
        x, y = tan_pixels(plane, *_sky(points))
        flat = np.stack([x, y], axis=1)
        hull = flat[ConvexHull(flat).vertices]
        vertices.append(unit_vectors(*tan_sky(plane, hull[:, 0], hull[:, 1])))
    return make_regions(tracts, np.full(len(tracts), -1), vertices)


def _sky(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))
