"""One partition, start to end: cut its objects, predict them, commit both.

Each step looks in the ledger first: a commit with the same fingerprint is left
alone. Whatever is not committed is written anew, wholly.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from gzscale.catalog.pixels import Partition
from gzscale.config import NightConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.errors import LedgerError, WorkerError
from gzscale.night.answering import answer_all
from gzscale.night.answers import merge_answers
from gzscale.night.compute import compute_kind
from gzscale.night.fingerprint import fingerprint, table_digest
from gzscale.night.images import LostSurvey, WatchedSurvey
from gzscale.night.ledger import Count, Ledger, Record
from gzscale.night.origins import (
    Origins,
    cut_inputs,
    cut_is_current,
    cutouts_prefix,
    origins,
    predict_inputs,
    predict_is_current,
    rows_key,
    survey_of,
)
from gzscale.night.reach import check_reach
from gzscale.night.sharing import Sharing
from gzscale.night.tables import parquet_bytes, read_parquet
from gzscale.storage import Storage, open_storage, sha256_hex
from gzscale.surveys.base import Shareable
from gzscale.surveys.decoded import DecodedImages

__all__ = ["Summary", "commit_cutouts", "commit_predictions", "cut", "predict"]


@dataclass
class Summary:
    """What one partition's work came to; small, since it travels to the main process.

    Attributes
    ----------
    partition
        The HEALPix pixel.
    counts
        Accounts: ``objects``, each geometry and each task.
    seconds
        Time spent by step; ``work`` is all of it.
    bytes_read
        Of image files.
    skipped
        Stages that were committed already.
    images, taken
        Name of each image that was opened, each time that it was, and of those that were found decoded.
    """

    partition: Partition
    counts: dict[str, Count] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    skipped: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


def _check_worker(config: NightConfig, origin: Origins, root: str = "") -> None:
    """Refuse to work with other code or bundles than the night was planned with, or without its places."""
    check_reach(config.output, root)
    if replace(origins(config), compute=origin.compute, rooted=origin.rooted) != origin:
        raise WorkerError(
            f"worker {_worker()} has other code, bundles or index files than the night's main process; "
            "install the same gzscale on every worker and start them anew"
        )


def _read_rows(storage: Storage, partition: Partition, digest: str) -> pa.Table:
    key = rows_key(partition, digest)
    rows = read_parquet(storage, key)
    if table_digest(rows) != digest:
        raise LedgerError(f"{storage.url(key)}: not the rows that the night planned; plan it again")
    return rows


def cut(
    config: NightConfig,
    origin: Origins,
    partition: Partition,
    rows_digest: str,
    decoded: DecodedImages | None = None,
) -> Summary:
    """Cut the objects of one partition and commit the cutout store.

    Parameters
    ----------
    config
        The night's configuration.
    origin
        What the night's main process works from.
    partition
        The HEALPix pixel.
    rows_digest
        Hash of its catalog rows.
    decoded
        Decoded images that the partitions of this host share; None to open each for this one.

    Raises
    ------
    WorkerError
        If this process would work from something else.
    """
    start = time.perf_counter()
    _check_worker(config, origin, config.survey.root if origin.rooted else "")
    ledger = Ledger(open_storage(config.output))
    old = ledger.read("cut", partition)
    if old is not None and cut_is_current(config, origin, ledger, old, rows_digest):
        return Summary(partition, old.counts, {"work": time.perf_counter() - start}, skipped=("cut",))
    survey = survey_of(config)
    sharing = None
    if decoded is not None and isinstance(survey, Shareable):
        sharing = Sharing(survey, decoded, fingerprint(origin.cut), partition, config.max_objects)
    watched = WatchedSurvey(survey, config.survey.root, sharing)
    return commit_cutouts(config, origin, watched, partition, rows_digest)


def commit_cutouts(
    config: NightConfig,
    origin: Origins,
    survey: WatchedSurvey | LostSurvey,
    partition: Partition,
    rows_digest: str,
) -> Summary:
    """Cut the objects of one partition from a survey, whatever is there already, and commit them.

    Parameters
    ----------
    config, origin, partition, rows_digest
        See `cut`.
    survey
        Where the pixels come from, noting the states of its images.
    """
    start = time.perf_counter()
    storage = open_storage(config.output)
    ledger = Ledger(storage)
    rows = _read_rows(storage, partition, rows_digest)
    prefix = cutouts_prefix(partition)
    ledger.revoke("cut", partition)
    storage.delete_tree(prefix)
    result = cut_partition(survey, rows, config.geometries, storage, prefix)
    files = {key: list(value) for key, value in sorted(result.inventory.items())}
    files |= _put_tables(
        storage,
        {
            f"ledger/cut/{partition.path}.quarantine.parquet": result.quarantine,
            f"ledger/cut/{partition.path}.gaps.parquet": result.gaps,
        },
    )
    counts = {name: Count(rows.num_rows, done) for name, done in result.done.items()}
    for task, reason in zip(
        result.quarantine["task"].to_pylist(), result.quarantine["reason"].to_pylist(), strict=True
    ):
        quarantined = counts[task].quarantined
        quarantined[reason] = quarantined.get(reason, 0) + 1
    inputs = cut_inputs(origin, rows_digest)
    seconds = {**result.seconds, "cut": time.perf_counter() - start}
    ledger.commit(
        Record(
            stage="cut",
            partition=partition,
            fingerprint=fingerprint(inputs),
            inputs=inputs,
            files=files,
            counts=counts,
            images=dict(sorted(survey.states.items())),
            seconds=seconds,
            worker=_worker(),
            span=_span(start),
        )
    )
    seconds = {**seconds, "work": time.perf_counter() - start}
    return Summary(
        partition,
        counts,
        seconds,
        sum(survey.bytes_read),
        images=tuple(survey.opened),
        taken=tuple(survey.taken),
    )


def predict(
    config: NightConfig, origin: Origins, partition: Partition, rows_digest: str, made: Summary
) -> Summary:
    """Predict the objects of one partition for every task and commit the table.

    Parameters
    ----------
    config
        The night's configuration.
    origin
        What the night's main process works from.
    partition
        The HEALPix pixel.
    rows_digest
        Hash of its catalog rows.
    made
        What cutting it came to; passed on in the result.

    Raises
    ------
    LedgerError
        If the partition was not cut.
    WorkerError
        If this process would work from something else, or on another kind of device.
    """
    _check_worker(config, origin)
    if origin.compute and compute_kind() != origin.compute:
        raise WorkerError(
            f"worker {_worker()} computes with {compute_kind()}, and the night was begun with "
            f"{origin.compute}; look at its device (`gzscale doctor`)"
        )
    return commit_predictions(config, origin, partition, rows_digest, made)


def commit_predictions(
    config: NightConfig, origin: Origins, partition: Partition, rows_digest: str, made: Summary
) -> Summary:
    """Predict the objects of one partition unless that is committed, and commit it.

    Parameters
    ----------
    config, origin, partition, rows_digest, made
        See `predict`.
    """
    start = time.perf_counter()
    storage = open_storage(config.output)
    ledger = Ledger(storage)
    record = ledger.read("cut", partition)
    if record is None:
        raise LedgerError(f"{partition.path}: its cutouts are not committed; run the night again")
    inputs = predict_inputs(origin, record.content)
    old = ledger.read("predict", partition)
    if old is not None and predict_is_current(origin, ledger, old, record.content):
        return _joined(made, old.counts, {"work": time.perf_counter() - start}, "predict")
    ledger.revoke("predict", partition)
    rows = _read_rows(storage, partition, rows_digest)
    seconds: dict[str, float] = {}
    answers = answer_all(config, storage, record, rows, seconds)
    # Waiting for a device that predicts other partitions is nobody's work.
    waited = seconds.pop("wait", 0.0)
    lost = read_parquet(storage, f"ledger/cut/{partition.path}.quarantine.parquet")
    merged = merge_answers(rows, answers, lost)
    files = _put_tables(
        storage,
        {
            f"predictions/{partition.path}.parquet": merged.table,
            f"ledger/predict/{partition.path}.quarantine.parquet": merged.quarantine,
        },
    )
    seconds["predict"] = time.perf_counter() - start - waited
    ledger.commit(
        Record(
            stage="predict",
            partition=partition,
            fingerprint=fingerprint(inputs),
            inputs=inputs,
            files=files,
            counts=merged.counts,
            seconds=seconds,
            worker=_worker(),
            span=_span(start),
        )
    )
    seconds["work"] = time.perf_counter() - start - waited
    return _joined(made, merged.counts, seconds, None)


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _span(start: float) -> list[float]:
    """Turn the performance counter of a start into a span of the clock that ends now."""
    now = time.time()
    return [now - (time.perf_counter() - start), now]


def _put_tables(storage: Storage, tables: dict[str, pa.Table]) -> dict[str, list[Any]]:
    """Store tables; return their inventory."""
    files = {}
    for key, table in tables.items():
        data = parquet_bytes(table)
        storage.put(key, data)
        files[key] = [sha256_hex(data), len(data)]
    return files


def _joined(
    made: Summary, counts: dict[str, Count], seconds: dict[str, float], skipped: str | None
) -> Summary:
    total = dict(made.seconds)
    for name, value in seconds.items():
        total[name] = total.get(name, 0.0) + value
    return replace(
        made,
        counts={**made.counts, **counts},
        seconds=total,
        skipped=(*made.skipped, skipped) if skipped else made.skipped,
    )
