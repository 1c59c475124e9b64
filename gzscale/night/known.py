"""The objects of the last complete night: a delta is joined to them, a full catalog held against them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from gzscale.catalog.pixels import Partition
from gzscale.catalog.union import Known
from gzscale.config import NightConfig
from gzscale.errors import DamageError, LedgerError, MissingError
from gzscale.night.fingerprint import table_digest
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.origins import rows_key
from gzscale.night.planned import Plan, PlannedPartition, plan_key, read_plan
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage, open_storage

__all__ = ["last_known"]

#: Tables of rows that are read at the same time, and partitions whose futures are held together.
_READERS = 8
_BLOCK = 16
#: Nights that are looked through for deltas that did not complete.
_RECENT = 20


def last_known(config: NightConfig) -> Known | None:
    """Return the objects of the last complete night of an output.

    Nights that failed or were killed do not count: a night that is run again starts from the same
    objects as before, and comes to the same.

    Parameters
    ----------
    config
        The night's configuration.

    Returns
    -------
    Known or None
        Without objects where no night was complete; None where a full catalog cannot be held against the
        last night's, since its rows are gone.

    Raises
    ------
    LedgerError
        If a delta is given, and rows of the last complete night are gone.
    DamageError
        While the rows are read: if they are not those that were planned.
    """
    storage = open_storage(config.output)
    joined = config.catalog.mode == "delta"
    last = Ledger(storage).last_complete()
    if joined:
        _warn_of_lost_deltas(Ledger(storage), config, last)
    if last is None:
        return Known(joined=joined)
    plan, lost = _stored_plan(storage, last.night)
    if plan is not None and not lost:
        return Known(_rows(storage, plan), joined)
    if not joined:
        return None
    raise LedgerError(
        f"a delta is joined to the objects of night {last.night}, and {lost} is gone; "
        "run a full night (catalog.mode: full) with the whole catalog"
    )


def _stored_plan(storage: Storage, night: str) -> tuple[Plan | None, str]:
    """Return a night's plan, and the first of its tables that is gone; empty where all are there."""
    try:
        plan = read_plan(storage, night)
    except MissingError:
        return None, storage.url(plan_key(night))
    return plan, _first_lost(storage, plan)


def _warn_of_lost_deltas(ledger: Ledger, config: NightConfig, last: NightRecord | None) -> None:
    """Say which deltas were given since the last complete night, and are not part of it."""
    since = last.started if last else ""
    for name in ledger.nights()[-_RECENT:]:
        record = ledger.read_night(name)
        catalog = record.inputs.get("config", {}).get("catalog", {})
        if record.started <= since or record.state == "complete" or catalog.get("mode") != "delta":
            continue
        if catalog["path"] != config.catalog.path:
            logging.getLogger(__name__).warning(
                "night %s was given the delta %s and did not complete: its rows are not part of the union; "
                "give it again",
                name,
                catalog["path"],
            )


def _first_lost(storage: Storage, plan: Plan) -> str:
    """Return the URL of rows that are gone; empty where all are there."""

    def is_stored(item: PlannedPartition) -> bool:
        return storage.stat(rows_key(item.partition, item.digest)) is not None

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(plan.partitions), _BLOCK):
            block = plan.partitions[start : start + _BLOCK]
            for item, stored in zip(block, pool.map(is_stored, block), strict=True):
                if not stored:
                    return storage.url(rows_key(item.partition, item.digest))
    return ""


def _rows(storage: Storage, plan: Plan) -> Iterator[tuple[Partition, pa.Table]]:
    def read(item: PlannedPartition) -> tuple[Partition, pa.Table]:
        key = rows_key(item.partition, item.digest)
        rows = read_parquet(storage, key)
        if table_digest(rows) != item.digest:
            raise DamageError(
                f"{storage.url(key)}: not the rows that night {plan.night} planned; "
                "run gzscale verify --repair, and then a full night (catalog.mode: full)"
            )
        return item.partition, rows

    with ThreadPoolExecutor(_READERS) as pool:
        # map() submits all that it is given: a bounded number is held together.
        for start in range(0, len(plan.partitions), _BLOCK):
            yield from pool.map(read, plan.partitions[start : start + _BLOCK])
