"""How many images a batch has: what a device was found to do best with, and how a count is divided."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from gzscale.models.device import is_out_of_memory

__all__ = [
    "BATCH_CPU",
    "BATCH_CUDA",
    "LEAST_CUDA",
    "MOST_CUDA",
    "Known",
    "examples",
    "find_batch",
    "find_sizes",
    "padded",
    "parts",
    "speed",
]

#: Images of a batch on a CPU: what fits into its caches.
BATCH_CPU = 32
#: On a GPU, where the search begins and where it ends: a partition of 2,048 should be several blocks, or
#: copying one never overlaps computing the last.
BATCH_CUDA = 512
MOST_CUDA = 2048
#: The smallest that what is left of a count is done in.
LEAST_CUDA = 256
#: Different images that a batch is tried with, and compared by.
_EXAMPLES = 64
#: How often it is timed.
_TRIES = 4
#: How much faster a doubled batch has to be.
GAIN = 1.05


class Known:
    """Batch sizes that were found in this process, the full and the least one, by bundle and device.

    A bundle that was not read from a file has nothing to be known by, and is tried anew by each engine.
    """

    def __init__(self) -> None:
        self._sizes: dict[Hashable, tuple[int, int]] = {}

    def get(self, sha256: str, device: torch.device) -> tuple[int, int]:
        """Return what was found, zeros if nothing was."""
        return self._sizes.get((sha256, str(device)), (0, 0))

    def put(self, sha256: str, device: torch.device, size: int, least: int) -> None:
        """Remember what was found."""
        if sha256:
            self._sizes[sha256, str(device)] = size, least


def find_sizes(
    measure: Callable[[int], tuple[float, bytes]], first: int, most: int, least: int
) -> tuple[int, int]:
    """Find a batch, and how small those may be in which what is left of a count is done.

    An object's bits must not hang on how many others it came with, so that these have to say the same, too.

    Parameters
    ----------
    measure, first, most
        See `find_batch`.
    least
        The smallest size to be tried; ``first`` is at most twice that.

    Returns
    -------
    int, int
        The batch, and the least size that says the same.
    """
    said: dict[int, bytes] = {}

    def tried(size: int) -> tuple[float, bytes]:
        rate, said[size] = measure(size)
        return rate, said[size]

    batch = find_batch(tried, first, most)
    if least < batch:
        tried(least)
    return batch, min(size for size, words in said.items() if words == said[batch])


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
    torch.OutOfMemoryError
        If not even one image fits.
    """
    best, rate, said = _first(measure, first)
    if best < first:
        return best
    while 2 * best <= most:
        try:
            faster, same = measure(2 * best)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if same != said or faster < GAIN * rate:
            break
        best, rate = 2 * best, faster
    return best


def _first(measure: Callable[[int], tuple[float, bytes]], size: int) -> tuple[int, float, bytes]:
    while True:
        try:
            return (size, *measure(size))
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size //= 2


def parts(count: int, batch: int, least: int) -> Iterator[tuple[int, int]]:
    """Divide images into batches of few sizes.

    Parameters
    ----------
    count
        Number of images.
    batch
        Size of a batch. What is left is done in halves of it, quarters and so on.
    least
        The smallest size; the last batch of all is padded to it.

    Yields
    ------
    int, int
        Where a batch starts, and its size, which may reach beyond ``count``.
    """
    start, size = 0, batch
    while start < count:
        while size > max(count - start, least):
            size = max(size // 2, least)
        yield start, size
        start += size


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
