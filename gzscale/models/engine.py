"""Inference: batches prepared ahead, the network on the device, averaged over symmetries.

Every batch has the same shape (a ragged last one is padded), so that the same kernels run
whatever the number of objects: compiled code is reused on a GPU, and on a CPU an object's
output does not depend, to the bit, on the other objects of its batch or on the number of threads.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.errors import BundleError
from gzscale.models.bundle import Bundle
from gzscale.models.inputs import Stretch, from_flux, from_pictures, to_channels
from gzscale.models.network import fuse
from gzscale.models.observation import Observation

__all__ = ["Engine", "choose_device", "has_native_bfloat16"]

_T = TypeVar("_T")

#: Images of a batch; on a CPU, what fits into its caches.
BATCH_CPU = 32
BATCH_CUDA = 512
#: Batches that wait, prepared, beside the one in use.
AHEAD = 2


def choose_device() -> torch.device:
    """Return the GPU if there is one that works, else the CPU."""
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").add_(1).item()
            return torch.device("cuda")
        except RuntimeError:  # a driver too old, or a GPU of another process
            return torch.device("cpu")
    return torch.device("cpu")


def has_native_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 in hardware, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Engine:
    """One bundle on one device.

    Parameters
    ----------
    bundle
        The weights and what they need.
    device
        Where to run; the GPU if there is one that works, else the CPU.
    batch
        Images of a batch. Halved, for good, when the device's memory does not hold it.

    Raises
    ------
    BundleError
        If the bundle's weights do not fit its network.
    """

    def __init__(self, bundle: Bundle, device: torch.device | str | None = None, batch: int = 0) -> None:
        self.bundle = bundle
        self.device = torch.device(device) if device is not None else choose_device()
        self.batch = batch or (BATCH_CUDA if self.device.type == "cuda" else BATCH_CPU)
        self.bfloat16 = has_native_bfloat16(self.device)
        network = fuse(bundle.build()).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(
        self, observation: Observation, objects: NDArray[np.integer] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Predict cutouts.

        Parameters
        ----------
        observation
            Bands that the bundle does not need are left out, those that it can do without are
            taken as not measured where they are missing; colours need neither noise nor extinction.
        objects
            Which n of its objects, without copying the pixels of all of them; by default all.

        Returns
        -------
        dict[str, NDArray[np.float32]]
            Name of each head -> its output, n rows in the order of the objects.

        Raises
        ------
        BundleError
            If the bundle needs other bands, another size, or the scales are not n positive numbers.
        """
        self._check(observation)
        # The batch may be halved while the next ones are prepared: all parts of one have the same rows.
        rows = self.batch
        count = len(observation if objects is None else objects)

        def prepared() -> Iterator[tuple[int, tuple[Tensor, ...]]]:
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                block = observation.take(part if objects is None else objects[part])
                yield len(block), tuple(self._host(array, rows) for array in self._arrays(block))

        blocks = [self._predict(count, arrays, self._inputs) for count, arrays in _ahead(prepared())]
        return self._gather(blocks)

    def evidence(self, observation: Observation, head: str) -> NDArray[np.float32]:
        """Return maps of where in the cutouts a head's logits come from.

        Parameters
        ----------
        observation
            See `run`.
        head
            Name of a head of kind ``lens``.

        Returns
        -------
        NDArray[np.float32]
            Shape (n, rows, columns): the central part that the network looks at, coarser. The mean of each is
            the logit of the cutout as it lies.

        Raises
        ------
        BundleError
            See `run`; and if the bundle has no such head, or one without maps.
        """
        self._check(observation)
        rows, parts = self.batch, []
        try:
            for start in range(0, len(observation), rows):
                block = observation.take(slice(start, start + rows))
                arrays = [self._host(array, rows).to(self.device) for array in self._arrays(block)]
                with torch.inference_mode(), self._autocast():
                    prepared = self.network.prepare(self._inputs(*arrays))
                    parts.append(self.network.evidence(prepared, head)[: len(block)].float().cpu().numpy())
        except (KeyError, ValueError) as error:
            raise BundleError(f"bundle {self.bundle.name!r}: no evidence for {head!r}: {error}") from error
        return np.concatenate(parts) if parts else np.empty((0, 0, 0), np.float32)

    def run_pictures(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Predict pictures, a block at a time.

        Parameters
        ----------
        pictures
            Blocks of uint8, shape (n, side, side, 3), the sides those of
            `gzscale.models.inputs.from_pictures`. Blocks are read ahead on a thread.

        Yields
        ------
        dict[str, NDArray[np.float32]]
            Name of each head -> its output, for one block each.

        Raises
        ------
        BundleError
            If the bundle was trained for anything that pictures do not show.
        """
        self.bundle.require_pictures()
        size = self.bundle.geometry.size

        def to_inputs(block: Tensor) -> Tensor:
            return from_pictures(block, size)

        for block in _ahead(iter(pictures)):
            rows = self.batch
            parts = [block[start : start + rows] for start in range(0, len(block), rows)]
            yield self._gather(
                [self._predict(len(part), (self._host(part, rows),), to_inputs) for part in parts]
            )

    def _check(self, observation: Observation) -> None:
        shape, bands, scale = observation.images.shape, observation.bands, observation.scale
        missing = [band for band in self.bundle.required if band not in bands]
        size = self.bundle.geometry.size
        if missing or len(shape) != 4 or shape[1] != len(bands) or shape[2:] != (size, size):
            raise BundleError(
                f"bundle {self.bundle.name!r} needs bands {self.bundle.required!r} of {size} x {size} "
                f"pixels, but the images have bands {bands!r} and shape {shape}"
            )
        if scale.shape != shape[:1] or not (scale > 0).all() or not np.isfinite(scale).all():
            raise BundleError(f"{shape[0]} images need as many positive scales, found shape {scale.shape}")
        if observation.noise.shape != shape[:2] or observation.extinction.shape != shape[:1]:
            raise BundleError(
                f"images of shape {shape} with noise of shape {observation.noise.shape} and extinction of "
                f"shape {observation.extinction.shape}, not {shape[:2]} and {shape[:1]}"
            )

    def _arrays(self, block: Observation) -> tuple[NDArray, ...]:
        """Return what `_inputs` takes of a block: only the bands and the pixels that the network looks at."""
        seen = self._seen()
        places = [block.bands.find(band) for band in self.bundle.bands]
        images = block.images[:, :, seen, seen][:, places]
        if isinstance(self.bundle.inputs, Stretch):
            return images, block.scale
        noise = block.noise[:, places]
        for channel, place in enumerate(places):
            if place < 0:
                images[:, channel], noise[:, channel] = np.nan, np.nan
        return images, block.scale, noise, block.extinction

    def _inputs(self, *arrays: Tensor) -> Tensor:
        """Turn what `_arrays` returns into what the network takes, on the device."""
        inputs = self.bundle.inputs
        if isinstance(inputs, Stretch):
            images, scale = arrays
            return from_flux(images, scale, inputs.bands, inputs)
        images, scale, noise, extinction = arrays
        return to_channels(images, scale, noise, extinction, inputs)

    def _seen(self) -> slice:
        """Rows and columns of a cutout that the network looks at; no others are prepared."""
        size = self.bundle.geometry.size
        side = self.network.crop or size
        return slice((size - side) // 2, (size - side) // 2 + side)

    def _host(self, array: NDArray, rows: int) -> Tensor:
        """Copy an array to host memory of one batch, padded with its last row."""
        missing = rows - len(array)
        if missing > 0:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _predict(
        self, count: int, arrays: tuple[Tensor, ...], to_inputs: Callable[..., Tensor]
    ) -> dict[str, Tensor]:
        """Predict one padded batch; its first ``count`` rows count."""
        while True:
            size = min(self.batch, len(arrays[0]))
            try:
                parts = []
                for start in range(0, count, size):
                    part = (_padded(array[start : start + size], size) for array in arrays)
                    moved = [tensor.to(self.device, non_blocking=True) for tensor in part]
                    parts.append(self._forward(to_inputs(*moved)))
                return {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.batch = size // 2
                torch.cuda.empty_cache()

    def _forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs, averaged over the views that the bundle asks for."""
        total: dict[str, Tensor] = {}
        with torch.inference_mode(), self._autocast():
            prepared = self.network.prepare(inputs)
            for view in _symmetries(prepared) if self.bundle.symmetries == 8 else (prepared,):
                outputs = self.network.outputs(view.contiguous(memory_format=torch.channels_last))
                for name, value in outputs.items():
                    total[name] = total[name] + value if name in total else value
        return {name: value.float() / self.bundle.symmetries for name, value in total.items()}

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _gather(self, blocks: list[dict[str, Tensor]]) -> dict[str, NDArray[np.float32]]:
        if not blocks:
            return {
                name: np.empty((0, len(names)), np.float32) for name, names in self.bundle.outputs.items()
            }
        return {name: torch.cat([block[name] for block in blocks]).cpu().numpy() for name in blocks[0]}


def _padded(tensor: Tensor, size: int) -> Tensor:
    if len(tensor) == size:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])


def _symmetries(images: Tensor) -> Iterator[Tensor]:
    """Yield the 8 symmetries of the square: 4 rotations, each with its mirror image."""
    for mirrored in (images, images.flip(-1)):
        for turns in range(4):
            yield torch.rot90(mirrored, turns, (2, 3))


def _ahead(items: Iterator[_T], depth: int = AHEAD) -> Iterator[_T]:
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
