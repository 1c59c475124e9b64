"""Tables on the local disk while a catalog is sorted: numbered buckets and sorted runs, as Arrow IPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Buckets", "read_run", "regroup", "write_run"]

#: Rows of a record batch in a sorted run: what a read of one row costs at most.
RUN_BATCH_ROWS = 8192


class Buckets:
    """Numbered files to which record batches are appended; each keeps the order of its appends.

    Parameters
    ----------
    folder
        Made if it is not there; one file a bucket, made with its first append.
    schema
        Of all batches.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._writers: dict[int, tuple[pa.NativeFile, pa.RecordBatchWriter]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, batch: pa.RecordBatch, buckets: NDArray[np.integer]) -> None:
        """Append each row to its bucket, in order.

        Parameters
        ----------
        batch
            n rows.
        buckets
            Number of each row's bucket, shape (n,).
        """
        if not batch.num_rows:
            return
        first = buckets[0]
        if (buckets == first).all():
            self._write(int(first), batch)
            return
        order = np.argsort(buckets, kind="stable")
        batch = batch.take(pa.array(order))
        numbers, starts = np.unique(buckets[order], return_index=True)
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(order)], strict=True):
            self._write(int(number), batch.slice(start, stop - start))

    def close(self) -> None:
        """End all files; they can be read after this."""
        for file, writer in self._writers.values():
            writer.close()
            file.close()
        self._writers.clear()

    def __enter__(self) -> Buckets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, bucket: int) -> Iterator[pa.RecordBatch]:
        """Yield what was appended to a bucket; nothing where nothing was."""
        path = self._path(bucket)
        if path.exists():
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                yield from stream

    def remove(self, bucket: int) -> None:
        """Delete a bucket's file."""
        self._path(bucket).unlink(missing_ok=True)

    def _write(self, bucket: int, batch: pa.RecordBatch) -> None:
        if bucket not in self._writers:
            file = pa.OSFile(str(self._path(bucket)), "wb")
            self._writers[bucket] = (file, pa.ipc.new_stream(file, self._schema))
        self._writers[bucket][1].write_batch(batch)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:05d}.arrows"


def regroup(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Join small batches until they have at least ``rows`` rows, and cut none; the last may be smaller."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield _joined(held)
            held, count = [], 0
    if count:
        yield _joined(held)


def write_run(path: Path, table: pa.Table) -> None:
    """Write a table so that any stretch of its rows can be read without the rest."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=RUN_BATCH_ROWS)


def read_run(path: Path, start: int, stop: int) -> pa.Table:
    """Read rows ``start`` (included) to ``stop`` (excluded) of a run."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as run:
        first = start // RUN_BATCH_ROWS
        last = min(-(-stop // RUN_BATCH_ROWS), run.num_record_batches)
        table = pa.Table.from_batches([run.get_batch(i) for i in range(first, last)], run.schema)
        table = table.slice(start - first * RUN_BATCH_ROWS, stop - start)
        # A copy, so that the result does not keep the file mapped.
        return table.take(pa.array(np.arange(table.num_rows))).combine_chunks()


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
