"""The plan: what a night has to do, written down before anything is done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gzscale.catalog.partition import Partition, PartitionedCatalog, partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.catalog.schema import QUARANTINE_SCHEMA
from gzscale.catalog.union import CHANGES_SCHEMA
from gzscale.config import NightConfig
from gzscale.errors import ConfigError, CredentialsError, DamageError, MissingError
from gzscale.night.fingerprint import code_digest, fingerprint, table_digest
from gzscale.night.history import changes_key
from gzscale.night.known import last_known
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.origins import (
    filters_of,
    is_current,
    open_bundle,
    origins,
    rows_key,
    survey_of,
)
from gzscale.night.planned import Plan, PlannedPartition, catalog_quarantine_key, read_plan, write_plan
from gzscale.night.pointer import holds, read_manifest, read_pointer
from gzscale.night.tables import parquet_bytes
from gzscale.storage import Storage, open_storage
from gzscale.surveys.base import Checked

__all__ = ["check", "is_done", "make_plan", "needs_size"]

#: Tables of rows that are uploaded at the same time.
_UPLOADS = 8
#: Partitions whose futures are held together.
_BLOCK = 64


def check(config: NightConfig) -> dict[str, Any]:
    """Check that the night can work, and return what it comes from.

    The survey is made and finds what its settings name, bundles are held against geometries
    and bands, the catalog is opened: every error that concerns the night as a whole is raised
    here, before any work.

    Returns
    -------
    dict
        The inputs of the night, plain values, to be hashed.

    Raises
    ------
    ConfigError, CatalogError, BundleError
        Whatever is wrong.
    """
    survey = survey_of(config)
    if isinstance(survey, Checked):
        survey.check()
    bundles = {}
    for name, task in config.tasks.items():
        bundle = open_bundle(config, name)
        if bundle.task != name:
            raise ConfigError(f"tasks.{name}.bundle is a bundle for {bundle.task!r}")
        bundle.require(config.survey.bands, config.geometries[task.geometry], filters_of(config, name))
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

    Raises
    ------
    DamageError
        If the pointer to the latest release, or a record of the last nights, cannot be read.
    """
    storage = open_storage(config.output)
    # First, since a night that cannot read it could not publish: better to know before its work.
    pointer = read_pointer(storage)
    if pointer is None:
        return None
    ledger = Ledger(storage)
    last = ledger.last_night()
    if last is None or last.state != "complete" or last.fingerprint != fingerprint(inputs):
        return None
    if pointer.release != last.release or not _is_stored(storage, last.release):
        return None
    plan = read_plan(storage, last.night)
    origin = origins(config)

    def current(item: PlannedPartition) -> bool:
        try:
            return is_current(config, origin, ledger, item.partition, item.digest)
        except CredentialsError:  # Workers may have others, with which images can be looked at.
            return False

    with ThreadPoolExecutor(_UPLOADS) as pool:
        # map() submits all that it is given: a bounded number is looked at together.
        for start in range(0, len(plan.partitions), _BLOCK):
            if not all(pool.map(current, plan.partitions[start : start + _BLOCK])):
                return None
    return last


def _is_stored(storage: Storage, release: str) -> bool:
    """Tell whether all of a release is there in its length."""
    try:
        content = read_manifest(storage, release)["content"]
    except (DamageError, MissingError):
        return False
    return holds(storage, release, content)


def make_plan(config: NightConfig, night: str) -> Plan:
    """Read the catalog, partition it, and write the plan and each partition's rows.

    A delta (``catalog.mode``) is joined to the objects of the last complete night.

    Parameters
    ----------
    config
        The night's configuration.
    night
        Name of the run.
    """
    storage = open_storage(config.output)
    known = last_known(config)
    with tempfile.TemporaryDirectory(prefix="gzscale-plan-") as folder:
        work = Path(folder)
        with open_catalog(config.catalog, needs_size(config)) as reader:
            catalog = partition_catalog(reader, work / "catalog", config.max_objects, known)
        partitions = list(_write_rows(storage, catalog))
        path = work / "quarantine.parquet"
        with pq.ParquetWriter(path, QUARANTINE_SCHEMA, compression="zstd") as writer:
            for batch in catalog.quarantine():
                writer.write_batch(batch)
        storage.put_file(catalog_quarantine_key(night), path)
        if known is not None and known.pieces:
            _write_changes(storage, catalog, night, work / "changes.parquet")
    changes = catalog.changes.to_dict() if known is not None else {}
    plan = Plan(night, partitions, catalog.planned, dict(catalog.quarantined), changes)
    if not plan.catalog_count.closes:
        raise AssertionError(f"the plan's account does not close: {plan.catalog_count}")
    write_plan(storage, plan)
    return plan


def _write_changes(storage: Storage, catalog: PartitionedCatalog, night: str, path: Path) -> None:
    """Write what the catalog made of single objects: what `gzscale explain` looks up."""
    with pq.ParquetWriter(path, CHANGES_SCHEMA, compression="zstd") as writer:
        for batch in catalog.changed_objects():
            writer.write_batch(batch)
    storage.put_file(changes_key(night), path)


def _write_rows(storage: Storage, catalog: PartitionedCatalog) -> Iterator[PlannedPartition]:
    """Write each partition's rows where they are not stored already.

    Their names hold their hash: what the last complete night planned stays beside them.
    """

    def write(item: tuple[Partition, int]) -> PlannedPartition:
        partition, count = item
        rows = catalog.rows(partition)
        if "version" in rows.column_names and rows["version"].null_count == count:
            # Known rows of before there were versions; with the column their hash would be another.
            rows = rows.drop_columns("version")
        digest = table_digest(rows)
        key = rows_key(partition, digest)
        if storage.stat(key) is None:
            storage.put(key, parquet_bytes(rows))
        return PlannedPartition(partition, count, digest)

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for start in range(0, len(catalog.partitions), _BLOCK):
            yield from pool.map(write, catalog.partitions[start : start + _BLOCK])
