"""A network's batch as a CUDA graph: its kernels are recorded once and started together ever after."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Replay", "capture"]

_log = logging.getLogger(__name__)

_Outputs = dict[str, Tensor]
_Function = Callable[[Tensor], _Outputs]

#: Runs before a capture, in which libraries choose their kernels and take their workspaces.
_WARM = 3


class Replay:
    """A function of one tensor, captured for each shape that it is called with.

    Parameters
    ----------
    function
        The same kernels whenever it is given the same shape.
    capture
        Makes of a function and an example one that is faster; see `capture`. Where it fails, but for want of
        memory, the function is run as it is.
    """

    def __init__(self, function: _Function, capture: Callable[[_Function, Tensor], _Function]) -> None:
        self._function, self._capture = function, capture
        self._captured: dict[torch.Size, _Function] = {}

    def __call__(self, inputs: Tensor) -> _Outputs:
        """Return the function's value."""
        if inputs.shape not in self._captured:
            self._captured[inputs.shape] = self._make(inputs)
        return self._captured[inputs.shape](inputs)

    def clear(self) -> None:
        """Let go of what was captured, and of its memory."""
        self._captured.clear()

    def _make(self, inputs: Tensor) -> _Function:
        try:
            return self._capture(self._function, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("no CUDA graph of a batch of shape %s: %s", tuple(inputs.shape), error)
            return self._function


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
    current, stream = torch.cuda.current_stream(example.device), torch.cuda.Stream(example.device)
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
