"""The whole story of one object: catalog row, images, cutouts, bundle, code, columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gzscale.catalog.pixels import Partition
from gzscale.cutouts.store import read_chosen_cutouts
from gzscale.errors import MissingError
from gzscale.night.answers import band_reason, coverage_column, done_column
from gzscale.night.history import last_change, object_history
from gzscale.night.ledger import Ledger, Record
from gzscale.night.origins import cutouts_prefix, rows_key
from gzscale.night.planned import PlannedPartition, catalog_quarantine_key, read_plan
from gzscale.night.pointer import read_pointer
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage, open_storage
from gzscale.tasks.base import load_task

__all__ = ["explain"]


def explain(output: str, object_id: int) -> dict[str, Any]:
    """Tell what happened to one object in the last night.

    Parameters
    ----------
    output
        The night's output.
    object_id
        Identifier in the input catalog.

    Returns
    -------
    dict
        ``object_id``, ``night``, ``release``, ``change`` (what the night's catalog made of the object:
        see `gzscale.night.history.last_change`), ``history`` (what those of all nights did: see
        `gzscale.night.history.object_history`), ``row`` (the catalog's), ``partition``,
        ``quarantine`` (rows with stage, task, reason, detail), ``cutouts`` (by geometry:
        scale, coverage, noise, images with their hashes), ``predictions`` (by task: the hash of the
        bundle that was asked, whether it answered, and then the columns), ``code`` (hashes of the sources).

    Raises
    ------
    MissingError
        If the last night's catalog has no such object, and no earlier one said anything of it.
    """
    storage = open_storage(output)
    night = Ledger(storage).last_night()
    if night is None:
        raise MissingError(f"{output}: no night was run on this output")
    pointer = read_pointer(storage)
    story: dict[str, Any] = {
        "object_id": object_id,
        "night": night.night,
        "release": pointer.release if pointer else None,
    }
    history = object_history(storage, object_id)
    story |= {"change": last_change(storage, night, history), "history": history}
    lost = _select(read_parquet(storage, catalog_quarantine_key(night.night)), object_id)
    for item in read_plan(storage, night.night).partitions:
        row = _row(storage, item, object_id)
        if row is not None:
            return story | {"row": row} | _partition_story(storage, item.partition, object_id, lost)
    if lost or history:
        return story | {"row": None, "partition": None, "quarantine": lost}
    raise MissingError(
        f"{output}: object {object_id} is not in the catalog of night {night.night} "
        f"({night.counts['objects'].planned if night.counts else 'unfinished'} objects)"
    )


def _select(table: pa.Table, object_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.filter(pc.equal(table["object_id"], object_id)).to_pylist()
    return found


def _row(storage: Storage, item: PlannedPartition, object_id: int) -> dict[str, Any] | None:
    found = _select(read_parquet(storage, rows_key(item.partition, item.digest)), object_id)
    return found[0] if found else None


def _partition_story(
    storage: Storage, partition: Partition, object_id: int, lost: list[dict[str, Any]]
) -> dict[str, Any]:
    ledger = Ledger(storage)
    made, predicted = ledger.read("cut", partition), ledger.read("predict", partition)
    story: dict[str, Any] = {
        "partition": partition.path,
        "quarantine": lost,
        "cutouts": {},
        "predictions": {},
        "code": {},
    }
    if made is not None:
        story["code"]["cut"] = made.inputs["code"]
        for geometry in made.inputs["geometries"]:
            cutout = _cutout(storage, made, geometry, object_id)
            if cutout is not None:
                story["cutouts"][geometry] = cutout
    if predicted is not None:
        story["code"]["predict"] = predicted.inputs["code"]
        own = f"ledger/predict/{partition.path}.quarantine.parquet"
        story["quarantine"] = lost + _select(read_parquet(storage, own), object_id)
        found = _select(read_parquet(storage, f"predictions/{partition.path}.parquet"), object_id)
        story["predictions"] = _predictions(predicted, found[0] if found else None)
    return story


def _cutout(storage: Storage, made: Record, geometry: str, object_id: int) -> dict[str, Any] | None:
    prefix = cutouts_prefix(made.partition)
    inventory = {key: (value[0], value[1]) for key, value in made.files.items() if key.startswith(prefix)}
    cutouts = read_chosen_cutouts(storage, prefix, geometry, np.array([object_id]), inventory)
    if cutouts.rows is None or not len(cutouts):
        return None
    return {
        "store": f"{storage.url(prefix)}/{geometry}",
        "index": int(cutouts.rows[0]),
        "size": int(cutouts.images.shape[-1]),
        "scale": float(cutouts.scale[0]),
        "bands": {
            band: {
                "coverage": float(cutouts.coverage[0, position]),
                "noise": float(cutouts.noise[0, position]),
                "reason": band_reason(cutouts, 0, band) or None,
                "images": [
                    dict(cutouts.sources[source])
                    for source in cutouts.image_index[0, position].tolist()
                    if source >= 0
                ],
            }
            for position, band in enumerate(cutouts.bands)
        },
    }


def _predictions(predicted: Record, row: dict[str, Any] | None) -> dict[str, Any]:
    """Group a row of predictions by task, with the bundle that was asked; None: nothing is answered."""
    told = {}
    for name, (bundle, geometry) in predicted.inputs["tasks"].items():
        answered = row is not None and bool(row[done_column(name)])
        told[name] = {"bundle": bundle, "geometry": geometry, "answered": answered}
        if row is not None and answered:
            told[name]["coverage"] = row[coverage_column(name)]
            told[name]["columns"] = {column.name: row[column.name] for column in load_task(name).columns}
    return told
