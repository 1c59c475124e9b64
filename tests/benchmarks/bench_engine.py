"""Images a second of the engine against a bare loop of the same network over a tensor in memory.

Both see the same number of images, views and threads, in turns, so that a busy machine slows
both. The ratio of CPU seconds, all threads together, is what a worker of one core has of it, where nothing
is prepared beside the network; it bears a busy machine best. Run:
``python tests/benchmarks/bench_engine.py [--images N] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import from_flux
from gzscale.models.observation import Observation
from gzscale.models.shipped import shipped


def bare_loop(engine: Engine, tensor: torch.Tensor) -> None:
    """Run the network over batches of a tensor that lies on the device, prepared, in the same precision."""
    with torch.inference_mode(), engine._autocast():
        for start in range(0, len(tensor), engine.batch):
            batch = tensor[start : start + engine.batch]
            for _ in range(engine.bundle.symmetries):
                engine.network.outputs(batch)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(function, *arguments) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    start, busy = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start, time.process_time() - busy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=0, help="by default 192 on a CPU, 8192 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    engine = Engine(load_bundle(shipped("morphology")))
    count = options.images or (192 if engine.device.type == "cpu" else 8192)
    count -= count % engine.batch
    count = max(count, engine.batch)
    rng = np.random.default_rng(0)
    flux = rng.gamma(0.5, 0.05, (count, 3, 96, 96)).astype(np.float16)
    scale = rng.uniform(0.2, 1.0, count)
    tensor = from_flux(torch.from_numpy(flux), torch.from_numpy(scale), "gri").to(engine.device)
    tensor = engine.network.prepare(tensor).contiguous(memory_format=torch.channels_last)
    bare_loop(engine, tensor[: engine.batch])
    observation = Observation.of(flux, "gri", scale)
    engine.run(observation.take(slice(engine.batch)))
    loops, runs = [], []
    for _ in range(options.rounds):
        loops.append(seconds(bare_loop, engine, tensor))
        runs.append(seconds(engine.run, observation))
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
        "images": count,
        "engine_images_per_second": round(count / statistics.median(run[0] for run in runs), 1),
        "loop_images_per_second": round(count / statistics.median(loop[0] for loop in loops), 1),
        "ratio": round(ratio, 3),
        "cpu_ratio": round(cpu_ratio, 3),
        "goal": 0.95 if engine.device.type == "cpu" else 0.9,
    }
    print(
        f"engine {result['engine_images_per_second']} images/s, "
        f"bare loop {result['loop_images_per_second']} images/s, "
        f"ratio {result['ratio']}, of CPU seconds {result['cpu_ratio']} "
        f"(goal {result['goal']}; {result['device']}, {result['threads']} threads, "
        f"{result['symmetries']} views of {count} images)"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
