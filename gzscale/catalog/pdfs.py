"""Writes distributions of released objects as files that qp reads: ``qp.read(path)``.

One HDF5 file a released HATS pixel, beside the catalog's data file and with the same rows in the same order,
in the layout of qp's ``hist`` ensembles:

===================  ========  ===========  ==========================================================
dataset              dtype     shape        what
===================  ========  ===========  ==========================================================
meta/pdf_name        bytes     (1,)         ``hist``
meta/pdf_version     int64     (1,)         0
meta/bins            float64   (1, m + 1)   edges of the bins
data/pdfs            float16   (n, m)       probability density in each bin
ancil/object_id      int64     (n,)         identifier
===================  ========  ===========  ==========================================================

float16 keeps 11 bits of a density: the cumulative distribution is right to 1e-4; qp normalises what it reads.
Nothing in the bytes depends on time or place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.align import align
from gzscale.catalog.pixels import Partition
from gzscale.errors import DamageError
from gzscale.storage import Storage

__all__ = ["Source", "write_pdfs"]

#: Rows of a chunk, which is compressed by itself.
CHUNK_ROWS = 1024

#: Gives the identifiers, shape (n,), and the densities, shape (n, bins), of a partition's objects.
Source = Callable[[Partition], tuple[NDArray[np.int64], NDArray[np.float16]]]


def write_pdfs(
    source: Source,
    partitions: Sequence[tuple[Partition, int]],
    edges: NDArray[np.float64],
    destination: Storage,
    prefix: str,
    max_rows: int,
) -> dict[str, tuple[str, int]]:
    """Write the distributions of a release, a partition in memory at a time.

    Parameters
    ----------
    source
        Gives a partition's rows, in the order of the catalog.
    partitions
        Partitions and their numbers of rows, as for `gzscale.catalog.hats.write_collection`.
    edges
        Of the bins, shape (bins + 1,).
    destination, prefix
        Files are ``<prefix>/Norder=k/Dir=d/Npix=n.hdf5``.
    max_rows
        Rows of a released pixel at most.

    Returns
    -------
    dict[str, tuple[str, int]]
        Key -> (SHA-256, size in bytes) of every file.

    Raises
    ------
    DamageError
        If a partition has another number of rows than promised, or of another grid.
    """
    counts, inventory = dict(partitions), {}
    with TemporaryDirectory(prefix="gzscale-pdfs-") as folder:
        path = Path(folder, "pdfs.hdf5")
        for each in align(partitions, max_rows):
            with h5py.File(path, "w") as file:
                ids, pdfs = _datasets(file, edges, each.rows)
                start = 0
                for part in each.parts:
                    object_id, density = source(part)
                    promised = (counts[part], len(edges) - 1)
                    if density.shape != promised:
                        raise DamageError(
                            f"partition {part.path}: distributions of shape {density.shape}, but {promised} "
                            "were promised; run `gzscale verify` on the output"
                        )
                    stop = start + len(object_id)
                    ids[start:stop], pdfs[start:stop] = object_id, density
                    start = stop
            with path.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            key = f"{prefix}/{each.pixel.path}.hdf5"
            size = path.stat().st_size
            destination.put_file(key, path)
            inventory[key] = (digest, size)
    return inventory


def _datasets(file: h5py.File, edges: NDArray[np.float64], rows: int) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Write what does not depend on the rows, and make room for them: identifiers, densities."""
    fixed = {
        "meta/pdf_name": np.array([b"hist"]),
        "meta/pdf_version": np.array([0]),
        "meta/bins": edges[None],
    }
    for name, value in fixed.items():
        file.create_dataset(name, data=value, track_times=False)
    ids = file.create_dataset("ancil/object_id", (rows,), np.int64, track_times=False)
    pdfs = file.create_dataset(
        "data/pdfs",
        (rows, len(edges) - 1),
        np.float16,
        chunks=(min(rows, CHUNK_ROWS), len(edges) - 1),
        compression="gzip",
        shuffle=True,
        track_times=False,
    )
    return ids, pdfs
