"""Several bundles over the same cutouts; one partition is filled while another is computed with."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.models.batches import Sizes
from gzscale.models.bundle import Bundle
from gzscale.models.device import device_turn, held
from gzscale.models.layout import Layout, join
from gzscale.models.observation import Observation
from gzscale.models.room import within_memory
from gzscale.models.transfer import Slot, borrow

__all__ = ["Outputs", "Predictor", "in_memory", "joined", "no_outputs", "run_together", "to_arrays"]

_T = TypeVar("_T")

#: Name of each head -> its output.
Outputs = dict[str, NDArray[np.float32]]


class Predictor(Protocol):
    """One bundle on one device: see `gzscale.models.engine.Engine`."""

    bundle: Bundle
    device: torch.device
    sizes: Sizes

    @property
    def layout(self) -> Layout:
        """What it looks at."""

    def settle(self) -> None:
        """Find the sizes of its batches."""

    def check(self, observation: Observation) -> None:
        """Refuse what it cannot be fed with."""

    def inputs(self, *arrays: Tensor) -> Tensor:
        """Turn the arrays of its layout into what its network takes."""

    def rows(self, inputs: Tensor, count: int, sizes: Sizes) -> dict[str, Tensor]:
        """Predict the first ``count`` rows of inputs."""

    def shrink(self, batch: int) -> bool:
        """Take batches smaller than one, if there are such that say the same."""


def no_outputs(bundle: Bundle) -> Outputs:
    """Return what a bundle says of no objects; no device is asked."""
    return {name: np.empty((0, len(names)), np.float32) for name, names in bundle.outputs.items()}


def run_together(
    engines: Sequence[Predictor],
    observation: Observation,
    objects: NDArray[np.integer] | None = None,
    seconds: dict[str, float] | None = None,
) -> list[Outputs]:
    """Predict the same cutouts with several bundles, each block read, copied and moved once for all of them.

    Threads may do so side by side, but not in their turn at a GPU, which is taken here: one fills its blocks
    while what others have filled is computed with.

    Parameters
    ----------
    engines
        On one device.
    observation, objects
        See `Engine.run`.
    seconds
        To whose ``wait`` is added how long others had the device.

    Returns
    -------
    list of dict[str, NDArray[np.float32]]
        What `Engine.run` of each returns, and it raises what that raises.
    """
    for engine in engines:
        engine.check(observation)
    count = len(observation if objects is None else objects)
    if not count:
        return [no_outputs(engine.bundle) for engine in engines]
    told = {} if seconds is None else seconds
    for engine in engines:
        engine.settle()
    return in_memory(
        engines,
        lambda: _run(engines, observation, objects, told),
        lambda engine: engine.sizes.within(count).batch,
    )


def _run(
    engines: Sequence[Predictor],
    observation: Observation,
    objects: NDArray[np.integer] | None,
    seconds: dict[str, float],
) -> list[Outputs]:
    count, device = len(observation if objects is None else objects), engines[0].device
    layout, sizes = join(engine.layout for engine in engines), [one.sizes.within(count) for one in engines]
    rows = max(own.batch for own in sizes)

    def fill(slot: Slot, start: int) -> None:
        part = slice(start, min(start + rows, count))
        slot.count = part.stop - start
        reach = (own.parts(slot.count) for own in sizes)
        slot.rows = min(rows, max(sum(size for _, size in every) for every in reach))
        arrays = tuple(array[: slot.rows] for array in slot.arrays)
        layout.fill(arrays, observation, part if objects is None else objects[part])

    def make(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        return [engine.inputs(*layout.pick(tensors, engine.layout)) for engine in engines]

    said: list[list[dict[str, Tensor]]] = [[] for _ in engines]
    with (
        held(borrow(device, layout, observation.images.dtype, rows), seconds) as transfer,
        contextlib.closing(transfer.stream(range(0, count, rows), fill)) as filled,
    ):
        # As many as the ring holds are being filled from here on, whoever has the device.
        first = next(filled)
        with held(device_turn(device), seconds):
            others_are_done = transfer.mark()
            for slot in itertools.chain([first], filled):
                for engine, inputs, own, blocks in zip(
                    engines, transfer.send(slot, make), sizes, said, strict=True
                ):
                    blocks.append(engine.rows(inputs, slot.count, own))
                transfer.done(slot)
            # Asked for in this turn, or it would be done after what is asked in the next one.
            outputs = [_to_host(joined(blocks, count)) for blocks in said]
            all_is_done = transfer.mark()
        with held(_waiting(others_are_done), seconds):
            all_is_done()
    return [to_arrays(told) for told in outputs]


@contextlib.contextmanager
def _waiting(wait: Callable[[], None]) -> Iterator[None]:
    wait()
    yield


def joined(blocks: Sequence[dict[str, Tensor]], count: int) -> dict[str, Tensor]:
    """Return the first rows of some blocks' outputs."""
    return {name: torch.cat([block[name] for block in blocks])[:count] for name in blocks[0]}


def _to_host(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ask for outputs; they are there when the device has done so."""
    return {name: value.to("cpu", non_blocking=True) for name, value in outputs.items()}


def to_arrays(outputs: dict[str, Tensor]) -> Outputs:
    """Return outputs that are there, in memory that is not pinned."""
    return {name: value.numpy().copy() for name, value in outputs.items()}


def in_memory(
    engines: Sequence[Predictor], attempt: Callable[[], _T], size: Callable[[Predictor], int]
) -> _T:
    """Try with smaller batches where the device's memory does not hold the largest, of the sizes in use."""
    tried = 0

    def noted() -> _T:
        nonlocal tried
        tried = max(size(engine) for engine in engines)
        return attempt()

    def shrink() -> bool:
        # None is too large any more where another thread has done so meanwhile.
        too_large = [engine for engine in engines if size(engine) >= tried]
        shrunk = [engine.shrink(tried) for engine in too_large]
        return not too_large or any(shrunk)

    return within_memory(engines[0].device, noted, shrink)
