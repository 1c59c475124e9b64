"""The forecast of a night: partitions, images, bytes, hours; nothing is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.partition import PartitionedCatalog, partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.clusters.presets import load_preset
from gzscale.config import NightConfig, parse_bytes
from gzscale.cutouts.geometry import half_diagonal, pixel_scales
from gzscale.night.known import last_known
from gzscale.night.openings import Openings, openings_text
from gzscale.night.origins import open_bundle, survey_of
from gzscale.night.plan import check, needs_size
from gzscale.night.sharing import ForeseenRoom, shared_images
from gzscale.surveys.base import Foreseeing, Shareable, Survey

__all__ = ["forecast"]

#: Sustained forward passes of the shipped network on one H100-class GPU, images/s: an assumption,
#: to be replaced by what the benchmark measures on the site's own GPU.
GPU_RATE = 30_000.0


def forecast(config: NightConfig) -> dict[str, str]:
    """Estimate what a night will do.

    Parameters
    ----------
    config
        The night's configuration; it is checked as the night would.

    Returns
    -------
    dict
        What, and how much of it, in words, in the order of printing. Images are those that the
        survey can foresee without reading any (see its ``foresee``), opened as often as on one host whose
        scratch disk has the room that the cluster allows: see `gzscale.night.sharing`.
    """
    check(config)
    with tempfile.TemporaryDirectory(prefix="gzscale-plan-") as folder:
        catalog = partition_catalog(
            open_catalog(config.catalog, needs_size(config)),
            Path(folder),
            config.max_objects,
            last_known(config),
        )
        survey = survey_of(config)
        images = _image_lines(survey, _foresee(config, survey, catalog))
        counts = [count for _, count in catalog.partitions]
    objects = sum(counts)
    bands = len(config.survey.bands)
    pixels = sum(geometry.size**2 for geometry in config.geometries.values())
    passes = sum(open_bundle(config, name).symmetries for name in config.tasks) * objects
    quarantined = ", ".join(f"{number} {reason}" for reason, number in catalog.quarantined.items())
    return {
        "objects": f"{catalog.planned} planned, of them quarantined by the catalog: {quarantined or 0}",
        "partitions": f"{len(counts)}, of {min(counts, default=0)} to {max(counts, default=0)} objects",
        **images,
        "cutouts": f"{objects * bands * pixels * 2 / 1e9:.3f} GB of float16 pixels",
        "memory of a worker": f"{_memory(config, survey, max(counts, default=0)) / 1e9:.1f} GB at most",
        "forward passes": f"{passes}, {passes / GPU_RATE / 3600:.4f} GPU-hours (at {GPU_RATE:.0f} a second)",
    }


def _foresee(config: NightConfig, survey: Survey, catalog: PartitionedCatalog) -> Openings | None:
    """Count the images that partitions will open; None where only the night itself tells."""
    if not isinstance(survey, Foreseeing):
        return None
    openings, room = Openings(), _room(config, survey)
    for partition, _ in catalog.partitions:
        rows = catalog.rows(partition)
        radius = _radius(config, rows)
        images = survey.foresee(rows, radius)
        if images is None:
            return None
        taken: set[str] = set()
        if isinstance(survey, Shareable) and room is not None:
            shared = shared_images(survey, images, rows, radius, partition, config.max_objects)
            taken = {ref.name for ref in images if room.take(ref.name, ref.name in shared)}
        openings.add([ref.name for ref in images if ref.name not in taken], taken)
    return openings


def _room(config: NightConfig, survey: Survey) -> ForeseenRoom | None:
    """Return the room for decoded images on a host; None where none are shared."""
    if not isinstance(survey, Shareable):
        return None
    cap = parse_bytes(load_preset(config.cluster).scratch_cap)
    return ForeseenRoom(int(cap / survey.decoded_bytes)) if cap else None


def _radius(config: NightConfig, rows: pa.Table) -> NDArray[np.float64]:
    """Half the diagonal of each object's largest stamp in degrees; 0 if no geometry takes it."""
    count = rows.num_rows
    sizes = rows["size"].to_numpy().astype(np.float64) if "size" in rows.column_names else None
    radius = np.zeros(count)
    for geometry in config.geometries.values():
        np.fmax(radius, half_diagonal(geometry, pixel_scales(geometry, sizes, count)), out=radius)
    return radius


def _image_lines(survey: Survey, openings: Openings | None) -> dict[str, str]:
    """Say how many images there are, and what reading them costs."""
    if openings is None or not isinstance(survey, Foreseeing):
        return {"images": "located by position when the night runs"}
    images = openings.to_dict()
    opened, size, seconds = images["opened"], survey.image_bytes, survey.image_seconds
    return {
        "images": openings_text(images),
        "image bytes": f"{opened * size / 1e9:.2f} GB (at {size / 1e6:.1f} MB an image)",
        "decoding": f"{opened * seconds / 3600:.3f} core-hours (at {seconds} s an image)",
    }


def _memory(config: NightConfig, survey: Survey, objects: int) -> float:
    """Bytes of a partition: stamps of all bands, accumulators of one, the store's bytes, a few images."""
    bands = len(config.survey.bands)
    pixels = sum(geometry.size**2 for geometry in config.geometries.values())
    # Of large images one waits beside the one in use, of small ones up to three.
    images = max(2 * survey.decoded_bytes if isinstance(survey, Shareable) else 0.0, 4 * 12.2e6)
    return objects * pixels * (bands * 4 + 8) + images + 5e8
