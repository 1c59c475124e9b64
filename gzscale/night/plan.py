"""The plan: what a night has to do, written down before anything is done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.catalog.partition import Partition, PartitionedCatalog, partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.catalog.schema import QUARANTINE_SCHEMA
from gzscale.config import NightConfig
from gzscale.errors import ConfigError, DamageError, MissingError
from gzscale.night.fingerprint import canonical_json, code_digest, fingerprint, table_digest
from gzscale.night.ledger import Count, Ledger, NightRecord
from gzscale.night.origins import is_current, open_bundle, origins, rows_key, survey_of
from gzscale.night.pointer import holds, read_manifest, read_pointer
from gzscale.night.tables import parquet_bytes, read_parquet
from gzscale.storage import Storage, open_storage

__all__ = ["Plan", "PlannedPartition", "catalog_quarantine_key", "check", "is_done", "make_plan", "read_plan"]

_SCHEMA = pa.schema(
    [("order", pa.int32()), ("pixel", pa.int64()), ("rows", pa.int64()), ("digest", pa.string())]
)
#: Tables of rows that are uploaded at the same time.
_UPLOADS = 8
#: Partitions whose futures are held together.
_BLOCK = 64


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
        Rows of the catalog, the quarantined ones included.
    quarantined
        Rows that no partition has, by reason.
    """

    night: str
    partitions: list[PlannedPartition]
    planned: int
    quarantined: dict[str, int] = field(default_factory=dict)

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


def check(config: NightConfig) -> dict[str, Any]:
    """Check that the night can work, and return what it comes from.

    Bundles are held against geometries and bands, the survey is made, the catalog
    is opened: every error that concerns the night as a whole is raised here, before
    any work.

    Returns
    -------
    dict
        The inputs of the night, plain values, to be hashed.

    Raises
    ------
    ConfigError, CatalogError, BundleError
        Whatever is wrong.
    """
    survey_of(config)
    bundles = {}
    for name, task in config.tasks.items():
        bundle = open_bundle(config, name)
        if bundle.task != name:
            raise ConfigError(f"tasks.{name}.bundle is a bundle for {bundle.task!r}")
        bundle.require(config.survey.bands, config.geometries[task.geometry])
        bundles[name] = bundle.sha256
    with open_catalog(config.catalog, needs_size(config)) as reader:
        identity = reader.identity
    settings = config.model_dump(mode="json", exclude={"output", "cluster"})
    settings["survey"]["options"] = {
        key: value for key, value in settings["survey"]["options"].items() if not key.startswith("cache")
    }
    return {
        "config": settings,
        "catalog": identity,
        "bundles": bundles,
        "code": code_digest("catalog", "cutouts", "models", "night", "surveys", "tasks", "errors.py"),
    }


def needs_size(config: NightConfig) -> bool:
    """Tell whether a geometry of the night follows the objects' sizes."""
    return any(geometry.needs_size for geometry in config.geometries.values())


def is_done(config: NightConfig, inputs: dict[str, Any]) -> NightRecord | None:
    """Return the last night if it did all that this one would do, and nothing has changed since.

    Parameters
    ----------
    config
        The night's configuration.
    inputs
        What it comes from: see `check`.
    """
    storage = open_storage(config.output)
    ledger = Ledger(storage)
    last = ledger.last_night()
    if last is None or last.state != "complete" or last.fingerprint != fingerprint(inputs):
        return None
    if not _is_released(storage, last.release):
        return None
    plan = read_plan(storage, last.night)
    origin = origins(config)

    def current(item: PlannedPartition) -> bool:
        return is_current(config, origin, ledger, item.partition, item.digest)

    with ThreadPoolExecutor(_UPLOADS) as pool:
        # map() submits all that it is given: a bounded number is looked at together.
        for start in range(0, len(plan.partitions), _BLOCK):
            if not all(pool.map(current, plan.partitions[start : start + _BLOCK])):
                return None
    return last


def _is_released(storage: Storage, release: str) -> bool:
    """Tell whether a release is the latest one, and all of it is there in its length."""
    pointer = read_pointer(storage)
    if pointer is None or pointer.release != release:
        return False
    try:
        content = read_manifest(storage, release)["content"]
    except (DamageError, MissingError):
        return False
    return holds(storage, release, content)


def make_plan(config: NightConfig, night: str) -> Plan:
    """Read the catalog, partition it, and write the plan and each partition's rows.

    Parameters
    ----------
    config
        The night's configuration.
    night
        Name of the run.
    """
    storage = open_storage(config.output)
    old = _last_digests(storage)
    with tempfile.TemporaryDirectory(prefix="gzscale-plan-") as folder:
        work = Path(folder)
        with open_catalog(config.catalog, needs_size(config)) as reader:
            catalog = partition_catalog(reader, work / "catalog", config.max_objects)
        partitions = list(_write_rows(storage, catalog, old))
        path = work / "quarantine.parquet"
        with pq.ParquetWriter(path, QUARANTINE_SCHEMA, compression="zstd") as writer:
            for batch in catalog.quarantine():
                writer.write_batch(batch)
        storage.put_file(catalog_quarantine_key(night), path)
        plan = Plan(night, partitions, catalog.planned, dict(catalog.quarantined))
    about = {"planned": str(plan.planned), "quarantined": canonical_json(plan.quarantined).decode()}
    table = pa.table(
        {
            "order": [item.partition.order for item in partitions],
            "pixel": [item.partition.pixel for item in partitions],
            "rows": [item.rows for item in partitions],
            "digest": [item.digest for item in partitions],
        },
        schema=_SCHEMA.with_metadata(about),
    )
    storage.put(plan_key(night), parquet_bytes(table))
    if not plan.catalog_count.closes:
        raise AssertionError(f"the plan's account does not close: {plan.catalog_count}")
    return plan


def read_plan(storage: Storage, night: str) -> Plan:
    """Read back the plan of a run."""
    table = read_parquet(storage, plan_key(night))
    about = table.schema.metadata
    partitions = [
        PlannedPartition(Partition(order, pixel), rows, digest)
        for order, pixel, rows, digest in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]
    return Plan(night, partitions, int(about[b"planned"]), json.loads(about[b"quarantined"]))


def _last_digests(storage: Storage) -> dict[Partition, str]:
    last = Ledger(storage).last_night()
    if last is None:
        return {}
    try:
        return {item.partition: item.digest for item in read_plan(storage, last.night).partitions}
    except MissingError:
        return {}


def _write_rows(
    storage: Storage, catalog: PartitionedCatalog, old: dict[Partition, str]
) -> Iterator[PlannedPartition]:
    """Write each partition's rows where they are not stored already."""

    def write(item: tuple[Partition, int]) -> PlannedPartition:
        partition, count = item
        rows = catalog.rows(partition)
        digest = table_digest(rows)
        if old.get(partition) != digest or storage.stat(rows_key(partition)) is None:
            storage.put(rows_key(partition), parquet_bytes(rows))
        return PlannedPartition(partition, count, digest)

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for start in range(0, len(catalog.partitions), _BLOCK):
            yield from pool.map(write, catalog.partitions[start : start + _BLOCK])
