"""The rows of a release as a stream: read ahead, checked, and cut into row groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.align import end_index, first_index
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import HEALPIX_COLUMN, ID_COLUMN
from gzscale.errors import CatalogError, DamageError

__all__ = ["checked_tables", "row_groups"]

#: Partitions that are read while others are written: hides the latency of an object store.
_THREADS = 4
_AHEAD = 8


def checked_tables(
    source: Callable[[Partition], pa.Table] | Iterable[pa.Table],
    parts: Sequence[tuple[Partition, int]],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """Yield the rows of each partition, with the schema that is asked for.

    Parameters
    ----------
    source
        As in `gzscale.catalog.hats.write_collection`.
    parts
        Partitions that have rows, in sky order, and their numbers of rows.
    schema
        The columns of the release.

    Raises
    ------
    DamageError
        If a partition's rows are not as many as they should be, not inside its pixel, or not
        sorted by (``_healpix_29``, ``object_id``) with each pair once.
    CatalogError
        If a column is missing or of another type.
    """
    tables = _read_ahead(source, [part for part, _ in parts]) if callable(source) else iter(source)
    for partition, rows in parts:
        table = next(tables, None)
        found = 0 if table is None else table.num_rows
        if table is None or found != rows:
            raise DamageError(
                f"partition {partition.path}: {found} rows were read where {rows} were committed; "
                "run `gzscale verify` on the output"
            )
        table = _fit(table, partition, schema)
        _check_place_and_order(table, partition)
        yield table


def _read_ahead(read: Callable[[Partition], pa.Table], partitions: Sequence[Partition]) -> Iterator[pa.Table]:
    """Yield the partitions' rows in order, a bounded number of them read ahead on threads."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="release") as pool:
        waiting: deque[Future[pa.Table]] = deque()
        try:
            for partition in partitions:
                waiting.append(pool.submit(read, partition))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _fit(table: pa.Table, partition: Partition, schema: pa.Schema) -> pa.Table:
    """Choose a table's columns and give them the released types and metadata."""
    missing = sorted(set(schema.names) - set(table.column_names))
    if missing:
        raise CatalogError(f"partition {partition.path}: columns {missing} are missing from its predictions")
    table = table.select(schema.names)
    if table.schema.types == schema.types:
        return pa.Table.from_arrays(table.columns, schema=schema)
    try:
        return table.cast(schema)
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"partition {partition.path}: its columns do not fit the release: {error}; "
            "predict it again with the task's present version"
        ) from error


def _check_place_and_order(table: pa.Table, partition: Partition) -> None:
    healpix, ids = table[HEALPIX_COLUMN].to_numpy(), table[ID_COLUMN].to_numpy()
    if healpix.min() < first_index(partition) or healpix.max() >= end_index(partition):
        raise DamageError(
            f"partition {partition.path}: rows with {HEALPIX_COLUMN} {healpix.min()} to {healpix.max()} "
            "are not inside its pixel; run `gzscale verify` on the output"
        )
    if not _is_sorted(healpix, ids):
        raise DamageError(
            f"partition {partition.path}: rows are not sorted by ({HEALPIX_COLUMN}, {ID_COLUMN}), or an "
            "object occurs twice; run `gzscale verify` on the output"
        )


def _is_sorted(healpix: NDArray[np.int64], ids: NDArray[np.int64]) -> bool:
    step = np.diff(healpix)
    return bool(np.all((step > 0) | ((step == 0) & (ids[1:] > ids[:-1]))))


def row_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables into tables of exactly ``rows`` rows, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            yield _take(waiting, rows)
            count -= rows
    if count:
        yield _take(waiting, count)


def _take(waiting: list[pa.Table], rows: int) -> pa.Table:
    """Take the first rows out of some tables, of which the rest is kept."""
    joined = pa.concat_tables(waiting)
    waiting[:] = [joined.slice(rows)]
    return joined.slice(0, rows).combine_chunks()
