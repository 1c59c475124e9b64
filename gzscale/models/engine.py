"""Inference: batches prepared ahead, the network on the device, averaged over symmetries.

Every batch has one of few shapes (a ragged last one is padded), so that the same kernels run whatever the
number of objects: on a GPU they are captured once for each shape, and on a CPU an object's output does not
depend, to the bit, on the other objects of its batch or on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gzscale.errors import BundleError
from gzscale.models.ahead import ahead
from gzscale.models.batches import (
    BATCH_CPU,
    BATCH_CUDA,
    LEAST_CUDA,
    MOST_CUDA,
    Known,
    Sizes,
    examples,
    find_sizes,
    padded,
    speed,
)
from gzscale.models.bundle import Bundle
from gzscale.models.device import choose_device, device_turn, has_native_bfloat16
from gzscale.models.inputs import Stretch, from_flux, from_pictures, symmetries, to_channels
from gzscale.models.layout import Layout
from gzscale.models.network import fuse
from gzscale.models.observation import Observation
from gzscale.models.replay import Replay, capture
from gzscale.models.room import once_more
from gzscale.models.together import Outputs, Predictor, in_memory, joined, no_outputs, run_together, to_arrays

__all__ = ["Engine", "choose_device", "has_native_bfloat16", "run_together"]

#: Batch sizes that engines of this process have found, and what they are found with.
_KNOWN = Known()


class Engine:
    """One bundle on one device.

    Parameters
    ----------
    bundle
        The weights and what they need.
    device
        Where to run; the GPU if there is one that works, else the CPU.
    batch
        Images of a batch; by default what suits a CPU, and on a GPU what is found by trying, once for a
        bundle in a process. When the device's memory does not hold it, a smaller one that gives the same
        outputs takes its place for good, where one was found.

    Raises
    ------
    BundleError
        If the bundle's weights do not fit its network.
    """

    def __init__(self, bundle: Bundle, device: torch.device | str | None = None, batch: int = 0) -> None:
        self.bundle = bundle
        self.device = torch.device(device) if device is not None else choose_device()
        on_gpu = self.device.type == "cuda"
        known = Sizes((batch,)) if batch else _KNOWN.get(bundle.sha256, self.device)
        self.sizes = known or Sizes((BATCH_CUDA if on_gpu else BATCH_CPU,))
        self._least = LEAST_CUDA
        self.bfloat16 = has_native_bfloat16(self.device)
        network = fuse(bundle.build()).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._is_settled = bool(known) or not on_gpu
        self._replay = Replay(capture) if on_gpu else None

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return self.sizes.batch

    @property
    def layout(self) -> Layout:
        """What it looks at: the bands in the order of its channels, and the central pixels."""
        size, inputs = self.bundle.geometry.size, self.bundle.inputs
        return Layout(inputs.bands, size, self.network.crop or size, not isinstance(inputs, Stretch))

    def run(self, observation: Observation, objects: NDArray[np.integer] | None = None) -> Outputs:
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
        return run_together([self], observation, objects)[0]

    def evidence(self, observation: Observation, head: str) -> NDArray[np.float32]:
        """Return maps of where in the cutouts a head's logits come from.

        They are made on the CPU whatever the engine's device: lists are short, and a GPU has its turns.

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
        if self.device.type != "cpu":
            return Engine(self.bundle, "cpu").evidence(observation, head)
        self.check(observation)
        arrays = self.layout.empty(self.batch, observation.images.dtype)
        maps = []
        try:
            for start in range(0, len(observation), self.batch):
                rows = slice(start, start + self.batch)
                self.layout.fill(arrays, observation, rows)
                with torch.inference_mode(), self._autocast():
                    prepared = self.network.prepare(self.inputs(*map(torch.from_numpy, arrays)))
                    found = self.network.evidence(prepared, head).float().numpy()
                maps.append(found[: len(observation.scale[rows])])
        except (KeyError, ValueError) as error:
            raise BundleError(f"bundle {self.bundle.name!r}: no evidence for {head!r}: {error}") from error
        return np.concatenate(maps) if maps else np.empty((0, 0, 0), np.float32)

    def run_pictures(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
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

        def largest(engine: Predictor) -> int:
            return max(size for _, size in engine.sizes.parts(len(block)))

        for block in ahead(iter(pictures)):
            if not len(block):
                yield no_outputs(self.bundle)
                continue
            with device_turn(self.device):
                self.settle()
                outputs = in_memory([self], functools.partial(self._block, block), largest)
            yield outputs

    def settle(self) -> None:
        """Find the batch by trying, unless it is known; on a CPU it always is."""
        # No turn is waited for, or the next partition would not be filled before it has its own.
        if self._is_settled:
            return
        with device_turn(self.device):
            if self._is_settled:
                return
            first = self.batch

            def measure(size: int) -> tuple[float, bytes]:
                attempt = functools.partial(self._measure, size)
                # One that is larger yet is as good as it is fast; up to there it should hang on nothing else.
                return once_more(self.device, attempt) if size <= first else attempt()

            self._remember(find_sizes(measure, self._least, first, MOST_CUDA))
            self._is_settled = True

    def check(self, observation: Observation) -> None:
        """Refuse what the bundle cannot be fed with: see `run`."""
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

    def inputs(self, *arrays: Tensor) -> Tensor:
        """Turn the arrays of the bundle's layout into what the network takes, where they lie."""
        inputs = self.bundle.inputs
        if isinstance(inputs, Stretch):
            images, scale = arrays
            return from_flux(images, scale, inputs.bands, inputs)
        images, scale, noise, extinction = arrays
        return to_channels(images, scale, noise, extinction, inputs)

    def _block(self, block: NDArray[np.uint8]) -> Outputs:
        """Predict a block of pictures."""
        outputs = []
        for start, size in self.sizes.parts(len(block)):
            pictures = torch.from_numpy(np.ascontiguousarray(block[start : start + size]))
            moved = padded(pictures, size).to(self.device)
            outputs.append(self._batch(from_pictures(moved, self.bundle.geometry.size)))
        return to_arrays({name: value.cpu() for name, value in joined(outputs, len(block)).items()})

    def rows(self, inputs: Tensor, count: int, sizes: Sizes) -> dict[str, Tensor]:
        """Predict the first ``count`` rows of inputs, a batch of some sizes at a time."""
        outputs = [
            self._batch(padded(inputs[start : start + size], size)) for start, size in sizes.parts(count)
        ]
        return joined(outputs, count)

    def _batch(self, inputs: Tensor) -> dict[str, Tensor]:
        return self._forward(inputs) if self._replay is None else self._replay(self._forward, inputs)

    def _forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs, averaged over the views that the bundle asks for."""
        total: dict[str, Tensor] = {}
        with torch.inference_mode(), self._autocast():
            prepared = self.network.prepare(inputs)
            for view in symmetries(prepared) if self.bundle.symmetries == 8 else (prepared,):
                outputs = self.network.outputs(view.contiguous(memory_format=torch.channels_last))
                for name, value in outputs.items():
                    total[name] = total[name] + value if name in total else value
        return {name: value.float() / self.bundle.symmetries for name, value in total.items()}

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _measure(self, size: int) -> tuple[float, bytes]:
        """Return how many images a second come of batches of a size, and what some of them come to."""
        if self._replay is not None:
            self._replay.clear()  # what was captured of another size keeps its memory
        inputs = self.bundle.inputs
        channels = len(inputs.bands) if isinstance(inputs, Stretch) else 2 * len(inputs.bands)
        return speed(self._batch, examples(size, channels, self.layout.side).to(self.device))

    def shrink(self, batch: int) -> bool:
        """Take smaller batches than one that was too much, if there are such that say the same."""
        smaller = self.sizes.below(batch)
        if smaller is not None:
            self._remember(smaller)
        return smaller is not None

    def _remember(self, sizes: Sizes) -> None:
        """Keep the sizes for the process, and nothing of those that were tried."""
        self.sizes = sizes
        _KNOWN.put(self.bundle.sha256, self.device, sizes)
        if self._replay is not None:
            self._replay.clear()
