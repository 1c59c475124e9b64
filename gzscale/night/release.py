"""The release: a night's catalogs, written beside the older ones and switched over at once.

A release is a folder ``releases/<release>/`` with one HATS collection a task, the
quarantine table, and ``manifest.json`` with the hash of every file. Its name is the
night's date and a hash of what it holds; its bytes depend on what it holds alone. The
pointer ``releases/LATEST`` moves last.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gzscale._parquet import decode
from gzscale.catalog.hats import write_collection
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import COVERAGE_COLUMN, ID_COLUMN, QUARANTINE_SCHEMA, release_columns
from gzscale.config import NightConfig
from gzscale.errors import DamageError, LedgerError
from gzscale.night.answers import coverage_column, done_column
from gzscale.night.candidates import review_name
from gzscale.night.fingerprint import code_digest, fingerprint
from gzscale.night.ledger import Ledger, Record, seal
from gzscale.night.origins import is_made_from, open_bundle, origins, rows_key
from gzscale.night.planned import Plan, catalog_quarantine_key
from gzscale.night.pointer import Pointer, holds, manifest_key, move_pointer, read_pointer
from gzscale.night.review import list_length, write_review
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage, open_storage, sha256_hex
from gzscale.tasks.base import DistributionTask, Ranked, load_task

__all__ = ["prune", "publish"]


def publish(config: NightConfig, plan: Plan, started: str) -> str:
    """Write the night's release and move the pointer.

    Parameters
    ----------
    config
        The night's configuration.
    plan
        Its plan; every partition is committed.
    started
        UTC date of the night, ``YYYY-MM-DD``, the first part of a new release's name.

    Returns
    -------
    str
        Name of the release: an older one's, where its content is this night's.

    Raises
    ------
    LedgerError
        If a partition is not committed, or predictions are of several kinds of device.
    DamageError
        If what a partition's commit names is not what is stored.
    """
    storage = open_storage(config.output)
    lost = sha256_hex(storage.get(catalog_quarantine_key(plan.night)))
    content = fingerprint(
        {
            "partitions": list(_contents(config, plan, storage)),
            "quarantine": lost,
            "tasks": sorted(config.tasks),
            "release": config.release.model_dump(),
            "review": {name: [task.review, task.review_least] for name, task in config.tasks.items()},
            "code": code_digest("catalog", "night/review.py"),
        }
    )
    pointer = read_pointer(storage)
    if pointer is not None and holds(storage, pointer.release, content):
        return pointer.release
    _remove_unfinished(storage)
    release = f"{started}-{content[:12]}"
    files: dict[str, tuple[str, int]] = {}
    rows: dict[str, int] = {}
    for name in config.tasks:
        files |= _write_task(config, plan, storage, release, name, rows)
        files |= _write_review(config, plan, storage, release, name, rows[name])
    files |= _write_quarantine(plan, storage, release)
    manifest = seal(
        {
            "content": content,
            "rows": rows,
            "files": {
                key.removeprefix(f"releases/{release}/"): list(value) for key, value in sorted(files.items())
            },
        }
    )
    storage.put(manifest_key(release), manifest)
    move_pointer(storage, Pointer(release, plan.night, sha256_hex(manifest)))
    return release


def prune(config: NightConfig, plan: Plan) -> int:
    """Remove what earlier nights made for partitions that the plan no longer has, and rows that it replaced.

    The night is recorded as complete before: a delta is joined to the rows of the last complete one.
    Releases keep their own copies; they stay.

    Returns
    -------
    int
        Number of partitions that were removed.
    """
    storage = open_storage(config.output)
    partitions = {item.partition.path for item in plan.partitions}
    rows = {rows_key(item.partition, item.digest) for item in plan.partitions}
    gone = set()
    for entry in list(storage.list("ledger/rows")):
        if entry.key in rows:
            continue
        path = entry.key.removeprefix("ledger/rows/").partition(".")[0]
        if path not in partitions:
            _remove_partition(storage, path)
            gone.add(path)
        # Last, since it is what a prune that was killed finds the partition by.
        storage.delete(entry.key)
    return len(gone)


def _remove_partition(storage: Storage, path: str) -> None:
    for key in (f"ledger/cut/{path}.json", f"ledger/predict/{path}.json", f"predictions/{path}.parquet"):
        storage.delete(key)
    for table in ("cut/{}.quarantine", "cut/{}.gaps", "predict/{}.quarantine"):
        storage.delete(f"ledger/{table.format(path)}.parquet")
    storage.delete_tree(f"cutouts/{path}.zarr")


def _remove_unfinished(storage: Storage) -> None:
    """Remove what a night that was killed in the middle of its release has left."""
    names = {entry.key.split("/")[1] for entry in storage.list("releases") if entry.key.count("/") > 1}
    for name in names:
        if storage.stat(manifest_key(name)) is None:
            storage.delete_tree(f"releases/{name}")


def _contents(config: NightConfig, plan: Plan, storage: Storage) -> Iterator[list[str]]:
    """Yield path and content of every partition, in the order of the sky, refusing strays.

    A worker that an earlier night has left running may have committed what that one asked for.
    """
    ledger, origin = Ledger(storage), origins(config)
    kinds: set[str] = set()
    for item in plan.partitions:
        if not is_made_from(origin, ledger, item.partition, item.digest):
            raise LedgerError(
                f"{item.partition.path}: not committed for what this night was planned with, so that "
                "nothing is released; run the night again"
            )
        record = _committed(storage, item.partition)
        kinds.add(record.inputs.get("compute", ""))
        if len(kinds) > 1:
            raise LedgerError(
                f"{item.partition.path}: predictions of this plan were made in {len(kinds)} ways "
                f"({', '.join(sorted(kinds))}), so that nothing is released; run the night again, which "
                "makes them in one"
            )
        yield [item.partition.path, record.content]


def _committed(storage: Storage, partition: Partition) -> Record:
    record = Ledger(storage).read("predict", partition)
    if record is None:
        raise LedgerError(
            f"{partition.path}: not committed, so that nothing is released; run the night again"
        )
    return record


def _checked(storage: Storage, record: Record, key: str, columns: list[str] | None = None) -> pa.Table:
    data = storage.get(key)
    if [sha256_hex(data), len(data)] != record.files[key]:
        raise DamageError(f"{storage.url(key)}: not what was committed; delete it and run the night again")
    return decode(data, columns)


def _write_task(
    config: NightConfig, plan: Plan, storage: Storage, release: str, name: str, rows: dict[str, int]
) -> dict[str, tuple[str, int]]:
    columns = release_columns(load_task(name).columns)
    names = [column.name for column in columns]
    stored = [coverage_column(name) if item == COVERAGE_COLUMN.name else item for item in names]
    counted = [
        (item.partition, _committed(storage, item.partition).counts[name].done) for item in plan.partitions
    ]
    rows[name] = sum(count for _, count in counted)

    def read(partition: Partition) -> pa.Table:
        record = _committed(storage, partition)
        wanted = [*stored, done_column(name)]
        whole = _checked(storage, record, f"predictions/{partition.path}.parquet", wanted)
        return whole.filter(whole[done_column(name)]).select(stored).rename_columns(names)

    prefix = f"releases/{release}/{name}"
    files = write_collection(read, counted, columns, storage, prefix, name, config.release)
    return files | _write_distribution(config, storage, release, name, counted)


def _write_distribution(
    config: NightConfig, storage: Storage, release: str, name: str, counted: list[tuple[Partition, int]]
) -> dict[str, tuple[str, int]]:
    """Write the distributions of a task that has them, beside its catalog."""
    task = load_task(name)
    if not isinstance(task, DistributionTask):
        return {}
    from gzscale.catalog.pdfs import write_pdfs

    column = task.distribution

    def read(partition: Partition) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        record = _committed(storage, partition)
        wanted = [ID_COLUMN, column, done_column(name)]
        whole = _checked(storage, record, f"predictions/{partition.path}.parquet", wanted)
        chosen = whole.filter(whole[done_column(name)]).combine_chunks()
        density = pc.list_flatten(chosen[column]).to_numpy().reshape(chosen.num_rows, -1)
        return chosen[ID_COLUMN].to_numpy(), density

    edges = task.edges(open_bundle(config, name).calibration)
    prefix = f"releases/{release}/{name}/{name}_pdfs"
    return write_pdfs(read, counted, edges, storage, prefix, config.release.max_rows)


def _write_review(
    config: NightConfig, plan: Plan, storage: Storage, release: str, name: str, objects: int
) -> dict[str, tuple[str, int]]:
    """Write the list of a task's best candidates, if it has one."""
    task = load_task(name)
    length = list_length(config, task, objects)
    if not isinstance(task, Ranked) or not length:
        return {}
    key = f"releases/{release}/{review_name(name)}"
    data = write_review(config, plan, storage, task, length)
    storage.put(key, data)
    return {key: (sha256_hex(data), len(data))}


def _write_quarantine(plan: Plan, storage: Storage, release: str) -> dict[str, tuple[str, int]]:
    """Gather every quarantine row of the night in one table, a partition at a time."""
    key = f"releases/{release}/quarantine.parquet"
    with tempfile.TemporaryDirectory(prefix="gzscale-release-") as folder:
        path = Path(folder, "quarantine.parquet")
        with pq.ParquetWriter(path, QUARANTINE_SCHEMA, compression="zstd") as writer:
            whole = read_parquet(storage, catalog_quarantine_key(plan.night))
            writer.write_table(whole.cast(QUARANTINE_SCHEMA))
            for item in plan.partitions:
                record = _committed(storage, item.partition)
                own = f"ledger/predict/{item.partition.path}.quarantine.parquet"
                table = _checked(storage, record, own)
                if table.num_rows:
                    writer.write_table(table.cast(QUARANTINE_SCHEMA))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        storage.put_file(key, path)
        return {key: (digest, path.stat().st_size)}
