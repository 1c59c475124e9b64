"""Training samples without frames on disk: galaxies of known redshift and kind as a cutout store.

A sample is made block by block; a block is a partition of the store with a truth table beside it.
Layout below the output::

    cutouts/block=<k>.zarr     as gzscale.cutouts.convention says, one geometry named ``sky``
    truth/block=<k>.parquet    the same galaxies in the same order
    sample.json                what was asked for and the hashes of all files; written last

`gzscale.sky.blocks` draws them, and says what differs from a night's cutouts.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from gzscale._parquet import decode
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.cutouts.write import PartitionWriter
from gzscale.errors import ConfigError, DamageError
from gzscale.sky.blocks import Request, draw_block
from gzscale.storage import Storage, open_storage, sha256_hex

__all__ = ["GEOMETRY", "is_sample", "read_sample", "require_survey", "write_sample"]

#: Name of the geometry.
GEOMETRY = "sky"
#: What says that a sample is whole.
_STORY = "sample.json"


def write_sample(
    out: str,
    request: Request,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a sample and write it below a folder.

    The same request gives the same bytes, whatever the number of workers. Memory is one block's a worker.

    Parameters
    ----------
    out
        Folder or URL; files of the same names are replaced.
    request
        The sample.
    workers
        Processes; as many as there are cores by default. With one, nothing is spawned.
    progress
        Called with (galaxies written, galaxies in all) each time that a block is written.

    Raises
    ------
    StorageError
        If the output cannot be written.
    """
    storage = open_storage(out)
    storage.delete(_STORY)
    inventory: dict[str, tuple[str, int]] = {}
    jobs = ((out, request, number) for number in range(request.blocks))
    for number, written in enumerate(_run(jobs, min(workers or _cores(), request.blocks)), 1):
        inventory.update(written)
        if progress is not None:
            progress(min(number * request.block, request.objects), request.objects)
    story = {
        **asdict(request),
        "magnitudes": request.limits,
        "bands": request.bands,
        "geometry": GEOMETRY,
        "blocks": [_names(number) for number in range(request.blocks)],
        "inventory": dict(sorted(inventory.items())),
    }
    storage.put(_STORY, json.dumps(story, indent=1).encode())


def is_sample(location: str) -> bool:
    """Tell whether a folder or URL holds a whole sample."""
    return open_storage(location).stat(_STORY) is not None


def require_survey(location: str, survey: str) -> None:
    """Refuse a sample of another survey than the one that is learnt; what is no sample passes.

    Raises
    ------
    ConfigError
        If it is another survey's.
    """
    if not is_sample(location):
        return
    drawn = json.loads(open_storage(location).get(_STORY))["survey"]
    if drawn != survey:
        raise ConfigError(
            f"{location}: a sample of {drawn}, but what is learnt is to be of {survey}: give --survey "
            f"{drawn}, or draw one with gzscale sky sample --survey {survey}"
        )


def read_sample(location: str) -> Iterator[tuple[Cutouts, pa.Table]]:
    """Read a sample block by block, every byte held against its hash.

    Parameters
    ----------
    location
        Folder or URL.

    Yields
    ------
    tuple[Cutouts, pa.Table]
        Cutouts, and the truth about them in the same order.

    Raises
    ------
    MissingError
        If there is no whole sample.
    DamageError
        If a file is lost or is not what was written.
    """
    storage = open_storage(location)
    story = json.loads(storage.get(_STORY))
    inventory = {key: (digest, size) for key, (digest, size) in story["inventory"].items()}
    for names in story["blocks"]:
        data = storage.get(names["truth"])
        if sha256_hex(data) != inventory[names["truth"]][0]:
            raise DamageError(f"{storage.url(names['truth'])}: not what was written; draw the sample again")
        truth = decode(data)
        yield read_cutouts(storage, names["cutouts"], story["geometry"], inventory), truth


def _names(number: int) -> dict[str, str]:
    return {"cutouts": f"cutouts/block={number:05d}.zarr", "truth": f"truth/block={number:05d}.parquet"}


_Job = tuple[str, Request, int]


def _write_block(job: _Job) -> dict[str, tuple[str, int]]:
    """Draw and write one block; the unit of work of a process."""
    out, request, number = job
    storage: Storage = open_storage(out)
    block, names = draw_block(request, number), _names(number)
    writer = PartitionWriter(storage, names["cutouts"])
    writer.write_group(GEOMETRY, block.content)
    writer.close()
    buffer = io.BytesIO()
    pq.write_table(block.truth, buffer, compression="zstd")
    data = buffer.getvalue()
    storage.put(names["truth"], data)
    return {**writer.inventory, names["truth"]: (sha256_hex(data), len(data))}


def _run(jobs: Iterator[_Job], workers: int) -> Iterator[dict[str, tuple[str, int]]]:
    """Run the jobs, at most two a worker waiting, and yield their results in order."""
    if workers == 1:
        yield from map(_write_block, jobs)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[dict[str, tuple[str, int]]]] = deque()
        for job in jobs:
            waiting.append(pool.submit(_write_block, job))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
