"""A night's report, read back from storage: one page and the account as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gzscale.errors import ConfigError, GzscaleError, MissingError
from gzscale.night.accounting import accounting
from gzscale.night.contact import ContactSheet, make_contact_sheet
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.overview import Overview, look_over
from gzscale.night.page import document, join
from gzscale.night.panels import panels
from gzscale.night.plan import Plan, read_plan
from gzscale.night.release import read_manifest, read_pointer
from gzscale.night.sections import (
    Findings,
    accounting_section,
    columns_section,
    damage_section,
    failures_section,
    footer,
    heading,
    provenance_section,
    quarantine_section,
    release_section,
    sheet_section,
    sky_section,
    timings_section,
    votes_section,
)
from gzscale.storage import Storage, open_storage
from gzscale.tasks.base import Task, load_task

__all__ = ["report_key", "write_report"]


def report_key(night: str, name: str = "report.html") -> str:
    """Name of a file of a night's report."""
    return f"reports/{night}/{name}"


def write_report(output: str, night: str | None = None) -> str:
    """Write the page and the account of a night.

    Parameters
    ----------
    output
        The night's output: path or URL.
    night
        Name of the run; the one that started last by default.

    Returns
    -------
    str
        Where the page is.

    Raises
    ------
    MissingError
        If there was no such night.
    StorageError
        If the files cannot be written. What cannot be *read* is named on the page instead.
    """
    storage = open_storage(output)
    ledger = Ledger(storage)
    record = ledger.last_night() if night is None else ledger.read_night(night)
    if record is None:
        raise MissingError(f"{output}: no night was run on this output")
    account = json.dumps(accounting(record), indent=2, sort_keys=True, allow_nan=False) + "\n"
    storage.put(report_key(record.night, "accounting.json"), account.encode())
    page = _page(output, record, _find(storage, record))
    storage.put(report_key(record.night), page.encode())
    return storage.url(report_key(record.night))


def _find(storage: Storage, record: NightRecord) -> Findings:
    """Gather all that the page shows."""
    found = Findings(tasks=_tasks(record))
    try:
        found.plan = read_plan(storage, record.night)
    except GzscaleError as error:
        found.damage.append(f"The plan cannot be read: {error}")
    else:
        found.overview = _overview(storage, record, found.plan, found.tasks)
        found.sheet = _sheet(storage, record, found.overview, found.tasks)
        found.damage += found.overview.damage
        found.damage += found.sheet.damage if found.sheet else []
    try:
        pointer = read_pointer(storage)
        found.latest = pointer.release if pointer else ""
        found.manifest = read_manifest(storage, record.release) if record.release else None
    except GzscaleError as error:
        found.damage.append(f"The release cannot be read: {error}")
    return found


def _tasks(record: NightRecord) -> dict[str, Task]:
    """Load the night's tasks; one that is not installed here is not shown."""
    tasks = {}
    for name in record.inputs.get("config", {}).get("tasks", {}):
        try:
            tasks[name] = load_task(name)
        except ConfigError:
            continue
    return tasks


def _overview(storage: Storage, record: NightRecord, plan: Plan, tasks: Mapping[str, Task]) -> Overview:
    return look_over(storage, record, plan, {name: panels(task.columns) for name, task in tasks.items()})


def _sheet(
    storage: Storage, record: NightRecord, overview: Overview, tasks: Mapping[str, Task]
) -> ContactSheet | None:
    """Make the sheet of the task that says most about a galaxy's looks: morphology, or the first."""
    if not tasks:
        return None
    name = "morphology" if "morphology" in tasks else next(iter(tasks))
    settings: dict[str, Any] = record.inputs["config"]["tasks"][name]
    return make_contact_sheet(storage, overview.partitions, name, settings["geometry"], tasks[name].columns)


def _page(output: str, record: NightRecord, found: Findings) -> str:
    parts = (
        heading(output, record, found),
        accounting_section(record, found),
        failures_section(record),
        quarantine_section(record, found),
        release_section(record, found),
        timings_section(record),
        sky_section(found),
        votes_section(found),
        sheet_section(found),
        columns_section(found),
        provenance_section(output, record),
        damage_section(found),
        footer(),
    )
    return document(f"gzscale: night {record.night}", join(parts, "\n"))
