"""The forecast of a night: partitions, images, bytes, hours; nothing is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa

from gzscale.catalog.partition import PartitionedCatalog, partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.config import NightConfig
from gzscale.night.known import last_known
from gzscale.night.origins import open_bundle
from gzscale.night.plan import check, needs_size

__all__ = ["forecast"]

#: Sustained forward passes of the shipped network on one H100-class GPU, images/s: an assumption,
#: to be replaced by what the benchmark measures on the site's own GPU.
GPU_RATE = 30_000.0
#: A compressed SDSS frame [bytes] and the CPU time to decode it [s], as measured on real frames.
FRAME_BYTES = 3.5e6
FRAME_SECONDS = 0.46


def forecast(config: NightConfig) -> dict[str, str]:
    """Estimate what a night will do.

    Parameters
    ----------
    config
        The night's configuration; it is checked as the night would.

    Returns
    -------
    dict
        What, and how much of it, in words, in the order of printing. The number of
        images is that of distinct frames that the catalog's rows name; neighbouring
        frames that stamps reach into come on top.
    """
    check(config)
    with tempfile.TemporaryDirectory(prefix="gzscale-plan-") as folder:
        catalog = partition_catalog(
            open_catalog(config.catalog, needs_size(config)),
            Path(folder),
            config.max_objects,
            last_known(config),
        )
        opened, distinct = _exposures(catalog)
        counts = [count for _, count in catalog.partitions]
    objects = sum(counts)
    bands = len(config.survey.bands)
    pixels = sum(geometry.size**2 for geometry in config.geometries.values())
    passes = sum(open_bundle(config, name).symmetries for name in config.tasks) * objects
    opened *= bands
    quarantined = ", ".join(f"{number} {reason}" for reason, number in catalog.quarantined.items())
    return {
        "objects": f"{catalog.planned} planned, of them quarantined by the catalog: {quarantined or 0}",
        "partitions": f"{len(counts)}, of {min(counts, default=0)} to {max(counts, default=0)} objects",
        "images": f"{distinct * bands} distinct, opened {opened} times"
        if distinct
        else "located by position when the night runs",
        "image bytes": f"{opened * FRAME_BYTES / 1e9:.2f} GB (at {FRAME_BYTES / 1e6:.1f} MB an image)",
        "decoding": f"{opened * FRAME_SECONDS / 3600:.3f} core-hours (at {FRAME_SECONDS} s an image)",
        "cutouts": f"{objects * bands * pixels * 2 / 1e9:.3f} GB of float16 pixels",
        "memory of a worker": f"{_memory(config, max(counts, default=0)) / 1e9:.1f} GB at most",
        "forward passes": f"{passes}, {passes / GPU_RATE / 3600:.4f} GPU-hours (at {GPU_RATE:.0f} a second)",
    }


def _exposures(catalog: PartitionedCatalog) -> tuple[int, int]:
    """Count the exposures that each partition opens, and the distinct ones."""
    opened, distinct = 0, set()
    for partition, _ in catalog.partitions:
        rows: pa.Table = catalog.rows(partition)
        if not {"run", "camcol", "field"} <= set(rows.column_names):
            return 0, 0
        own = set(zip(*(rows[name].to_pylist() for name in ("run", "camcol", "field")), strict=True))
        opened += len(own)
        distinct |= own
    return opened, len(distinct)


def _memory(config: NightConfig, objects: int) -> float:
    """Bytes of a partition: stamps of all bands, accumulators of one, the store's bytes, a few images."""
    bands = len(config.survey.bands)
    pixels = sum(geometry.size**2 for geometry in config.geometries.values())
    return objects * pixels * (bands * 4 + 8) + 4 * 12.2e6 + 5e8
