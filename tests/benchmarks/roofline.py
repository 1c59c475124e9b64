"""Each stage between a cutout store and a table of predictions by itself, and all of them together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from stores import Piece, observed

from gzscale.cutouts.store import Cutouts
from gzscale.models.bundle import Bundle
from gzscale.models.engine import Engine, run_together
from gzscale.models.observation import Observation
from gzscale.models.transfer import Slot, Transfer, borrow
from gzscale.night.tables import parquet_bytes
from gzscale.storage import LocalStorage, Storage
from gzscale.tasks.base import load_task
from gzscale.tasks.seen import look

#: Seconds that a GPU's pipeline has to fill, which are not counted, and that are measured at least.
_WARM, _LEAST = 1.0, 5.0


class HeldStorage(LocalStorage):
    """A partition's files in memory, so that decoding them is measured without reading them."""

    def __init__(self, storage: Storage, keys: Sequence[str]) -> None:
        super().__init__("/held")
        self._files = {key: storage.get(key) for key in keys}
        self._stats = {key: storage.stat(key) for key in keys}

    def get(self, key: str) -> bytes:
        return self._files[key]

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return self._files[key][start:stop]

    def stat(self, key: str) -> Any:
        return self._stats.get(key)


@dataclass
class Source:
    """Partitions of one geometry of a store.

    Attributes
    ----------
    storage, pieces, geometry
        Where they are.
    """

    storage: LocalStorage
    pieces: Sequence[Piece]
    geometry: str

    def read(self, piece: Piece) -> Cutouts:
        return piece.read(self.storage, self.geometry)

    def endless(self) -> Iterator[Piece]:
        return itertools.cycle(self.pieces)


@dataclass(frozen=True)
class Run:
    """A run from store to predictions: images a second, and how much of the time a GPU computed batches."""

    rate: float
    busy: float | str


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Return images a second of something that says how many it did, repeated for some seconds."""
    work()
    wait_for(device)
    done, start = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - start < seconds:
        done += work()
        wait_for(device)
    return done / (time.perf_counter() - start)


def inputs_of(engine: Engine, seen: Observation, rows: int) -> torch.Tensor:
    """Return a batch as the network takes it, on the device."""
    arrays = engine.layout.empty(rows, seen.images.dtype)
    engine.layout.fill(arrays, seen, np.arange(rows) % len(seen))
    return engine.inputs(*(torch.from_numpy(array).to(engine.device) for array in arrays))


def ceiling(engine: Engine, seen: Observation, seconds: float) -> dict[str, float]:
    """Return images a second of a loop over a tensor on the device: kernels by themselves, and as a graph."""
    batch = inputs_of(engine, seen, engine.batch)

    times = 8 if engine.device.type == "cuda" else 1

    def loop(forward: Callable[[torch.Tensor], Any]) -> Callable[[], int]:
        def work() -> int:
            for _ in range(times):
                forward(batch)
            return times * len(batch)

        return work

    found = {"eager": rate(loop(engine._forward), engine.device, seconds)}
    if engine._replay is not None:
        found["graph"] = rate(loop(engine._batch), engine.device, seconds)
    return found


def is_captured(engine: Engine) -> bool:
    """Tell whether an engine's batches are CUDA graphs, and not run kernel by kernel for want of one."""
    return engine._replay is not None and engine._replay.is_captured


def stages(engine: Engine, source: Source, seconds: float) -> dict[str, float]:
    """Return images a second of each stage by itself, on one thread where it is the host's."""
    piece, device = source.pieces[0], engine.device
    keys = piece.keys(source.geometry)
    held = HeldStorage(source.storage, keys)
    seen = observed(source.read(piece))
    layout, rows = engine.layout, min(engine.sizes.within(len(seen)).batch, len(seen))
    arrays = layout.empty(rows, seen.images.dtype)
    starts = range(0, len(seen) - rows + 1, rows)

    def fetch() -> int:
        for key in keys:
            source.storage.get(key)
        return piece.objects

    def prepare() -> int:
        for start in starts:
            layout.fill(arrays, seen, slice(start, start + rows))
        return rows * len(starts)

    pinned = [
        tensor.pin_memory() if device.type == "cuda" else tensor.clone()
        for tensor in map(torch.from_numpy, arrays)
    ]
    moved = [torch.empty_like(tensor, device=device) for tensor in pinned]

    def copy() -> int:
        for _ in starts:
            for to, tensor in zip(moved, pinned, strict=True):
                to.copy_(tensor, non_blocking=True)
        return rows * len(starts)

    def feed(transfer: Transfer) -> int:
        def fill(slot: Slot, start: int) -> None:
            slot.count = slot.rows = rows
            layout.fill(slot.arrays, seen, slice(start, start + rows))

        for slot in transfer.stream(starts, fill):
            transfer.send(slot, lambda tensors: [engine.inputs(*tensors)])
            transfer.done(slot)
        return rows * len(starts)

    outputs = engine.run(seen)
    flags = look(seen)

    def write() -> int:
        source.storage.put("table.parquet", table_bytes(engine.bundle, outputs, flags))
        return len(seen)

    work: dict[str, Callable[[], int]] = {
        "fetch": fetch,
        "check and decode": lambda: len(piece.read(held, source.geometry)),
        "look": lambda: len(look(seen)),
        "prepare": prepare,
        "copy": copy,
        "write": write,
    }
    found = {name: rate(do, device, seconds) for name, do in work.items()}
    with borrow(device, layout, seen.images.dtype, rows) as transfer:
        found["prepare, copy, inputs"] = rate(functools.partial(feed, transfer), device, seconds)
        wait_for(device)
    return found


def table_bytes(bundle: Bundle, outputs: Mapping[str, Any], flags: Any) -> bytes:
    """Return a task's columns as a night writes them."""
    task = load_task(bundle.task)
    values, _ = task.table(outputs, bundle.calibration, flags)
    columns = {
        column.name: pa.array(
            np.ma.getdata(values[column.name]), mask=np.ma.getmaskarray(values[column.name])
        )
        for column in task.columns
    }
    return parquet_bytes(pa.table(columns))


def from_store(engines: Sequence[Engine], source: Source, in_hand: int, seconds: float) -> Run:
    """Read partitions and predict them with every bundle, some in hand at a time as a GPU's worker has them.

    The clock starts with the end of a partition, after others have filled the pipeline, and stops with that
    of one while all are busy.
    """
    device, pieces, lock = engines[0].device, source.endless(), threading.Lock()
    warm, least = (_WARM, _LEAST) if device.type == "cuda" else (0.0, 0.0)
    run_together(engines, observed(source.read(source.pieces[0])))
    wait_for(device)
    ended: list[tuple[float, int]] = []
    with Computing(engines) as computing:
        start = time.perf_counter()

        def work() -> None:
            while len(ended) <= in_hand or time.perf_counter() < start + warm + max(seconds, least):
                with lock:
                    piece = next(pieces)
                seen = observed(source.read(piece))
                look(seen)
                run_together(engines, seen)
                with lock:
                    ended.append((time.perf_counter(), len(seen)))

        with ThreadPoolExecutor(in_hand) as pool:
            for done in [pool.submit(work) for _ in range(in_hand)]:
                done.result()
        wait_for(device)
        counted = [one for one in ended if one[0] >= start + warm]
        # Those that end last have the device more and more for themselves.
        counted = counted[: max(2, len(counted) - in_hand + 1)]
        begin, end = counted[0][0], counted[-1][0]
        return Run(sum(images for _, images in counted[1:]) / (end - begin), computing.share(begin, end))


class Computing:
    """When a GPU computed batches: an event before and after each, on the stream that computes.

    Parameters
    ----------
    engines
        Whose batches.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines if engines[0].device.type == "cuda" else ()
        self._events: list[tuple[Any, Any]] = []

    def __enter__(self) -> Computing:
        if self._engines:
            self._origin = self._event()
            self._origin.synchronize()
            self._time = time.perf_counter()
        for engine in self._engines:
            engine.rows = functools.partial(self._watched, engine.rows)  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._engines:
            del engine.rows  # type: ignore[method-assign]

    def share(self, begin: float, end: float) -> float | str:
        """Return for which part of a time they were computed; where that is not known, why."""
        if not self._engines:
            return "not measured: no GPU"
        busy = 0.0
        for first, last in self._events:
            since, until = (self._time + self._origin.elapsed_time(event) / 1e3 for event in (first, last))
            busy += max(0.0, min(until, end) - max(since, begin))
        return round(busy / (end - begin), 3)

    def _watched(self, rows: Callable[..., Any], *arguments: Any) -> Any:
        first = self._event()
        said = rows(*arguments)
        self._events.append((first, self._event()))
        return said

    @staticmethod
    def _event() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def from_memory(engines: Sequence[Engine], seen: Observation, seconds: float) -> float:
    """Return images a second of all bundles over a partition that is in memory."""

    def work() -> int:
        run_together(engines, seen)
        return len(seen)

    return rate(work, engines[0].device, seconds)


def shown_as(bundle: Bundle, size: int) -> Bundle:
    """Return a bundle that takes cutouts of another side, of which it looks at the same pixels."""
    return dataclasses.replace(bundle, geometry=dataclasses.replace(bundle.geometry, size=size))


def about_machine(device: torch.device) -> dict[str, Any]:
    """Say what was measured on."""
    told: dict[str, Any] = {"device": str(device), "torch": torch.__version__, "cuda": torch.version.cuda}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        told["processor"] = f"{len(models)} x {models[0]}" if models else ""
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        told |= {"gpu": about.name, "gpu_gigabytes": round(about.total_memory / 1e9, 1)}
    return told
