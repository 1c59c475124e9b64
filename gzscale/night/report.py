"""A night's report, read back from storage: one page and the account as JSON."""

from __future__ import annotations

import json

from gzscale.errors import MissingError
from gzscale.night.accounting import accounting
from gzscale.night.findings import Findings, gather
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.page import document, join
from gzscale.night.sections_account import (
    accounting_section,
    changes_section,
    damage_section,
    failures_section,
    footer,
    heading,
    provenance_section,
    quarantine_section,
)
from gzscale.night.sections_candidates import completeness_section, review_section
from gzscale.night.sections_redshifts import redshifts_section
from gzscale.night.sections_results import (
    columns_section,
    probabilities_section,
    release_section,
    sheet_section,
    sky_section,
    timings_section,
    votes_section,
)
from gzscale.storage import open_storage

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
    page = _page(output, record, gather(storage, record))
    storage.put(report_key(record.night), page.encode())
    return storage.url(report_key(record.night))


def _page(output: str, record: NightRecord, found: Findings) -> str:
    parts = (
        heading(output, record, found),
        accounting_section(record),
        changes_section(record),
        failures_section(record),
        quarantine_section(record, found),
        release_section(record, found),
        timings_section(record),
        sky_section(found),
        votes_section(found),
        probabilities_section(found),
        review_section(found),
        completeness_section(found),
        redshifts_section(found.overview.redshifts if found.overview else {}),
        sheet_section(found),
        columns_section(found),
        provenance_section(record),
        damage_section(found),
        footer(),
    )
    return document(f"gzscale: night {record.night}", join(parts, "\n"))
