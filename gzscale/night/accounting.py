"""The night's account, and what the last one came to."""

from __future__ import annotations

from typing import Any

from gzscale.errors import MissingError
from gzscale.night.ledger import Count, Ledger, NightRecord
from gzscale.night.planned import Plan, read_plan
from gzscale.night.tally import Tally
from gzscale.storage import Storage, open_storage

__all__ = ["accounting", "close_account", "status"]


def close_account(plan: Plan, tally: Tally) -> dict[str, Count]:
    """Join the plan's account with that of the partitions.

    Parameters
    ----------
    plan
        What was planned.
    tally
        What the partitions came to.

    Returns
    -------
    dict
        ``objects`` (all, and the given rows that are quarantined), ``catalog``, each geometry, each task.

    Raises
    ------
    AssertionError
        If an account does not close: that would be a fault of the program.
    """
    objects = Count()
    objects.add(tally.counts.get("objects", Count()))
    lost = sum(plan.quarantined.values())
    objects.add(Count(lost, quarantined=dict(plan.quarantined)))
    counts = {"objects": objects, "catalog": plan.catalog_count}
    counts |= {name: count for name, count in tally.counts.items() if name != "objects"}
    for name, count in counts.items():
        if not count.closes:
            raise AssertionError(f"the account of {name} does not close: {count}")
    if objects.planned != plan.planned:
        raise AssertionError(f"{objects.planned} objects accounted for, {plan.planned} planned")
    return counts


def accounting(record: NightRecord) -> dict[str, Any]:
    """Return a run's account as plain values: the content of ``accounting.json``."""
    return {
        "night": record.night,
        "state": record.state,
        "release": record.release,
        **record.counts.get("objects", Count()).to_dict(),
        "failures": record.failures,
        "stages": {name: count.to_dict() for name, count in record.counts.items() if name != "objects"},
        "changes": record.changes,
        "images": record.images,
        "partitions": record.partitions,
        "started": record.started,
        "ended": record.ended,
        "seconds": record.seconds,
    }


def status(output: str, night: str | None = None) -> dict[str, Any]:
    """Return the account of the last night of an output, or of a named one.

    A night that has not ended has ``pending`` objects beside the committed ones.

    Raises
    ------
    MissingError
        If there was no such night.
    """
    storage = open_storage(output)
    ledger = Ledger(storage)
    record = ledger.last_night() if night is None else ledger.read_night(night)
    if record is None:
        raise MissingError(f"{output}: no night was run on this output")
    account = accounting(record)
    if not record.counts:
        account |= _so_far(storage, record.night)
    return account


def _so_far(storage: Storage, night: str) -> dict[str, Any]:
    """Return the account of a night that has not ended: what is committed, and what is still to do."""
    try:
        plan = read_plan(storage, night)
    except MissingError:
        return {"pending": 0}
    total = Count(sum(plan.quarantined.values()), quarantined=dict(plan.quarantined))
    for item in plan.partitions:
        record = Ledger(storage).read("predict", item.partition)
        if record is not None:
            total.add(record.counts["objects"])
    return {**total.to_dict(), "planned": plan.planned, "pending": plan.planned - total.planned}
