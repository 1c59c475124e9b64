"""Images a second of ``gzscale predict`` on a folder of JPEGs, against decoding alone and the network alone.

The pictures are sketched galaxies of 424 pixels. Memory is that at a tenth and at the end of the run.
Run: ``python tests/benchmarks/bench_folder.py [--images N] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from gzscale.cutouts.pictures import read_picture
from gzscale.folder import THREADS, predict_folder
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import from_pictures
from gzscale.models.shipped import shipped
from gzscale.training.sketch import draw_sketches

#: Different pictures; the others are copies of them.
KINDS = 64
#: Pictures that the two bare loops see.
SAMPLE = 256


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 424 pixels."""
    drawn, _ = draw_sketches(KINDS, torch.Generator().manual_seed(0), 424, 106)
    made = []
    for number, picture in enumerate((drawn * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()):
        path = folder / f"{number}.jpg"
        Image.fromarray(picture).save(path, quality=90)
        made.append(path.read_bytes())
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(made[number % KINDS])
    return paths


def decode_rate(paths: list[Path]) -> float:
    """Pictures a second of decoding on as many threads as the command uses."""
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(read_picture, paths):
            pass
    return len(paths) / (time.perf_counter() - start)


def network_rate(paths: list[Path]) -> float:
    """Pictures a second of the network over a tensor in memory."""
    engine = Engine(load_bundle(shipped("morphology")))
    pictures = torch.from_numpy(np.stack([read_picture(path) for path in paths]))
    prepared = engine.network.prepare(from_pictures(pictures, engine.bundle.geometry.size).to(engine.device))
    prepared = prepared.contiguous(memory_format=torch.channels_last)
    rate = 0.0
    with torch.inference_mode(), engine._autocast():
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            for first in range(0, len(prepared), engine.batch):
                engine.network.outputs(prepared[first : first + engine.batch])
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            rate = len(paths) / (time.perf_counter() - start)
    return rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    memory: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            memory.append(psutil.Process().memory_info().rss)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pictures(folder, options.images)
        decode, network = decode_rate(paths[:SAMPLE]), network_rate(paths[:SAMPLE])
        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        result = predict_folder("morphology", [folder], folder / "votes.csv", scheme="kaggle")
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    assert result.done == options.images
    early, late = max(memory[: len(memory) // 10 + 1]), max(memory)
    figures = {
        "images": options.images,
        "images_per_second": round(options.images / seconds, 1),
        "decode_per_second": round(decode, 1),
        "network_per_second": round(network, 1),
        "of_the_slower_loop": round(options.images / seconds / min(decode, network), 3),
        "megabytes_at_a_tenth": round(early / 1e6),
        "megabytes_at_most": round(late / 1e6),
    }
    print(
        f"{figures['images']} JPEGs: {figures['images_per_second']} images/s; decoding alone "
        f"{figures['decode_per_second']}, network alone {figures['network_per_second']}; "
        f"{figures['of_the_slower_loop']} of the slower; memory {figures['megabytes_at_a_tenth']} MB at a "
        f"tenth, {figures['megabytes_at_most']} MB at most"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
