"""Each stage between a cutout store and a table of predictions by itself, and all of them together."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from stores import Piece, observed

from gzscale.cutouts.store import Cutouts
from gzscale.models.ahead import through_ring
from gzscale.models.bundle import Bundle
from gzscale.models.engine import Engine, run_together
from gzscale.models.observation import Observation
from gzscale.models.transfer import Slot, transfer_to
from gzscale.night.tables import parquet_bytes
from gzscale.storage import LocalStorage, Storage
from gzscale.tasks.base import load_task
from gzscale.tasks.seen import look

#: Seconds between two looks at how busy a GPU is.
_LOOK = 0.05


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


@dataclass
class Holder:
    """What a reading thread has read."""

    seen: Observation | None = None


@dataclass
class Run:
    """A run from store to predictions: images a second, and the percentages of a GPU's busy time."""

    rate: float
    busy: list[int] = field(default_factory=list)

    @property
    def busy_share(self) -> float | None:
        return round(float(np.mean(self.busy)) / 100, 3) if self.busy else None


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
    layout, rows = engine.layout, min(engine.batch, len(seen))
    arrays = layout.empty(rows, seen.images.dtype)
    starts = range(0, len(seen) - rows + 1, rows)
    transfer = transfer_to(device, layout, seen.images.dtype, rows)

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

    def feed() -> int:
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
        "prepare, copy, inputs": feed,
        "write": write,
    }
    return {name: rate(do, device, seconds) for name, do in work.items()}


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


def from_store(engines: Sequence[Engine], source: Source, readers: int, seconds: float) -> Run:
    """Read partitions ahead on some threads and predict them with every bundle, for some seconds."""
    stop = time.perf_counter() + seconds
    done = 0

    def fill(holder: Holder, piece: Piece) -> None:
        holder.seen = observed(source.read(piece))

    def wanted() -> Iterator[Piece]:
        for number, piece in enumerate(source.endless()):
            if number > len(source.pieces) and time.perf_counter() > stop:
                return
            yield piece

    run_together(engines, observed(source.read(source.pieces[0])))
    with busy_percentages(engines[0].device) as busy:
        start = time.perf_counter()
        stop = start + seconds
        for holder in through_ring(wanted(), [Holder() for _ in range(readers + 1)], fill, readers):
            assert holder.seen is not None
            run_together(engines, holder.seen)
            done += len(holder.seen)
        wait_for(engines[0].device)
        elapsed = time.perf_counter() - start
    return Run(done / elapsed, busy)


def from_memory(engines: Sequence[Engine], seen: Observation, seconds: float) -> float:
    """Return images a second of all bundles over a partition that is in memory."""

    def work() -> int:
        run_together(engines, seen)
        return len(seen)

    return rate(work, engines[0].device, seconds)


@contextlib.contextmanager
def busy_percentages(device: torch.device) -> Iterator[list[int]]:
    """Look now and then how busy a GPU is; nothing is found without one, or without nvidia-ml-py."""
    found: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        # Without nvidia-ml-py, or the driver's library, nothing is known: each has errors of its own.
        with contextlib.suppress(Exception):
            while not stop.wait(_LOOK):
                found.append(torch.cuda.utilization(device))

    with ThreadPoolExecutor(1) as pool:
        if device.type == "cuda":
            pool.submit(watch)
        try:
            yield found
        finally:
            stop.set()


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
