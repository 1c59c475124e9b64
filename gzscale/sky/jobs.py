"""Work of the simulator on several processes, and what its tables are stored as."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["cores", "parquet_bytes", "run_jobs"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def run_jobs(work: Callable[[_Job], _Result], jobs: Iterable[_Job], workers: int) -> Iterator[_Result]:
    """Run jobs on processes, at most two a worker waiting, and yield their results as they come.

    Parameters
    ----------
    work
        A module's function.
    jobs
        What it is called with.
    workers
        Processes; with one, nothing is spawned.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: set[Future[_Result]] = set()
        for job in jobs:
            waiting.add(pool.submit(work, job))
            if len(waiting) >= 2 * workers:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in waiting)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
