"""Where a GPU's memory is full: what can be made again is let go of, then batches are smaller."""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from gzscale.errors import WorkerError
from gzscale.models.device import device_turn, is_out_of_memory
from gzscale.models.replay import clear_all, has_failed
from gzscale.models.transfer import forget

__all__ = ["give_back", "once_more", "within_memory"]

_T = TypeVar("_T")

#: How often in a process something is done at the second try before it is done in smaller batches from then
#: on: each time costs what had been done of it, and the graphs and rings that are made again.
RETRIES = 3

_log = logging.getLogger(__name__)
_retried = itertools.count(1)


def within_memory(device: torch.device, attempt: Callable[[], _T], shrink: Callable[[], bool]) -> _T:
    """Try something until the device's memory holds it.

    Parameters
    ----------
    device
        Where.
    attempt
        What is tried: again as it is at first, with all memory that can be had, and then smaller; where the
        second try has done it `RETRIES` times in this process, it is smaller the next time, if it can be.
    shrink
        Makes it smaller without a change of what it comes to, to the bit; returns whether it could.

    Raises
    ------
    WorkerError
        If it cannot be made smaller, or nothing can be given back in this process.
    """
    while True:
        try:
            done, again = _twice(device, attempt)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            told = str(error)
        else:
            if again and next(_retried) % RETRIES == 0:
                _shrink_for_good(device, shrink)
            return done
        with device_turn(device):
            _finish(device)
            if not shrink():
                raise WorkerError(
                    f"GPU memory does not hold a batch that gives this night's bits ({_room(device)}{told}); "
                    "end what else uses it (nvidia-smi says), or take a larger one"
                )


def once_more(device: torch.device, attempt: Callable[[], _T]) -> _T:
    """Try something, and where memory is wanting once more, with all that can be had.

    Raises
    ------
    WorkerError
        If nothing can be given back in this process.
    """
    return _twice(device, attempt)[0]


def _shrink_for_good(device: torch.device, shrink: Callable[[], bool]) -> None:
    with device_turn(device):
        _finish(device)
        if shrink():
            _log.warning("memory was wanting %d times: batches are smaller from here on", RETRIES)


def _twice(device: torch.device, attempt: Callable[[], _T]) -> tuple[_T, bool]:
    """Return what comes of the first or the second try, and whether it took the second."""
    try:
        return attempt(), False
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        told = str(error)
    # Only here, where the error and the tensors of its frames are gone, is there anything to give back;
    # other bundles' engines hold some of it, too, and those that are gone may lie in cycles.
    with device_turn(device):
        room = _room(device)
        give_back(device)
    _log.warning(
        "GPU memory was full (%s%s), and what was begun is done again with what could be given back; if this "
        "comes often, end what else uses it (nvidia-smi says), or take a larger one",
        room,
        told,
    )
    return attempt(), True


def give_back(device: torch.device) -> None:
    """Let go of graphs and rings, and return to the driver what memory torch keeps; in one's turn.

    Raises
    ------
    WorkerError
        If the capture of a graph failed before. In torch up to 2.12 the allocator may then take it for
        unfinished (pytorch issue 180395): it returns nothing any more, and asked to, it ends the process.
        No version is trusted here, since the failure is rare and a new process costs a minute.
    """
    if has_failed():
        raise WorkerError(
            f"GPU memory is full ({_room(device)}the capture of a CUDA graph failed in this process before, "
            "so that none can be given back); start the process anew"
        )
    _finish(device)
    forget()
    clear_all()
    gc.collect()
    torch.cuda.empty_cache()


def _finish(device: torch.device) -> None:
    """Wait for what was asked of a device before: what is let go of then is in nobody's use."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _room(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free; "
