"""Verification: everything that was committed is read again and held against its hash."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from gzscale.errors import DamageError, MissingError
from gzscale.night.fingerprint import table_digest
from gzscale.night.ledger import Ledger, Record
from gzscale.night.lock import hold_lock
from gzscale.night.origins import cutouts_prefix, rows_key
from gzscale.night.planned import Plan, PlannedPartition, read_plan
from gzscale.night.pointer import manifest_key, read_manifest, read_pointer
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage, open_storage, sha256_hex

__all__ = ["Finding", "verify", "verify_and_repair"]

#: Files that are read at the same time.
_READERS = 4
#: Partitions that are looked at together.
_BLOCK = 64


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was committed.

    Attributes
    ----------
    where
        The file, as a person would type it.
    what
        What is wrong, and what to do.
    """

    where: str
    what: str


def verify(output: str, progress: Callable[[int], None] = lambda files: None) -> list[Finding]:
    """Re-hash all that the last complete night and all releases have committed.

    Parameters
    ----------
    output
        The night's output.
    progress
        Called with the number of files that were read since the last call.

    Returns
    -------
    list of Finding
        Empty where everything is as it was committed.
    """
    storage = open_storage(output)
    findings: list[Finding] = []
    plan = _last_plan(storage, findings)
    if plan is not None:
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(plan.partitions), _BLOCK):
                block = plan.partitions[start : start + _BLOCK]
                for found, files in pool.map(lambda item: _partition(storage, item), block):
                    findings += found
                    progress(files)
    releases = {entry.key.split("/")[1] for entry in storage.list("releases") if entry.key.count("/") > 1}
    for release in sorted(releases):
        findings += _release(storage, release, progress)
    findings += _pointer(storage)
    return findings


def verify_and_repair(
    output: str, progress: Callable[[int], None] = lambda files: None
) -> tuple[list[Finding], int]:
    """Remove the files that are not as they were committed, so that the next night makes them anew.

    The output's lock is held meanwhile: what a night that runs has just replaced would be removed.

    Parameters
    ----------
    output, progress
        See `verify`.

    Returns
    -------
    findings : list of Finding
        See `verify`.
    removed : int
        Number of files that were removed.

    Raises
    ------
    LockedError
        If a night is running on this output.
    """
    storage = open_storage(output)
    if not Ledger(storage).nights():  # A mistyped output gets no lock of ours.
        return verify(output, progress), 0
    with hold_lock(storage, "verify --repair") as hold:
        findings = verify(output, progress)
        hold.check()
        return findings, _remove(storage, findings)


def _remove(storage: Storage, findings: Iterable[Finding]) -> int:
    top = storage.url().rstrip("/") + "/"
    keys = {finding.where.removeprefix(top) for finding in findings if finding.where.startswith(top)}
    removed = 0
    for key in sorted(keys):
        if not key.endswith("/") and storage.stat(key) is not None:
            storage.delete(key)
            removed += 1
    return removed


def _last_plan(storage: Storage, findings: list[Finding]) -> Plan | None:
    ledger = Ledger(storage)
    names = []
    for name in ledger.nights():
        try:
            record = ledger.read_night(name)
        except DamageError as error:
            findings.append(Finding(storage.url(ledger.night_key(name)), str(error)))
            continue
        if record.state == "complete":
            names.append((record.started, name))
    if not names:
        findings.append(Finding(storage.url("ledger/nights"), "no complete night is recorded; run it"))
        return None
    try:
        return read_plan(storage, max(names)[1])
    except (DamageError, MissingError) as error:
        findings.append(Finding(storage.url(f"ledger/nights/{max(names)[1]}"), str(error)))
        return None


def _partition(storage: Storage, item: PlannedPartition) -> tuple[list[Finding], int]:
    """Check one partition: its rows, both commits, and every file that they name."""
    findings = []
    key = rows_key(item.partition, item.digest)
    try:
        if table_digest(read_parquet(storage, key)) != item.digest:
            findings.append(Finding(storage.url(key), "not the rows that were planned; run the night again"))
    except (DamageError, MissingError) as error:
        findings.append(Finding(storage.url(key), str(error)))
    files = 1
    for stage in ("cut", "predict"):
        own = Ledger.key(stage, item.partition)
        try:
            record = Ledger(storage).read(stage, item.partition)
        except DamageError as error:
            findings.append(Finding(storage.url(own), str(error)))
            continue
        if record is None:
            findings.append(
                Finding(
                    storage.url(own), "the partition is planned, but this commit is gone; run the night again"
                )
            )
            continue
        findings += _record(storage, record)
        files += len(record.files)
    return findings, files


def _record(storage: Storage, record: Record) -> Iterator[Finding]:
    for key, (digest, size) in record.files.items():
        yield from _file(storage, key, digest, size)
    if record.stage == "cut":
        for entry in storage.list(cutouts_prefix(record.partition)):
            if entry.key not in record.files:
                yield Finding(storage.url(entry.key), "no commit names this file; delete it")


def _file(storage: Storage, key: str, digest: str, size: int) -> Iterator[Finding]:
    try:
        data = storage.get(key)
    except MissingError:
        yield Finding(storage.url(key), f"gone; {size} bytes were committed")
        return
    if len(data) != size:
        yield Finding(storage.url(key), f"{len(data)} bytes, but {size} were committed")
    elif sha256_hex(data) != digest:
        yield Finding(
            storage.url(key), f"its {size} bytes are not those that were committed (SHA-256 differs)"
        )


def _release(storage: Storage, release: str, progress: Callable[[int], None]) -> Iterator[Finding]:
    try:
        manifest = read_manifest(storage, release)
    except MissingError:
        yield Finding(
            storage.url(manifest_key(release)),
            "a release without a manifest was not finished; the next night that ends removes or replaces it",
        )
        return
    except DamageError as error:
        yield Finding(storage.url(manifest_key(release)), str(error))
        return
    files = {f"releases/{release}/{key}": value for key, value in manifest["files"].items()}
    for key, (digest, size) in files.items():
        yield from _file(storage, key, digest, size)
        progress(1)
    for entry in storage.list(f"releases/{release}"):
        if entry.key not in files and entry.key != manifest_key(release):
            yield Finding(storage.url(entry.key), "the release's manifest does not name this file; delete it")
    for task, rows in manifest["rows"].items():
        yield from _row_counts(storage, f"releases/{release}/{task}", files, rows)


def _row_counts(
    storage: Storage, prefix: str, files: dict[str, list[object]], rows: int
) -> Iterator[Finding]:
    """Hold the rows of the primary catalog's files, and what its properties say, against the manifest."""
    primary = f"{prefix}/{prefix.rsplit('/', 1)[1]}/"
    stored = 0
    for key in files:
        if key.startswith(f"{primary}dataset/Norder="):
            try:
                stored += pq.read_metadata(io.BytesIO(storage.get(key))).num_rows
            except (OSError, ValueError):
                return  # Damage that was found above; a sum without this file says nothing.
    if stored != rows:
        yield Finding(storage.url(primary), f"its files hold {stored} rows, but {rows} were released")
    key = f"{primary}hats.properties"
    if key not in files:
        return
    try:
        text = storage.get(key).decode(errors="replace")
    except MissingError:
        return
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "hats_nrows" and value.strip() != str(rows):
            yield Finding(storage.url(key), f"hats_nrows is {value.strip()}, but {rows} rows were released")


def _pointer(storage: Storage) -> Iterator[Finding]:
    try:
        pointer = read_pointer(storage)
    except DamageError as error:
        yield Finding(storage.url("releases/LATEST"), str(error))
        return
    if pointer is None:
        yield Finding(storage.url("releases/LATEST"), "no release is published")
        return
    key = manifest_key(pointer.release)
    try:
        if sha256_hex(storage.get(key)) != pointer.manifest:
            yield Finding(storage.url(key), "not the manifest that releases/LATEST names")
    except MissingError:
        yield Finding(storage.url(key), "releases/LATEST names this release, but its manifest is gone")
    if storage.stat(Ledger.night_key(pointer.night)) is None:
        yield Finding(
            storage.url(Ledger.night_key(pointer.night)), "the record of the night that released is gone"
        )
