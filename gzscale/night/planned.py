"""The plan as it is stored: a night's partitions, their rows' hashes, and what the catalog came to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa

from gzscale.catalog.pixels import Partition
from gzscale.night.fingerprint import canonical_json
from gzscale.night.ledger import Count
from gzscale.night.tables import parquet_bytes, read_parquet
from gzscale.storage import Storage

__all__ = ["Plan", "PlannedPartition", "catalog_quarantine_key", "plan_key", "read_plan", "write_plan"]

_SCHEMA = pa.schema(
    [("order", pa.int32()), ("pixel", pa.int64()), ("rows", pa.int64()), ("digest", pa.string())]
)


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """One unit of work: a HEALPix pixel, how many rows it has, and their hash."""

    partition: Partition
    rows: int
    digest: str


@dataclass(frozen=True)
class Plan:
    """What a night has to do.

    Attributes
    ----------
    night
        Name of the run.
    partitions
        Units of work, in the order of the sky.
    planned
        Objects, and rows of the given table that are quarantined.
    quarantined
        Rows that no partition has, by reason.
    changes
        What the given table says beside the last complete night's objects: see
        `gzscale.catalog.union.Changes`. Empty where that night's rows are gone.
    """

    night: str
    partitions: list[PlannedPartition]
    planned: int
    quarantined: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def catalog_count(self) -> Count:
        """The account of the catalog: rows in partitions are done."""
        return Count(self.planned, sum(item.rows for item in self.partitions), dict(self.quarantined))


def plan_key(night: str) -> str:
    """Name of the list of a night's partitions."""
    return f"ledger/nights/{night}/plan.parquet"


def catalog_quarantine_key(night: str) -> str:
    """Name of the table of rows that no partition has."""
    return f"ledger/nights/{night}/quarantine.parquet"


def write_plan(storage: Storage, plan: Plan) -> None:
    """Store a plan."""
    about = {
        "planned": str(plan.planned),
        "quarantined": canonical_json(plan.quarantined).decode(),
        "changes": canonical_json(plan.changes).decode(),
    }
    table = pa.table(
        {
            "order": [item.partition.order for item in plan.partitions],
            "pixel": [item.partition.pixel for item in plan.partitions],
            "rows": [item.rows for item in plan.partitions],
            "digest": [item.digest for item in plan.partitions],
        },
        schema=_SCHEMA.with_metadata(about),
    )
    storage.put(plan_key(plan.night), parquet_bytes(table))


def read_plan(storage: Storage, night: str) -> Plan:
    """Read back the plan of a run."""
    table = read_parquet(storage, plan_key(night))
    about = table.schema.metadata
    partitions = [
        PlannedPartition(Partition(order, pixel), rows, digest)
        for order, pixel, rows, digest in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]
    return Plan(
        night,
        partitions,
        int(about[b"planned"]),
        json.loads(about[b"quarantined"]),
        json.loads(about.get(b"changes", b"{}")),
    )
