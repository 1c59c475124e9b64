"""What happened to each partition: the only truth about what is done.

A partition's stage is committed by one record, written last, that holds the
hashes of all that was written and the fingerprint of what it came from. What no
record names is not there. A record carries the hash of itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gzscale.catalog.pixels import Partition
from gzscale.errors import DamageError, MissingError
from gzscale.night.fingerprint import canonical_json
from gzscale.storage import Storage

__all__ = ["Count", "Ledger", "NightRecord", "Record", "add_counts"]

#: Version of the records' layout; a reader refuses records that are newer.
LAYOUT = 1
#: Where nights write. The lock's folder is not among them: others try for it at any time.
_WRITTEN = (
    "cutouts",
    "predictions",
    "ledger/rows",
    "ledger/cut",
    "ledger/predict",
    "ledger/nights",
    "releases",
    "reports",
)


@dataclass
class Count:
    """An account that closes: planned = done + quarantined + failed.

    Attributes
    ----------
    planned, done, failed
        Objects.
    quarantined
        Objects by reason code.
    """

    planned: int = 0
    done: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    failed: int = 0

    @property
    def closes(self) -> bool:
        """Whether nothing is lost."""
        return self.planned == self.done + sum(self.quarantined.values()) + self.failed

    def add(self, other: Count) -> None:
        """Add another account to this one."""
        self.planned += other.planned
        self.done += other.done
        self.failed += other.failed
        for reason, number in other.quarantined.items():
            self.quarantined[reason] = self.quarantined.get(reason, 0) + number
        self.quarantined = dict(sorted(self.quarantined.items()))

    def to_dict(self) -> dict[str, Any]:
        """Return the account as plain values."""
        return asdict(self)


def add_counts(total: dict[str, Count], more: dict[str, Count]) -> None:
    """Add the accounts of one partition to those of the night, by name."""
    for name, count in more.items():
        total.setdefault(name, Count()).add(count)


@dataclass(frozen=True)
class Record:
    """The commit of one partition's stage.

    Attributes
    ----------
    stage
        ``cut`` or ``predict``.
    partition
        The HEALPix pixel.
    fingerprint
        Hash of ``inputs``.
    inputs
        What it was made from: plain values.
    files
        Everything that was written: key relative to the output -> [sha256, size].
    counts
        Accounts: ``objects``, and one for each geometry (cut) or task (predict).
    images
        State of each image when it was read, by path (cut only).
    seconds
        Time spent by step; not part of any hash.
    worker
        Host and process that did it.
    span
        When it began and ended, seconds since 1970.
    """

    stage: str
    partition: Partition
    fingerprint: str
    inputs: dict[str, Any]
    files: dict[str, list[Any]]
    counts: dict[str, Count]
    images: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    worker: str = ""
    span: list[float] = field(default_factory=list)

    @property
    def content(self) -> str:
        """Hash of what was written: equal content, equal hash, whenever it was made."""
        return hashlib.sha256(canonical_json({"files": self.files})).hexdigest()


@dataclass
class NightRecord:
    """One run.

    Attributes
    ----------
    night
        Its name: the UTC time of its start, or what the caller chose.
    state
        ``running``, ``complete`` or ``failed``.
    inputs
        What the night came from: configuration, catalog, bundles, code.
    fingerprint
        Hash of ``inputs``.
    partitions
        How many.
    counts
        Accounts of the night: ``objects``, each geometry and each task.
    changes
        What the given table said beside the objects of the last complete night: see
        `gzscale.catalog.union.Changes`. Empty where nothing was compared.
    release
        Name of the release that it published.
    started, ended
        UTC, ISO 8601.
    seconds
        Wall and worker time by stage.
    bytes_read
        Of image files.
    images
        How often images were opened, and how many different ones: see `gzscale.night.openings.Openings`.
        Empty in records of before they were counted.
    failures
        Partitions that failed: their path, rows and error.
    """

    night: str
    state: str
    inputs: dict[str, Any]
    fingerprint: str
    partitions: int = 0
    counts: dict[str, Count] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    release: str = ""
    started: str = ""
    ended: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    images: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)


class Ledger:
    """The records below ``<output>/ledger``.

    Parameters
    ----------
    storage
        The night's output.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @staticmethod
    def key(stage: str, partition: Partition) -> str:
        """Name of a partition's record."""
        return f"ledger/{stage}/{partition.path}.json"

    def read(self, stage: str, partition: Partition) -> Record | None:
        """Return the commit of a stage, or None where it was not committed.

        Raises
        ------
        DamageError
            If the record is not what was written.
        """
        key = self.key(stage, partition)
        try:
            tree = unseal(self.storage.get(key), self.storage.url(key))
        except MissingError:
            return None
        tree["partition"] = Partition(*tree["partition"])
        tree["counts"] = {name: Count(**count) for name, count in tree["counts"].items()}
        return Record(**tree)

    def is_stored(self, record: Record) -> bool:
        """Tell whether every file that a commit names is there, in its length (`verify` hashes them)."""
        for key, (_, size) in record.files.items():
            entry = self.storage.stat(key)
            if entry is None or entry.size != size:
                return False
        return True

    def commit(self, record: Record) -> None:
        """Write the record that makes a stage done; everything it names is stored already."""
        for name, count in record.counts.items():
            if not count.closes:
                raise AssertionError(f"{record.stage} {record.partition.path} {name}: {count} does not close")
        tree = asdict(record)
        tree["partition"] = [record.partition.order, record.partition.pixel]
        self.storage.put(self.key(record.stage, record.partition), seal(tree))

    def revoke(self, stage: str, partition: Partition) -> None:
        """Remove a commit before what it names is written anew."""
        self.storage.delete(self.key(stage, partition))

    def clear_unfinished(self) -> None:
        """Remove the half-written files that killed writers left; the caller holds the output's lock."""
        for prefix in _WRITTEN:
            self.storage.clear_unfinished(prefix)

    def write_night(self, night: NightRecord) -> None:
        """Write the record of a run."""
        self.storage.put(self.night_key(night.night), seal(asdict(night)))

    def read_night(self, night: str) -> NightRecord:
        """Return the record of a run; MissingError where there was none of that name."""
        key = self.night_key(night)
        tree = unseal(self.storage.get(key), self.storage.url(key))
        tree["counts"] = {name: Count(**count) for name, count in tree["counts"].items()}
        return NightRecord(**tree)

    def nights(self) -> list[str]:
        """Return the names of all runs, oldest first."""
        entries = self.storage.list("ledger/nights")
        return sorted(entry.key.split("/")[2] for entry in entries if entry.key.endswith("/night.json"))

    def last_night(self) -> NightRecord | None:
        """Return the run that started last."""
        records = [self.read_night(name) for name in self.nights()[-20:]]
        return max(records, key=lambda record: record.started, default=None)

    def last_complete(self) -> NightRecord | None:
        """Return the complete run that started last."""
        names = self.nights()
        while names:
            records = [self.read_night(name) for name in names[-20:]]
            complete = [record for record in records if record.state == "complete"]
            if complete:
                return max(complete, key=lambda record: record.started)
            names = names[:-20]
        return None

    @staticmethod
    def night_key(night: str) -> str:
        """Name of a run's record."""
        return f"ledger/nights/{night}/night.json"


def seal(tree: dict[str, Any]) -> bytes:
    """Encode a record with its own hash in front."""
    body = {"layout": LAYOUT, **tree}
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    return canonical_json({"sha256": digest, "record": body}) + b"\n"


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """Decode a record and check its hash.

    Raises
    ------
    DamageError
        If the bytes are not those of a record, or not those that were written.
    """
    try:
        envelope = json.loads(data)
        body = envelope["record"]
        digest = envelope["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(
            f"{name}: not a ledger record ({error}); delete it and run the night again"
        ) from error
    if hashlib.sha256(canonical_json(body)).hexdigest() != digest:
        raise DamageError(f"{name}: the record was changed; delete it and run the night again")
    if body.pop("layout") > LAYOUT:
        raise DamageError(f"{name}: written by a newer gzscale; upgrade to read it")
    return dict(body)
