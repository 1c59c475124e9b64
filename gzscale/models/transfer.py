"""Blocks on their way from a survey's arrays to the device that computes with them.

A ring of blocks is one partition's at a time: who borrows one fills it before its turn at the device, sends
it in its turn, and gives it back when all of that has been computed. Who waits for a ring never has the turn,
so that whoever has a ring gets its turn, and gives the ring back.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.models.ahead import AHEAD, through_ring
from gzscale.models.device import device_turn, is_out_of_memory
from gzscale.models.layout import Layout

__all__ = ["CudaTransfer", "Slot", "Transfer", "borrow", "forget"]

_T = TypeVar("_T")

#: Threads that fill blocks for a GPU, and blocks: while they fill, one is copied and one computed with.
_FILLERS = min(4, os.cpu_count() or 1)


@dataclass
class Slot:
    """Memory of one block.

    Attributes
    ----------
    number
        Its place in the ring.
    tensors
        On the host, and ``arrays`` the same memory, to be filled.
    count
        Objects that are in it.
    rows
        Rows that are filled; those beyond ``count`` are padding.
    """

    number: int
    tensors: tuple[Tensor, ...]
    arrays: tuple[NDArray[Any], ...] = field(init=False)
    count: int = 0
    rows: int = 0

    def __post_init__(self) -> None:
        self.arrays = tuple(tensor.numpy() for tensor in self.tensors)


class Transfer:
    """A ring of blocks in host memory, for a CPU: what was filled is what is computed with.

    Parameters
    ----------
    layout, dtype
        What a block holds, and the type of its images.
    rows
        Objects of a block at most.
    """

    threads = 1
    depth = AHEAD + 1

    def __init__(self, layout: Layout, dtype: np.dtype[Any], rows: int) -> None:
        self.slots = [
            Slot(number, tuple(self._place(array) for array in layout.empty(rows, dtype)))
            for number in range(self.depth)
        ]

    def stream(self, items: Iterable[_T], fill: Callable[[Slot, _T], None]) -> Generator[Slot, None, None]:
        """Yield slots filled with items, in order; see `gzscale.models.ahead.through_ring`."""

        def fill_when_free(slot: Slot, item: _T) -> None:
            self._wait(slot)
            fill(slot, item)

        return through_ring(items, self.slots, fill_when_free, self.threads)

    def send(self, slot: Slot, make: Callable[[tuple[Tensor, ...]], list[Tensor]]) -> list[Tensor]:
        """Return what is made of a slot's rows on the device."""
        return make(tuple(tensor[: slot.rows] for tensor in slot.tensors))

    def done(self, slot: Slot) -> None:
        """Say that all that is computed with what was made of a slot is on its way."""

    def mark(self) -> Callable[[], None]:
        """Return what waits until all is done that was asked of the device up to now."""
        return lambda: None

    def _place(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array)

    def _wait(self, slot: Slot) -> None:
        """Wait until a slot's memory may be written."""


class CudaTransfer(Transfer):
    """A ring in pinned memory and one on a GPU; copies, and what is made of them, run on their own stream.

    The device's buffers live as long as the ring, and events say who may use them: `Tensor.record_stream`
    would leave it to the allocator's polling when memory is free again.

    Parameters
    ----------
    layout, dtype, rows
        See `Transfer`.
    device
        The GPU.
    """

    threads = _FILLERS
    depth = _FILLERS + AHEAD

    def __init__(self, layout: Layout, dtype: np.dtype[Any], rows: int, device: torch.device) -> None:
        super().__init__(layout, dtype, rows)
        self._device = device
        self._copies = torch.cuda.Stream(device)
        self._moved = [
            tuple(torch.empty_like(tensor, device=device) for tensor in slot.tensors) for slot in self.slots
        ]
        self._made: list[list[Tensor]] = [[] for _ in self.slots]
        # When a slot's memory may be written again: on the host, and on the device.
        # Threads that wait for the first leave their core to others.
        self._copied = [torch.cuda.Event(blocking=True) for _ in self.slots]
        self._used = [torch.cuda.Event() for _ in self.slots]
        # Memory of the ring may have been another tensor's a moment ago, with kernels that still read it.
        self._copies.wait_stream(torch.cuda.current_stream(self._device))

    def send(self, slot: Slot, make: Callable[[tuple[Tensor, ...]], list[Tensor]]) -> list[Tensor]:
        """See `Transfer.send`; what computes on the current stream from now on waits for it."""
        moved = tuple(tensor[: slot.rows] for tensor in self._moved[slot.number])
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used[slot.number])
            # From here on nothing reads what was made of the slot before.
            self._made[slot.number] = []
            for to, tensor in zip(moved, slot.tensors, strict=True):
                to.copy_(tensor[: slot.rows], non_blocking=True)
            self._copied[slot.number].record(self._copies)
            made = self._made[slot.number] = make(moved)
            ready = self._copies.record_event()
        torch.cuda.current_stream(self._device).wait_event(ready)
        return made

    def done(self, slot: Slot) -> None:
        """See `Transfer.done`."""
        self._used[slot.number].record(torch.cuda.current_stream(self._device))

    def rest(self) -> None:
        """Let go of what was made of the slots, with all of which has been computed: while nobody has it."""
        self._made = [[] for _ in self.slots]

    def mark(self) -> Callable[[], None]:
        """See `Transfer.mark`; on the current stream, and with whatever that waits for."""
        # Threads that wait leave their core to those that read and write.
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize

    def _place(self, array: NDArray[Any]) -> Tensor:
        # Pinned from the start: what is pinned later is copied, to be overwritten.
        return torch.empty_like(torch.from_numpy(array), pin_memory=True)

    def _wait(self, slot: Slot) -> None:
        # Within a partition, a slot is filled anew after its copy was asked for, by who also recorded the
        # event; between two, all of the first was waited for before its ring was given back.
        self._copied[slot.number].synchronize()


_Key = tuple[torch.device, Layout, np.dtype[Any], int]

#: Rings of one kind: while what is in one is computed with, another is filled.
_RINGS = 2
#: Free rings that are kept, since pinning memory takes long: as many as a night's tasks have.
_KEPT = 8 * _RINGS

_changed = threading.Condition()
_free: list[tuple[_Key, CudaTransfer]] = []
#: Rings that somebody has.
_out: Counter[_Key] = Counter()
_places: defaultdict[_Key, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(_RINGS))


@contextlib.contextmanager
def borrow(device: torch.device, layout: Layout, dtype: np.dtype[Any], rows: int) -> Iterator[Transfer]:
    """Have a ring of blocks for oneself, but not in one's turn at a GPU; wait for one if others have all.

    What was asked of the device with it has to be waited for before it is given back. Who has one borrows no
    other.
    """
    if device.type != "cuda":
        yield Transfer(layout, dtype, rows)
        return
    key = (device, layout, dtype, rows)
    with _changed:
        place = _places[key]
    with place:
        ring = _take(key)
        try:
            yield ring
        except BaseException:
            # It is let go of, and no memory may be that something in flight reads or writes.
            with device_turn(device), contextlib.suppress(RuntimeError):
                torch.cuda.synchronize(device)
            _no_more_out(key)
            raise
        ring.rest()
        _no_more_out(key, ring)


def _take(key: _Key) -> CudaTransfer:
    """Return a ring that is free, or is made; where memory holds no further one, that of another borrower.

    Who waits for it has neither a ring nor the turn, and who has it needs nothing but the turn, so that it
    comes back, or is let go of; whoever has the turn waits for no ring.
    """
    while True:
        ring = _take_free(key)
        if ring is not None:
            return ring
        try:
            return _make(key)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not _is_out(key):
                raise
        # Not before: the error keeps what was made of a ring.
        with _changed:
            _changed.wait_for(lambda: not _out[key] or any(kind == key for kind, _ in _free))


def _take_free(key: _Key) -> CudaTransfer | None:
    with _changed:
        for number, (kind, ring) in enumerate(_free):
            if kind == key:
                del _free[number]
                _out[key] += 1
                return ring
    return None


def _make(key: _Key) -> CudaTransfer:
    device, layout, dtype, rows = key
    # Others may capture a graph, and what is computed with memory that becomes the ring's be asked for.
    with device_turn(device):
        ring = CudaTransfer(layout, dtype, rows, device)
    with _changed:
        _out[key] += 1
    return ring


def _is_out(key: _Key) -> bool:
    with _changed:
        return _out[key] > 0


def _no_more_out(key: _Key, ring: CudaTransfer | None = None) -> None:
    """Have a ring among the free ones, or gone if there is none."""
    with _changed:
        _out[key] -= 1
        if ring is not None:
            _free.append((key, ring))
            del _free[:-_KEPT]
        _changed.notify_all()


def forget() -> None:
    """Let go of the rings that are free; the others are somebody's, who may be filling them."""
    with _changed:
        _free.clear()
