"""Images a second from a cutout store on disk to predictions, against a bare loop over a tensor in memory.

A store is written first. Its bytes are then read, compared with their hashes, decoded and predicted, as a
night does it, and beside it the same network runs over the same images, prepared, in memory; on a GPU its
batches are CUDA graphs, as the engine's are. Both see the same number of views and threads, in turns, so
that a busy machine slows both. The ratio of CPU seconds, all threads together, is what a worker of one core
has of it, where nothing is read or prepared beside the network; it bears a busy machine best. Run:
``python tests/benchmarks/bench_engine.py [--images N] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from stores import Group, Piece, observed, write_store

from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import from_flux
from gzscale.models.replay import Replay, capture
from gzscale.models.shipped import shipped
from gzscale.storage import Storage

GROUP = Group("gri", 96, "0.08 * size")
#: Objects of a partition at most, as a night has them.
PARTITION = 2048


Forward = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def bare_forward(engine: Engine, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the network over a prepared batch, as often as the bundle has views, in the engine's precision."""
    with torch.inference_mode(), engine._autocast():
        return [engine.network.outputs(batch) for _ in range(engine.bundle.symmetries)][-1]


def forward_of(engine: Engine) -> tuple[Forward, Replay | None]:
    """Return `bare_forward` of an engine, and what captures it where the engine captures its own."""
    bare: Forward = functools.partial(bare_forward, engine)
    if engine.device.type != "cuda":
        return bare, None
    replay = Replay(capture)
    return functools.partial(replay, bare), replay


def bare_loop(engine: Engine, forward: Forward, tensor: torch.Tensor) -> None:
    """Run the network over batches of a tensor that lies on the device, prepared."""
    for start in range(0, len(tensor), engine.batch):
        forward(tensor[start : start + engine.batch])
    if engine.device.type == "cuda":
        torch.cuda.synchronize()


def prepared(engine: Engine, storage: Storage, pieces: Sequence[Piece]) -> torch.Tensor:
    """Return what the network takes of all partitions, on the device."""
    parts = []
    for piece in pieces:
        seen = observed(piece.read(storage, "galaxy"))
        flux, scale = torch.from_numpy(seen.images), torch.from_numpy(seen.scale)
        parts.append(engine.network.prepare(from_flux(flux, scale, GROUP.bands).to(engine.device)))
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def from_store(engine: Engine, storage: Storage, pieces: Sequence[Piece]) -> None:
    """Read partitions and predict them, one after the other as a worker of one core does."""
    for piece in pieces:
        engine.run(observed(piece.read(storage, "galaxy")))


def seconds(function, *arguments) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    start, busy = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start, time.process_time() - busy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=0, help="by default 384 on a CPU, 8192 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    engine = Engine(load_bundle(shipped("morphology")))
    engine.settle()
    count = options.images or (384 if engine.device.type == "cpu" else 8192)
    count = max(count // engine.batch, 1) * engine.batch
    objects = min(count, PARTITION)
    count -= count % objects
    loops, runs = [], []
    with tempfile.TemporaryDirectory() as folder:
        storage, pieces = write_store(Path(folder), {"galaxy": GROUP}, count // objects, objects)
        tensor = prepared(engine, storage, pieces)
        forward, replay = forward_of(engine)
        bare_loop(engine, forward, tensor[: engine.batch])
        from_store(engine, storage, pieces[:1])
        for _ in range(options.rounds):
            loops.append(seconds(bare_loop, engine, forward, tensor))
            runs.append(seconds(from_store, engine, storage, pieces))
    ratio, cpu_ratio = (
        statistics.median(loop[clock] / run[clock] for loop, run in zip(loops, runs, strict=True))
        for clock in (0, 1)
    )
    result = {
        "device": str(engine.device),
        "bfloat16": engine.bfloat16,
        "threads": torch.get_num_threads(),
        "batch": engine.batch,
        "symmetries": engine.bundle.symmetries,
        "captured": [made is not None and made.is_captured for made in (engine._replay, replay)],
        "images": count,
        "images_of_a_partition": objects,
        "store_images_per_second": round(count / statistics.median(run[0] for run in runs), 1),
        "loop_images_per_second": round(count / statistics.median(loop[0] for loop in loops), 1),
        "ratio": round(ratio, 3),
        "cpu_ratio": round(cpu_ratio, 3),
        "goal": 0.95 if engine.device.type == "cpu" else 0.9,
    }
    kinds = ["CUDA graphs" if made else "kernel by kernel" for made in result["captured"]]
    print(
        f"store to predictions {result['store_images_per_second']} images/s, "
        f"bare loop {result['loop_images_per_second']} images/s, "
        f"ratio {result['ratio']}, of CPU seconds {result['cpu_ratio']} "
        f"(goal {result['goal']}; {result['device']}, {result['threads']} threads, "
        f"{result['symmetries']} views of {count} images; the engine {kinds[0]}, the loop {kinds[1]})"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
