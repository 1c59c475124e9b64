"""Nights of 10^4, 10^5, 10^6 objects whose images cost next to nothing: time an object, and memory.

What is measured is all that is not pixels: plan, ledger, scheduling, commits, release, report. Density is the
same for every number of objects, so that partitions are. Main process, scheduler and worker are
sampled one by one; CPU seconds count beside wall time, since they bear a busy machine. Run:
``python tests/benchmarks/bench_millions.py [--objects 10000 100000 1000000] [--folder F] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
from cheap_night import write_night, write_plugin
from parts import GZSCALE, Parts

from gzscale.night.ledger import Ledger
from gzscale.storage import open_storage

#: Seconds between two looks at the processes.
LOOK = 0.2
ROLES = ("main", "scheduler", "worker")


class Watch:
    """Largest memory and CPU time of each process, looked at while the night runs."""

    def __init__(self, parts: Parts) -> None:
        self._processes = {name: psutil.Process(parts.running[name].pid) for name in ROLES}
        self.peak = dict.fromkeys(ROLES, 0)
        self.cpu = dict.fromkeys(ROLES, 0.0)

    def look(self) -> None:
        """Take a sample of each."""
        for name, process in self._processes.items():
            try:
                self.peak[name] = max(self.peak[name], process.memory_info().rss)
                times = process.cpu_times()
                self.cpu[name] = times.user + times.system
            except psutil.Error:
                continue


def forecast(parts: Parts, config: Path) -> dict[str, str]:
    """Return what the plan says that the night will come to."""
    command = [*GZSCALE, "plan", str(config)]
    told = subprocess.run(command, env=parts.environment, capture_output=True, text=True, check=True).stdout
    return {line[:24].strip(): line[25:].strip() for line in told.splitlines()}


def measure(folder: Path, objects: int) -> dict[str, object]:
    """Run one night in fresh processes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = f"{write_plugin(folder / 'plugin')}:{os.environ.get('PYTHONPATH', '')}"
    parts = Parts(folder, {"worker": "CUT=1 PREDICT=1"}, {"PYTHONPATH": path})
    config = write_night(folder / "sky", objects)
    try:
        planned = forecast(parts, config)
        parts.start_all()
        start = time.monotonic()
        process = parts.night(config, str(folder / "out"), folder / "night.log")
        watch = Watch(parts)
        while process.poll() is None:
            watch.look()
            time.sleep(LOOK)
        wall = time.monotonic() - start
        if process.returncode:
            raise SystemExit(f"{objects} objects: exit {process.returncode}, {folder}/night.log")
    finally:
        parts.stop_all()
    return figures(folder, objects, watch, wall) | {"forecast": planned}


def figures(folder: Path, objects: int, watch: Watch, wall: float) -> dict[str, object]:
    """Gather what a night came to."""
    night = Ledger(open_storage(str(folder / "out"))).last_night()
    assert night is not None
    assert night.counts["objects"].done == objects
    files = [path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file()]
    return {
        "objects": objects,
        "partitions": night.partitions,
        "wall_s": wall,
        **{f"{name}_mb": watch.peak[name] / 1e6 for name in ROLES},
        **{f"{name}_cpu_s": watch.cpu[name] for name in ROLES},
        "cpu_ms_an_object": sum(watch.cpu.values()) / objects * 1e3,
        "files": len(files),
        "output_mb": sum(files) / 1e6,
        "seconds": night.seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("bench/millions"))
    parser.add_argument("--keep", action="store_true", help="do not delete the outputs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for objects in options.objects:
        folder = options.folder.resolve() / str(objects)
        found.append(measure(folder, objects))
        if not options.keep:
            shutil.rmtree(folder)
        print(f"{objects} objects: {json.dumps(found[-1])}", flush=True)
    few, many = found[0], found[-1]
    for name in ROLES:
        print(f"{name}: peak memory {many[f'{name}_mb'] / few[f'{name}_mb']:.3f} of that at the fewest")
    if len(found) > 1:
        spent = [sum(item[f"{name}_cpu_s"] for name in ROLES) for item in found]
        for one, other, less, more in zip(found, found[1:], spent, spent[1:], strict=False):
            added = (more - less) / (other["objects"] - one["objects"])
            print(f"{one['objects']} to {other['objects']}: {added * 1e3:.3f} CPU ms for each further object")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
