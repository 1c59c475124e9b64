"""What the tasks say of a partition's objects, merged into one table; nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.schema import BASE_COLUMNS, QUARANTINE_SCHEMA, Column
from gzscale.cutouts.store import Cutouts
from gzscale.errors import Reason
from gzscale.models.observation import Observation
from gzscale.night.ledger import Count
from gzscale.tasks.base import DistributionTask, Seen, Task

if TYPE_CHECKING:
    from gzscale.models.bundle import Bundle

__all__ = [
    "Answers",
    "Merged",
    "band_reason",
    "coverage_column",
    "done_column",
    "merge_answers",
    "observe",
    "take_answers",
    "usable_rows",
]


def done_column(task: str) -> str:
    """Name of the column that says whether a task answered for the object."""
    return f"{task}_done"


def coverage_column(task: str) -> str:
    """Name of the column with the part of the task's cutout that was covered."""
    return f"{task}_coverage"


@dataclass(frozen=True)
class Answers:
    """One task's answers for the objects of one partition.

    Attributes
    ----------
    task, geometry
        Names.
    columns
        What the task writes.
    object_id
        Objects that it answered for, int64, shape (n,).
    values
        Column name -> values, shape (n,).
    coverage
        Covered part of the cutout, the least of the bands that the bundle uses, shape (n,).
    lost
        Objects that were cut, but not answered for: object_id -> (reason, detail).
    distribution
        Name and probability densities, float16, shape (n, bins), of a task that has them.
    """

    task: str
    geometry: str
    columns: tuple[Column, ...]
    object_id: NDArray[np.int64]
    values: Mapping[str, NDArray]
    coverage: NDArray[np.float32]
    lost: Mapping[int, tuple[Reason, str]]
    distribution: tuple[str, NDArray[np.float16]] | None = None


@dataclass(frozen=True)
class Merged:
    """A partition's predictions.

    Attributes
    ----------
    table
        A row for each object that at least one task answered for.
    quarantine
        A row for each answer that could not be given.
    counts
        Accounts: ``objects`` and each task.
    """

    table: pa.Table
    quarantine: pa.Table
    counts: dict[str, Count]


def observe(cutouts: Cutouts, rows: pa.Table) -> Observation:
    """Return what was measured of a partition's objects that were cut.

    Parameters
    ----------
    cutouts
        Their cutouts.
    rows
        The partition's catalog rows, with ``ebv`` where the catalog has it.
    """
    extinction = None
    if "ebv" in rows.column_names:
        ids = rows["object_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        place = order[np.searchsorted(ids[order], cutouts.object_id)]
        extinction = rows["ebv"].to_numpy(zero_copy_only=False)[place]
    return Observation.of(
        cutouts.images, cutouts.bands, cutouts.scale, cutouts.noise, extinction, cutouts.seeing
    )


def usable_rows(cutouts: Cutouts, seen: Seen, bundle: Bundle) -> NDArray[np.int64]:
    """Return the rows of the cutouts that are good in every band that a bundle requires.

    A band of zeros is good for a picture, and nothing to measure flux in.
    """
    positions = [cutouts.bands.index(band) for band in bundle.required]
    good = cutouts.band_status[:, positions] == 0
    if bundle.measures_flux:
        good &= seen.measured[:, positions]
    return np.flatnonzero(good.all(axis=1))


def band_reason(cutouts: Cutouts, row: int, band: str) -> str:
    """Return why a cutout has no usable pixels in a band; empty where it has."""
    status = int(cutouts.band_status[row, cutouts.bands.index(band)])
    return cutouts.status_meanings[status] if status else ""


def take_answers(
    task: Task,
    geometry: str,
    cutouts: Cutouts,
    gaps: pa.Table,
    seen: Seen,
    bundle: Bundle,
    outputs: Mapping[str, NDArray],
) -> Answers:
    """Turn a network's outputs into a task's answers.

    Parameters
    ----------
    task
        What makes columns of the outputs.
    geometry
        Name of the geometry that was fed.
    cutouts
        The partition's cutouts; objects without one of the bands that the bundle requires have no output.
    gaps
        Which bands of which cutouts are missing, and why.
    seen
        What there is to be seen of each cutout.
    bundle
        What was run.
    outputs
        The engine's outputs for the usable cutouts, in their order.
    """
    usable = usable_rows(cutouts, seen, bundle)
    lost = _unusable(cutouts, usable, gaps, geometry, bundle)
    values, finite = task.table(outputs, bundle.calibration, seen.take(usable))
    for row in usable[~finite]:
        lost[int(cutouts.object_id[row])] = (
            Reason.NONFINITE_OUTPUT,
            f"task {task.name}: the network's output is not finite",
        )
    answered = usable[finite]
    positions = [cutouts.bands.index(band) for band in bundle.bands if band in cutouts.bands]
    # A band that is missing, and may be, is the task's to flag.
    covered = np.where(cutouts.band_status == 0, cutouts.coverage, 1.0)[answered][:, positions]
    return Answers(
        task=task.name,
        geometry=geometry,
        columns=task.columns,
        object_id=cutouts.object_id[answered],
        values={column.name: np.asanyarray(values[column.name])[finite] for column in task.columns},
        coverage=covered.min(axis=1, initial=1.0).astype(np.float32),
        lost=lost,
        distribution=(task.distribution, np.asarray(values[task.distribution], np.float16)[finite])
        if isinstance(task, DistributionTask)
        else None,
    )


def _unusable(
    cutouts: Cutouts, usable: NDArray[np.int64], gaps: pa.Table, geometry: str, bundle: Bundle
) -> dict[int, tuple[Reason, str]]:
    """Say of each cutout that is not usable which band is missing, and why."""
    why = {(row["object_id"], row["band"]): row for row in gaps.to_pylist() if row["geometry"] == geometry}
    kept = set(usable.tolist())
    lost = {}
    for row, object_id in enumerate(cutouts.object_id.tolist()):
        if row in kept:
            continue
        band = next((band for band in bundle.required if band_reason(cutouts, row, band)), None)
        if band is None:
            lost[object_id] = (Reason.BLANK_BAND, f"bands {bundle.required}: one of them is 0 throughout")
        else:
            gap = why[object_id, band]
            lost[object_id] = (Reason(gap["reason"]), f"{band}: {gap['detail']}")
    return lost


def merge_answers(rows: pa.Table, answers: Sequence[Answers], cut_lost: pa.Table) -> Merged:
    """Merge the answers of all tasks with the partition's catalog rows.

    Parameters
    ----------
    rows
        The partition's rows, sorted by (HEALPix index, object_id).
    answers
        One for each task.
    cut_lost
        Quarantine rows of the cutting: their ``task`` names a geometry.

    Raises
    ------
    AssertionError
        If an account does not close: that would be a fault of the program.
    """
    ids = rows["object_id"].to_numpy()
    first_reason: dict[int, str] = {}
    losses = []
    counts: dict[str, Count] = {}
    by_geometry = _by_geometry(cut_lost)
    for item in answers:
        not_cut = by_geometry.get(item.geometry, {})
        lost = {
            **not_cut,
            **{key: ("predict", reason, detail) for key, (reason, detail) in item.lost.items()},
        }
        count = Count(len(ids), len(item.object_id))
        for object_id, (_, reason, _) in lost.items():
            count.quarantined[str(reason)] = count.quarantined.get(str(reason), 0) + 1
            first_reason.setdefault(object_id, str(reason))
        if not count.closes:
            raise AssertionError(f"task {item.task}: {count} does not close")
        counts[item.task] = count
        losses += [(key, stage, item.task, str(why), detail) for key, (stage, why, detail) in lost.items()]
    objects = Count(len(ids), len(ids) - len(first_reason))
    for reason in sorted(first_reason.values()):
        objects.quarantined[reason] = objects.quarantined.get(reason, 0) + 1
    counts["objects"] = objects
    return Merged(_table(rows, ids, answers), _quarantine(rows, ids, losses), counts)


def _by_geometry(cut_lost: pa.Table) -> dict[str, dict[int, tuple[str, str, str]]]:
    found: dict[str, dict[int, tuple[str, str, str]]] = {}
    for row in cut_lost.to_pylist():
        found.setdefault(row["task"], {})[row["object_id"]] = ("cut", row["reason"], row["detail"])
    return found


def _table(rows: pa.Table, ids: NDArray[np.int64], answers: Sequence[Answers]) -> pa.Table:
    order = np.argsort(ids, kind="stable")
    arrays: dict[str, pa.Array] = {column.name: rows[column.name] for column in BASE_COLUMNS}
    any_done = np.zeros(len(ids), bool)
    for item in answers:
        place = order[np.searchsorted(ids[order], item.object_id)]
        done = np.zeros(len(ids), bool)
        done[place] = True
        any_done |= done
        arrays[done_column(item.task)] = pa.array(done)
        arrays[coverage_column(item.task)] = _scatter(item.coverage, place, done)
        for column in item.columns:
            arrays[column.name] = _scatter(np.asanyarray(item.values[column.name]), place, done)
        if item.distribution is not None:
            name, density = item.distribution
            full = np.zeros((len(done), density.shape[1]), np.float16)
            full[place] = density
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(full.ravel()), density.shape[1])
    return pa.table(arrays).filter(pa.array(any_done))


def _scatter(values: NDArray, place: NDArray[np.int64], done: NDArray[np.bool_]) -> pa.Array:
    """Put values in their objects' rows; null where the task has no answer, or masks it."""
    if values.dtype.kind in "OU":
        texts: list[str | None] = [None] * len(done)
        for row, text in zip(place, values, strict=True):
            texts[row] = str(text)
        return pa.array(texts, pa.string())
    full, known = np.zeros(len(done), values.dtype), np.zeros(len(done), bool)
    full[place], known[place] = np.ma.filled(values, 0), ~np.ma.getmaskarray(values)
    return pa.array(full, mask=~known)


def _quarantine(
    rows: pa.Table, ids: NDArray[np.int64], losses: list[tuple[int, str, str, str, str]]
) -> pa.Table:
    where = {int(object_id): row for row, object_id in enumerate(ids)}
    losses = sorted(losses, key=lambda loss: (where[loss[0]], loss[2], loss[1]))
    ra, dec = rows["ra"].to_numpy(), rows["dec"].to_numpy()
    return pa.table(
        {
            "object_id": pa.array([loss[0] for loss in losses], pa.int64()),
            "ra": pa.array([ra[where[loss[0]]] for loss in losses], pa.float64()),
            "dec": pa.array([dec[where[loss[0]]] for loss in losses], pa.float64()),
            "stage": pa.array([loss[1] for loss in losses], pa.string()),
            "task": pa.array([loss[2] for loss in losses], pa.string()),
            "reason": pa.array([loss[3] for loss in losses], pa.string()),
            "detail": pa.array([loss[4] for loss in losses], pa.string()),
        },
        schema=QUARANTINE_SCHEMA,
    )
