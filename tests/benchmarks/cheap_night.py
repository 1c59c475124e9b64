"""A night whose images cost next to nothing: catalog, bundle, configuration and the survey's entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import cdshealpix.nested
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from astropy.coordinates import Latitude, Longitude

sys.path.insert(0, str(Path(__file__).parents[1] / "night"))

from toy import write_toy_bundle

#: Objects of a HEALPix pixel of `ORDER`: it becomes a partition whatever the number of all objects.
DENSITY, ORDER = 1500, 7
#: Where the sky begins: the first pixel of `ORDER` in a base pixel on the equator.
FIRST = 4 << (2 * ORDER)
SIDE = 16


def write_plugin(folder: Path) -> str:
    """Write the entry point of the survey; return what PYTHONPATH has to begin with."""
    about = folder / "gzscale_cheap-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gzscale-cheap\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[gzscale.surveys]\ncheap = cheap_survey:CheapSurvey\n")
    return f"{folder}:{Path(__file__).parent}"


def write_catalog(path: Path, objects: int, block: int = 1_000_000) -> None:
    """Write objects of even density, as many HEALPix pixels as they fill; a block is in memory at a time."""
    pixels = max(1, round(objects / DENSITY))
    fine = 2 * (29 - ORDER)
    rng = np.random.default_rng(3)
    schema = pa.schema(
        [("id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64()), ("r90", pa.float32())]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, objects, block):
            count = min(block, objects - start)
            place = rng.integers(FIRST << fine, (FIRST + pixels) << fine, count).astype(np.uint64)
            ra, dec = cdshealpix.nested.healpix_to_lonlat(place, 29)
            assert isinstance(ra, Longitude)
            assert isinstance(dec, Latitude)
            size = np.full(count, 20.0, np.float32)
            ids = np.arange(start, start + count)
            writer.write_table(pa.table([ids, ra.deg, dec.deg, size], schema=schema))


def write_night(folder: Path, objects: int, **changes: object) -> Path:
    """Write all that a night needs; return its configuration's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_catalog(folder / "catalog.parquet", objects)
    bundle = write_toy_bundle(folder / "toy.safetensors", SIDE)
    tree = {
        "survey": {"kind": "cheap", "root": "memory", "bands": "gri"},
        "catalog": {
            "path": "catalog.parquet",
            "columns": {"object_id": "id", "ra": "ra", "dec": "dec", "size": "r90"},
        },
        "geometries": {"galaxy": {"size": SIDE, "scale": "0.1 * size"}},
        "tasks": {"morphology": {"geometry": "galaxy", "bundle": bundle.name}},
    }
    config = folder / "night.yaml"
    config.write_text(yaml.safe_dump(tree | changes))
    return config
