"""Write a synthetic sky: images, catalog, truth, and the configuration of a night on it."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gzscale.errors import ConfigError
from gzscale.sky import scan
from gzscale.sky.camera import observe
from gzscale.sky.frames import frame_bytes, frame_path
from gzscale.sky.jobs import cores, parquet_bytes, run_jobs
from gzscale.sky.population import OBJECTS_PER_FIELD, draw
from gzscale.sky.render import draw_field
from gzscale.sky.rubin_repository import Registry
from gzscale.sky.rubin_write import write_rubin_sky
from gzscale.storage import open_storage

__all__ = ["SURVEYS", "write_sky"]

#: Surveys as whose images a sky can be written.
SURVEYS = ("sdss", "rubin")

_NIGHT = """\
# A night on the synthetic sky of this folder: {objects} objects, seed {seed}.
survey:
  kind: sdss
  root: images
  bands: ugriz
catalog:
  path: catalog.parquet
  columns:
    {{object_id: object_id, ra: ra, dec: dec, size: r90, ebv: ebv, run: run, camcol: camcol, field: field}}
geometries:
  galaxy: {{size: 96, scale: "0.08 * size"}}
  sky: {{size: 64, scale: 0.396}}
tasks:
  morphology: {{geometry: galaxy}}
  lenses: {{geometry: sky}}
  redshifts: {{geometry: sky}}
output: night
cluster: local
"""

_Measured = dict[int, tuple[float, float, float]]


def write_sky(
    out: str,
    survey: str,
    objects: int,
    seed: int,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    per_field: int = OBJECTS_PER_FIELD,
    registry: Registry | None = None,
) -> None:
    """Simulate a sky and write it below a folder.

    ``images/`` (the survey's own tree and format; for Rubin a Butler repository, ``repository/``),
    ``catalog.parquet`` (what a night is given),
    ``truth.parquet`` (what was drawn) and ``night.yaml``. The same objects and seed give the same
    bytes, whatever the number of workers. ``night.yaml`` is written last: a folder that has it is whole.

    Parameters
    ----------
    out
        Folder; created where it is missing, files of the same names are replaced.
    survey
        ``sdss`` or ``rubin``.
    objects
        Number of catalog objects.
    seed
        Zero or more.
    workers
        Processes; as many as there are cores by default. With one, nothing is spawned.
    progress
        Called with (images written, images in all) each time that a field or patch is written.
    per_field
        Catalog objects of a field or patch, at most.
    registry
        For Rubin: the database of the repository's registry; SQLite in its folder by default.

    Raises
    ------
    ConfigError
        If the survey is unknown, or a number cannot be used.
    StorageError
        If the folder cannot be written.
    """
    if survey not in SURVEYS:
        raise ConfigError(f"survey {survey!r} cannot be simulated; those that can: {', '.join(SURVEYS)}")
    if objects < 1 or per_field < 1 or seed < 0:
        raise ConfigError(
            f"{objects} objects, {per_field} a field, seed {seed}: at least 1, 1 and 0 are needed"
        )
    if survey == "rubin":
        write_rubin_sky(out, objects, seed, workers or cores(), progress, per_field, registry)
        return
    if registry is not None:
        raise ConfigError(f"survey {survey!r} has no registry; only a Rubin sky is made with one")
    fields = scan.exposures(-(-objects // per_field))
    truth = draw(objects, seed, per_field)
    measured: _Measured = {}
    jobs = ((out, key, _near(truth, key), seed) for key in fields)
    for done, (count, found) in enumerate(
        run_jobs(_write_field, jobs, min(workers or cores(), len(fields))), 1
    ):
        measured.update(found)
        if progress is not None:
            progress(done * count, len(fields) * count)
    storage = open_storage(out)
    storage.put("truth.parquet", parquet_bytes(truth))
    storage.put("catalog.parquet", parquet_bytes(_catalog(truth, measured)))
    storage.put("night.yaml", _NIGHT.format(objects=objects, seed=seed).encode())


_Job = tuple[str, scan.FieldKey, list[dict[str, Any]], int]


def _write_field(job: _Job) -> tuple[int, _Measured]:
    """Draw, observe and write one field in all bands; the unit of work of a process."""
    out, key, rows, seed = job
    storage = open_storage(out)
    frames, measured = draw_field(key, rows)
    for band, source in frames.items():
        data = frame_bytes(key, band, observe(source, key, band, seed))
        storage.put(f"images/{frame_path(key, band)}", bz2.compress(data))
    return len(frames), measured


def _near(truth: pa.Table, key: scan.FieldKey) -> list[dict[str, Any]]:
    """Return the rows of a field and its two neighbours, in the table's order."""
    here = pc.and_(
        pc.equal(truth["camcol"], key.camcol),
        pc.less_equal(pc.abs(pc.subtract(truth["field"], key.field)), 1),
    )
    rows: list[dict[str, Any]] = truth.filter(here).to_pylist()
    return rows


def _catalog(truth: pa.Table, measured: _Measured) -> pa.Table:
    """Return what a survey's catalog would say of the objects: positions and Petrosian photometry in r."""
    listed = truth.filter(truth["catalogued"])
    values = np.array([measured[number] for number in listed["object_id"].to_pylist()], np.float32)
    photometry = zip(("r_mag", "r50", "r90"), values.T, ("mag", "arcsec", "arcsec"), strict=True)
    arrays, fields = [], []
    for name in ("object_id", "ra", "dec"):
        arrays.append(listed[name])
        fields.append(listed.schema.field(name))
    for name, column, unit in photometry:
        arrays.append(pa.array(column))
        fields.append(pa.field(name, pa.float32(), metadata={"unit": unit}))
    # No dust of our Galaxy is in front of this sky: its extinction is known, and 0.
    arrays.append(pa.array(np.zeros(len(listed), np.float32)))
    fields.append(pa.field("ebv", pa.float32(), metadata={"unit": "mag"}))
    for name in ("run", "camcol", "field"):
        arrays.append(listed[name])
        fields.append(listed.schema.field(name))
    return pa.table(arrays, schema=pa.schema(fields))
