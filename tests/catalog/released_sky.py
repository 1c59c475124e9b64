"""Tables of predictions on a made-up sky, for the tests of releases."""

import numpy as np
import pyarrow as pa
from hats.pixel_math import compute_spatial_index

from gzscale.catalog.hats import write_collection
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import Column, arrow_schema, release_columns
from gzscale.config import ReleaseConfig
from gzscale.storage import open_storage

FRACTIONS = tuple(
    Column(f"answer_{i}_fraction", "float32", "", "stat.probability;src.morph.type", f"Fraction {i}")
    for i in range(3)
)
COLUMNS = release_columns(FRACTIONS)


def rows_at(ra, dec, ids=None, seed=1):
    """Rows at given positions, sorted as the night sorts them."""
    rng = np.random.default_rng(seed)
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    n = len(ra)
    ids = rng.permutation(n) + 1237661382772195474 if ids is None else np.asarray(ids, dtype=np.int64)
    healpix = compute_spatial_index(ra, dec) if n else np.empty(0, dtype=np.int64)
    order = np.lexsort((ids, healpix))
    columns = [healpix[order], ids[order], ra[order], dec[order]]
    columns += [rng.random(n, dtype=np.float32) for _ in range(4)]
    return pa.table([pa.array(column) for column in columns], schema=arrow_schema(COLUMNS))


def whole_sky(n, seed=1):
    """Rows spread evenly over the sphere."""
    rng = np.random.default_rng(seed)
    return rows_at(rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n))), seed=seed)


def part(table, order):
    """Cut a table into partitions of one HEALPix order."""
    pixels = table["_healpix_29"].to_numpy() >> 2 * (29 - order)
    names, starts = np.unique(pixels, return_index=True)
    stops = [*starts[1:], len(pixels)]
    return {
        Partition(order, int(name)): table.slice(start, stop - start)
        for name, start, stop in zip(names, starts, stops, strict=True)
    }


def release(partitions, root, **config):
    """Release partitions as the collection ``morphology``; return its path and its inventory."""
    inventory = write_collection(
        partitions.__getitem__,
        [(name, table.num_rows) for name, table in partitions.items()],
        COLUMNS,
        open_storage(root),
        "releases/one/morphology",
        "morphology",
        ReleaseConfig(**config),
    )
    return root / "releases/one/morphology", inventory
