"""Work that threads do ahead of who waits for it: in order, bounded, and its errors are told."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["AHEAD", "ahead", "through_ring"]

_T = TypeVar("_T")
_Slot = TypeVar("_Slot")

#: Items that wait, prepared, beside the one in use.
AHEAD = 2


def through_ring(
    items: Iterable[_T], slots: Sequence[_Slot], fill: Callable[[_Slot, _T], None], threads: int
) -> Generator[_Slot, None, None]:
    """Fill a ring of slots with items, ahead of their use.

    Parameters
    ----------
    items
        What goes into the slots.
    slots
        What is filled, again and again; one fewer than these are ahead of the one in use.
    fill
        Puts an item into a slot; runs on a thread.
    threads
        How many are filled at a time.

    Yields
    ------
    slot
        In the order of the items. It is filled anew as soon as the next is asked for.
    """
    left = iter(items)
    with ThreadPoolExecutor(threads, "prepare") as pool:
        waiting: deque[tuple[_Slot, Future[None]]] = deque()
        try:
            for slot, item in zip(slots, left, strict=False):
                waiting.append((slot, pool.submit(fill, slot, item)))
            while waiting:
                slot, filled = waiting.popleft()
                filled.result()
                yield slot
                for item in itertools.islice(left, 1):
                    waiting.append((slot, pool.submit(fill, slot, item)))
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(items: Iterator[_T], depth: int = AHEAD) -> Iterator[_T]:
    """Yield the items of an iterator that a thread runs at most ``depth`` items ahead.

    An error of the iterator is raised here; leaving early stops the thread.
    """
    waiting: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(last: bool, item: object) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((last, item), timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(False, item):
                    return
            put(True, None)
        except BaseException as error:
            put(True, error)

    thread = threading.Thread(target=produce, name="prepare", daemon=True)
    thread.start()
    try:
        while True:
            last, item = waiting.get()
            if last:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
