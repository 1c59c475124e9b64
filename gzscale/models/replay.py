"""A network's batch as a CUDA graph: its kernels are recorded once and started together ever after."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from gzscale.models.device import is_out_of_memory

__all__ = ["Replay", "capture", "clear_all", "has_failed"]

_log = logging.getLogger(__name__)

_Outputs = dict[str, Tensor]
_Function = Callable[[Tensor], _Outputs]

#: Runs before a capture, in which libraries choose their kernels and take their workspaces.
_WARM = 3

#: What torch raises where a device fails, after which nothing more can be done with it.
_DEVICE_ERROR: type[BaseException] | tuple[()] = getattr(torch, "AcceleratorError", ())

#: Set by a capture whose end failed: it may leave its stream, and the allocator, as if it still went on.
_failed = threading.Event()

_lock = threading.Lock()
_every: weakref.WeakSet[Replay] = weakref.WeakSet()


class Replay:
    """A function of one tensor, captured for each shape that it is called with.

    The function is not kept: a method would hold its object, with its weights and this, in a cycle.

    Parameters
    ----------
    capture
        Makes of a function and an example one that is faster; see `capture`. Where it fails, but for want of
        memory or of a device that works, the function is run as it is, and nothing more is captured in this
        process.
    """

    def __init__(self, capture: Callable[[_Function, Tensor], _Function]) -> None:
        self._capture = capture
        self._captured: dict[torch.Size, _Function | None] = {}
        with _lock:
            _every.add(self)

    def __call__(self, function: _Function, inputs: Tensor) -> _Outputs:
        """Return a function's value: always the same one, with the same kernels for the same shape."""
        if inputs.shape not in self._captured:
            self._captured[inputs.shape] = self._make(function, inputs)
        captured = self._captured[inputs.shape]
        return function(inputs) if captured is None else captured(inputs)

    @property
    def is_captured(self) -> bool:
        """Whether there is anything captured, and nothing that could not be."""
        return bool(self._captured) and None not in self._captured.values()

    def clear(self) -> None:
        """Let go of what was captured, and of its memory."""
        self._captured.clear()

    def _make(self, function: _Function, inputs: Tensor) -> _Function | None:
        if _failed.is_set():
            return None
        try:
            return self._capture(function, inputs)
        except RuntimeError as error:
            _tell_of_device(error)
            _failed.set()
            _log.warning("no CUDA graph of a batch of shape %s: %s", tuple(inputs.shape), error)
            return None


def _tell_of_device(error: BaseException) -> None:
    """Raise what stands behind a failed capture, where it is no fault of what was captured.

    Ending a capture in which something failed fails as well, and hides it.
    """
    behind: BaseException | None = error
    while behind is not None:
        if is_out_of_memory(behind):
            if behind is not error:  # The capture's own end failed of it.
                _failed.set()
                _log.warning("no memory to capture a CUDA graph, and none is captured any more: %s", behind)
            raise torch.OutOfMemoryError(str(behind)) from None
        if isinstance(behind, _DEVICE_ERROR) and "captur" not in str(behind):
            raise behind
        behind = behind.__context__


def has_failed() -> bool:
    """Tell whether a capture failed in this process at its end: its allocator may take it for unfinished."""
    return _failed.is_set()


def clear_all() -> None:
    """Let go of all that was captured in this process."""
    with _lock:
        every = list(_every)
    for replay in every:
        replay.clear()


def capture(function: _Function, example: Tensor) -> _Function:
    """Capture a function as a CUDA graph.

    Parameters
    ----------
    function
        Of a tensor on a GPU.
    example
        A tensor of the shape, type and memory format that it will be called with.

    Raises
    ------
    RuntimeError
        If it does what a graph cannot hold, such as waiting for the device.
    """
    given = example.clone()
    current, stream = torch.cuda.current_stream(example.device), _stream(example.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(_WARM):
            function(given)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    # A capture that fails leaves its own stream the current one: the outer block puts the other one back.
    # Other threads fill pinned memory and read partitions meanwhile: this one's calls alone are watched.
    with (
        torch.cuda.stream(current),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        said = function(given)

    def replay(inputs: Tensor) -> _Outputs:
        given.copy_(inputs)
        graph.replay()
        # The next replay writes over them.
        return {name: value.clone() for name, value in said.items()}

    return replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream that captures: libraries keep a workspace for each on which they were called."""
    return torch.cuda.Stream(device)
