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
    "find_batch",
    "find_sizes",
    "padded",
    "speed",
]

#: Images of a batch on a CPU: what fits into its caches.
BATCH_CPU = 32
#: On a GPU, where the search begins and where it ends.
BATCH_CUDA = 512
MOST_CUDA = 2048
#: The smallest that what is left of a count is done in.
LEAST_CUDA = 256
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


def find_sizes(measure: Callable[[int], tuple[float, bytes]], first: int, most: int, least: int) -> Sizes:
    """Find a batch, and the smaller ones that say the same.

    Parameters
    ----------
    measure, first, most
        See `find_batch`.
    least
        The smallest size to be tried.

    Returns
    -------
    Sizes
        All that were tried and said the same as the batch, up to it.

    Raises
    ------
    WorkerError
        See `find_batch`.
    """
    said: dict[int, bytes] = {}

    def tried(size: int) -> tuple[float, bytes]:
        rate, said[size] = measure(size)
        return rate, said[size]

    batch = find_batch(tried, first, most)
    if least < batch:
        _or_full(tried, least)
    return Sizes(tuple(size for size in sorted(said) if size <= batch and said[size] == said[batch]))


def find_batch(measure: Callable[[int], tuple[float, bytes]], first: int, most: int) -> int:
    """Double a batch until the device is no faster with it.

    A larger one has to say the same, too: kernels are chosen by the shape of a batch, and what a night
    releases must not hang on how fast a device happened to be.

    Parameters
    ----------
    measure
        Takes a size and returns images a second, and what the first of the images came to.
    first
        Where to begin; halved until the device's memory holds it.
    most
        The largest size.

    Raises
    ------
    WorkerError
        If the device's memory does not hold even one image.
    """
    best, rate, said = _first(measure, first)
    if best < first:
        return best
    while 2 * best <= most:
        found = _or_full(measure, 2 * best)
        if found is None or found[1] != said or found[0] < GAIN * rate:
            break
        best, rate = 2 * best, found[0]
    return best


def _or_full(measure: Callable[[int], tuple[float, bytes]], size: int) -> tuple[float, bytes] | None:
    """Measure a size; None if memory does not hold it."""
    try:
        return measure(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def _first(measure: Callable[[int], tuple[float, bytes]], size: int) -> tuple[int, float, bytes]:
    while True:
        try:
            return (size, *measure(size))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise WorkerError(
                    f"GPU memory does not hold a batch of 1 image ({error}); end what else uses it "
                    "(nvidia-smi says), or take a larger one"
                ) from error
            size //= 2


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
