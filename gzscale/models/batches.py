"""How many images a batch has: what a device was found to do best with, and how a count is divided."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gzscale.errors import WorkerError
from gzscale.models.device import is_out_of_memory

__all__ = [
    "BATCH_CPU",
    "BATCH_CUDA",
    "LEAST_CUDA",
    "MOST_CUDA",
    "Known",
    "Sizes",
    "examples",
    "find_sizes",
    "padded",
    "speed",
]

#: Images of a batch on a CPU: what fits into its caches.
BATCH_CPU = 32
#: On a GPU, the smallest, which all that are used say the same as; what is left of a count is done in it. It
#: keeps a GPU busy by itself, since where kernels of larger ones round otherwise it is the only one.
LEAST_CUDA = 512
#: Where the search for a faster one begins, and where it ends.
BATCH_CUDA = 1024
MOST_CUDA = 2048
#: Blocks that a partition is at least, or copying one never overlaps computing the last.
_SEVERAL = 4
#: Different images that a batch is tried with, and compared by.
_EXAMPLES = 64
#: How often it is timed.
_TRIES = 4
#: How much faster a doubled batch has to be.
GAIN = 1.05


@dataclass(frozen=True)
class Sizes:
    """Sizes of batches in which an image's outputs are the same, to the bit.

    An object's bits must not hang on how many others it came with, nor on how full a device was.

    Attributes
    ----------
    same
        The sizes, ascending.
    """

    same: tuple[int, ...]

    @property
    def batch(self) -> int:
        """The full size."""
        return self.same[-1]

    def below(self, size: int) -> Sizes | None:
        """Return those that are smaller than a size, None if there are none."""
        smaller = tuple(own for own in self.same if own < size)
        return Sizes(smaller) if smaller else None

    def within(self, count: int) -> Sizes:
        """Return those of which a count is several batches, the smallest if it is not.

        One is then filled, one copied and one computed with, while others wait, filled, for their turn.
        """
        several = tuple(size for size in self.same if -(-count // size) >= _SEVERAL)
        return Sizes(several or self.same[:1])

    def parts(self, count: int) -> Iterator[tuple[int, int]]:
        """Divide images into batches: full ones, and what is left in smaller ones.

        Parameters
        ----------
        count
            Number of images.

        Yields
        ------
        int, int
            Where a batch starts, and its size; the last of all may reach beyond ``count``.
        """
        start = 0
        for size in reversed(self.same):
            while count - start >= size:
                yield start, size
                start += size
        if start < count:
            yield start, self.same[0]


class Known:
    """Sizes that were found in this process, by bundle and device.

    A bundle that was not read from a file has nothing to be known by, and is tried anew by each engine.
    """

    def __init__(self) -> None:
        self._sizes: dict[Hashable, Sizes] = {}

    def get(self, sha256: str, device: torch.device) -> Sizes | None:
        """Return what was found, None if nothing was."""
        return self._sizes.get((sha256, str(device)))

    def put(self, sha256: str, device: torch.device, sizes: Sizes) -> None:
        """Remember what was found."""
        if sha256:
            self._sizes[sha256, str(device)] = sizes


def find_sizes(measure: Callable[[int], tuple[float, bytes]], least: int, first: int, most: int) -> Sizes:
    """Find the sizes that say the same as the least one: doubled until the device is no faster.

    Kernels are chosen by the shape of a batch, and what a night releases must hang neither on how fast nor on
    how full a device happened to be: the least size is what all are compared with on every worker, so that
    any two of those that are found, on one worker or on two, say the same.

    Parameters
    ----------
    measure
        Takes a size and returns images a second, and what the first of the images came to.
    least
        The smallest size; none is taken in its place.
    first
        The next one, taken if memory holds it and it says the same, whatever its speed.
    most
        The largest size.

    Raises
    ------
    WorkerError
        If the device's memory does not hold the least.
    """
    said = _reference(measure, least)
    same, best = [least], 0.0
    size = first
    while size <= most:
        found = _or_full(measure, size)
        if found is None or found[1] != said or found[0] < GAIN * best:
            break
        same.append(size)
        best, size = found[0], 2 * size
    return Sizes(tuple(same))


def _reference(measure: Callable[[int], tuple[float, bytes]], size: int) -> bytes:
    """Return what a size says that has to fit."""
    try:
        return measure(size)[1]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise WorkerError(
            f"GPU memory does not hold a batch of {size} images, which every worker's are compared with "
            f"({error}); end what else uses it (nvidia-smi says), or take a larger one"
        ) from error


def _or_full(measure: Callable[[int], tuple[float, bytes]], size: int) -> tuple[float, bytes] | None:
    """Measure a size; None if memory does not hold it."""
    try:
        return measure(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def padded(tensor: Tensor, size: int) -> Tensor:
    """Return a batch with its last row repeated up to a size."""
    if len(tensor) == size:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])


def examples(size: int, channels: int, side: int) -> Tensor:
    """Return a batch of square images at random, always the same ones, a few of them different."""
    made = torch.rand((_EXAMPLES, channels, side, side), generator=torch.Generator().manual_seed(0))
    return made.repeat(-(-size // _EXAMPLES), 1, 1, 1)[:size]


def speed(function: Callable[[Tensor], dict[str, Tensor]], batch: Tensor) -> tuple[float, bytes]:
    """Return how many images a second a function takes, and what it says of the first of them."""
    said = [value[:_EXAMPLES].cpu().numpy().tobytes() for value in function(batch).values()]
    start = time.perf_counter()
    for _ in range(_TRIES):
        last = function(batch)
    next(iter(last.values())).cpu()
    return _TRIES * len(batch) / (time.perf_counter() - start), b"".join(said)
