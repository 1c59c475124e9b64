"""Whole nights over simulated skies: scheduling, bookkeeping, memory.

For each number of objects a sky is simulated (once; it is kept in ``bench/``) and a night is run on
it in a process of its own, whose memory and whose workers' memory are sampled. Run:
``python tests/benchmarks/bench_night.py [--objects 2000 20000] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from gzscale.night.ledger import Ledger
from gzscale.night.planned import read_plan
from gzscale.storage import open_storage


def sky(objects: int, folder: Path) -> Path:
    """Simulate a sky unless it is there."""
    out = folder / f"sky-{objects}"
    if not (out / "night.yaml").exists():
        command = [sys.executable, "-m", "gzscale.cli", "simulate", str(out), "--objects", str(objects)]
        subprocess.run([*command, "--seed", "1"], check=True)
    return out


def run(config: Path, output: Path) -> dict[str, float]:
    """Run a night; return its wall seconds and the peak RSS [MB] of the main process and of a worker."""
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "gzscale.cli", "night", str(config), "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    peak = {"main": 0, "worker": 0}
    while process.poll() is None:
        try:
            peak["main"] = max(peak["main"], watched.memory_info().rss)
            for child in watched.children(recursive=True):
                if "spawn_main" in " ".join(child.cmdline()):
                    peak["worker"] = max(peak["worker"], child.memory_info().rss)
        except psutil.Error:
            continue
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the night over {config} ended with {process.returncode}")
    wall = time.perf_counter() - start
    return {"wall_s": wall, "main_mb": peak["main"] / 1e6, "worker_mb": peak["worker"] / 1e6}


def shares(output: Path) -> dict[str, float]:
    """Return what a night's time went to, from its ledger.

    ``scheduling`` is the part of the workers' time, between a worker's first and last task, in which
    it had none. ``bookkeeping`` is plan, release and commits as a part of the workers' time.
    """
    storage = open_storage(output)
    ledger = Ledger(storage)
    night = ledger.last_night()
    assert night is not None
    spans: dict[str, list[list[float]]] = {}
    work = stages = 0.0
    for item in read_plan(storage, night.night).partitions:
        for stage in ("cut", "predict"):
            record = ledger.read(stage, item.partition)
            assert record is not None
            spans.setdefault(record.worker, []).append(record.span)
            work += record.span[1] - record.span[0]
            steps = ("find", "decode", "resample", "write", "load", "infer")
            stages += sum(record.seconds.get(step, 0.0) for step in steps)
    present = sum(
        max(end for _, end in worker) - min(begin for begin, _ in worker) for worker in spans.values()
    )
    own = night.seconds["wall_plan"] + night.seconds["wall_release"]
    return {
        "partitions": night.partitions,
        "scheduling": 1 - work / present,
        "bookkeeping": (work - stages + own) / (present + own),
        "scheduling_and_bookkeeping": (present - stages + own) / (present + own),
        "objects_per_second": night.counts["objects"].planned / night.seconds["wall"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--folder", type=Path, default=Path("bench"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {}
    for objects in options.objects:
        config = sky(objects, options.folder) / "night.yaml"
        output = options.folder / f"night-{objects}"
        measured = run(config, output)
        figures[str(objects)] = measured | shares(output)
        print(
            f"{objects} objects: "
            + ", ".join(f"{key} {value:.3g}" for key, value in figures[str(objects)].items())
        )
    few, many = (figures[str(number)] for number in (options.objects[0], options.objects[-1]))
    for who in ("main", "worker"):
        ratio = many[f"{who}_mb"] / few[f"{who}_mb"]
        figures[f"{who}_rss_ratio"] = ratio
        print(f"peak RSS of the {who}: {ratio:.3f} of that at {options.objects[0]} objects (goal 0.9 to 1.1)")
    print(f"scheduling and bookkeeping: {100 * many['scheduling_and_bookkeeping']:.2f} % (goal 5)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
