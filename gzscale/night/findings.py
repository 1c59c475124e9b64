"""All that a night's report shows, read back from storage; what cannot be read is named instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gzscale.errors import ConfigError, GzscaleError
from gzscale.night.candidates import read_completeness, read_head, review_name
from gzscale.night.contact import ContactSheet, make_contact_sheet
from gzscale.night.ledger import NightRecord
from gzscale.night.overview import Overview, look_over
from gzscale.night.panels import panels
from gzscale.night.photoz_counts import has_redshifts
from gzscale.night.planned import Plan, read_plan
from gzscale.night.pointer import read_manifest, read_pointer
from gzscale.storage import Storage
from gzscale.tasks.base import Task, load_task

__all__ = ["Findings", "gather"]


@dataclass
class Findings:
    """What was found in storage.

    Attributes
    ----------
    tasks
        The night's tasks, by name, as far as they are installed.
    plan, overview, sheet, manifest
        None where there is none, or it could not be read.
    latest
        Name of the latest release, empty where nothing is released.
    reviews
        Task -> the head of its review list.
    completeness
        See `gzscale.night.completeness`; None where it was not measured.
    damage
        Messages about what could not be read.
    """

    tasks: Mapping[str, Task]
    plan: Plan | None = None
    overview: Overview | None = None
    sheet: ContactSheet | None = None
    manifest: dict[str, Any] | None = None
    latest: str = ""
    reviews: dict[str, pa.Table] = field(default_factory=dict)
    completeness: dict[str, Any] | None = None
    damage: list[str] = field(default_factory=list)


def gather(storage: Storage, record: NightRecord) -> Findings:
    """Gather all that the page of a run shows.

    Parameters
    ----------
    storage
        The night's output.
    record
        The run.
    """
    found = Findings(tasks=_tasks(record))
    try:
        found.plan = read_plan(storage, record.night)
    except GzscaleError as error:
        found.damage.append(f"The plan cannot be read: {error}")
    else:
        shown = {name: panels(task.columns) for name, task in found.tasks.items()}
        redshifts = [name for name, task in found.tasks.items() if has_redshifts(task.columns)]
        found.overview = look_over(storage, record, found.plan, shown, redshifts)
        found.sheet = _sheet(storage, record, found.overview, found.tasks)
        found.damage += found.overview.damage
        found.damage += found.sheet.damage if found.sheet else []
    try:
        pointer = read_pointer(storage)
        found.latest = pointer.release if pointer else ""
        found.manifest = read_manifest(storage, record.release) if record.release else None
        found.reviews = _reviews(storage, record, found.manifest)
        found.completeness = read_completeness(storage, record.night)
    except GzscaleError as error:
        found.damage.append(f"The release cannot be read: {error}")
    return found


def _reviews(storage: Storage, record: NightRecord, manifest: dict[str, Any] | None) -> dict[str, pa.Table]:
    """Read the head of each review list of the release."""
    heads = {}
    for name in manifest["rows"] if manifest else ():
        if review_name(name) in (manifest or {})["files"]:
            heads[name] = read_head(storage, record.release, name)
    return heads


def _tasks(record: NightRecord) -> dict[str, Task]:
    """Load the night's tasks; one that is not installed here is not shown."""
    tasks = {}
    for name in record.inputs.get("config", {}).get("tasks", {}):
        try:
            tasks[name] = load_task(name)
        except ConfigError:
            continue
    return tasks


def _sheet(
    storage: Storage, record: NightRecord, overview: Overview, tasks: Mapping[str, Task]
) -> ContactSheet | None:
    """Choose galaxies by the task that says most about their looks: morphology, or the first."""
    if not tasks:
        return None
    name = "morphology" if "morphology" in tasks else next(iter(tasks))
    geometry: str = record.inputs["config"]["tasks"][name]["geometry"]
    columns = {other: task.columns for other, task in tasks.items()}
    return make_contact_sheet(storage, overview.partitions, name, geometry, columns)
