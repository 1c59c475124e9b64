"""What each night's catalog said of one object, beside what was known before."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from gzscale.errors import MissingError
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage

__all__ = ["changes_key", "last_change", "object_history"]


def changes_key(night: str) -> str:
    """Name of the table of what a night's catalog changed: see `PartitionedCatalog.changed_objects`."""
    return f"ledger/nights/{night}/changes.parquet"


def object_history(storage: Storage, object_id: int) -> list[dict[str, str]]:
    """Return what the nights' catalogs said of an object, oldest first.

    Parameters
    ----------
    storage
        The nights' output.
    object_id
        Identifier in the input catalogs.

    Returns
    -------
    list[dict]
        ``night``, ``state`` (what a night that is not complete said does not count), ``catalog`` (the table
        that was given), and ``change``: new, changed, moved (changed, to another partition), unchanged, stale
        (older than what is known), removed or vanished. Nights whose catalog left the object as it was are
        not listed, nor is the first.
    """
    ledger = Ledger(storage)
    told = []
    for name in reversed(ledger.nights()):
        change = _change(storage, name, object_id)
        if change is None:
            continue
        record = ledger.read_night(name)
        told.append({"night": name, "state": record.state, "catalog": _catalog(record), "change": change})
        if change == "new" and record.state == "complete":
            break
    return told[::-1]


def last_change(storage: Storage, night: NightRecord, history: list[dict[str, str]]) -> str:
    """Say in a word what a night's catalog made of an object.

    Parameters
    ----------
    storage
        The nights' output.
    night
        The night.
    history
        See `object_history`.

    Returns
    -------
    str
        ``kept`` where a delta does not name the object, ``new`` in a night that had none before it, and
        ``unknown`` where nothing was compared.
    """
    told = [entry["change"] for entry in history if entry["night"] == night.night]
    if told:
        return told[0]
    if storage.stat(changes_key(night.night)) is None:
        return "new" if night.changes.get("known") == 0 else "unknown"
    delta = night.inputs.get("config", {}).get("catalog", {}).get("mode") == "delta"
    return "kept" if delta else "unchanged"


def _change(storage: Storage, night: str, object_id: int) -> str | None:
    try:
        table = read_parquet(storage, changes_key(night))
    except MissingError:
        return None
    found: list[str] = table.filter(pc.equal(table["object_id"], object_id))["change"].to_pylist()
    return found[0] if found else None


def _catalog(record: NightRecord) -> str:
    catalog: dict[str, Any] = record.inputs.get("config", {}).get("catalog", {})
    return str(catalog.get("path", ""))
