"""The same night with one worker and with two, of one core each: how much faster, and what is in the way.

Each worker is bound to a core of its own, as a batch system binds a job: else the one worker's threads, which
decode images ahead, would use the core that the second one is to bring.

The night is over a simulated sky (made once, kept). Beside wall time it says how many CPU seconds the workers
took, main process and Prefect server outside of the processing (``serial``) and during it (``beside``: with
two workers on two cores it is taken from them), and how long workers had nothing to do. A machine that does
other work spoils the wall times; then ``by CPU seconds`` tells, the ratio of the times that these figures
come to on two cores that do nothing else. Run:
``python tests/benchmarks/bench_scaling.py [--objects 20000] [--config NIGHT] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from parts import GZSCALE

from gzscale.night.ledger import Ledger
from gzscale.night.planned import read_plan
from gzscale.storage import open_storage

LOOK = 0.1


class Clock:
    """CPU seconds of a night's processes as they grow; workers are bound to a core as they appear."""

    def __init__(self, pid: int) -> None:
        self._main = psutil.Process(pid)
        self._bound: set[int] = set()
        self._spent: dict[tuple[bool, int], float] = {}
        self._grown = [(0.0, 0.0)]

    def look(self) -> None:
        """Take a sample; what a process has used stays after its end."""
        try:
            every = [self._main, *self._main.children(recursive=True)]
        except psutil.Error:
            return
        for process in every:
            try:
                times, line = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            self._spent["spawn_main" in line, process.pid] = times.user + times.system
            if "spawn_main" in line and process.pid not in self._bound:
                bind(process.pid, len(self._bound))
                self._bound.add(process.pid)
        self._grown.append((time.time(), self._sum(False)))

    def workers(self) -> float:
        """Return CPU seconds of the workers."""
        return self._sum(True)

    def others(self, begin: float, end: float) -> float:
        """Return CPU seconds of all other processes between two times."""
        times, spent = zip(*self._grown, strict=True)
        return float(np.interp(end, times, spent) - np.interp(begin, times, spent))

    def _sum(self, workers: bool) -> float:
        return sum(spent for (is_worker, _), spent in self._spent.items() if is_worker == workers)


def run(config: Path, output: Path, workers: int, most: int) -> dict[str, float]:
    """Run a night on that many workers, with so many objects of a partition at most."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    preset = output.parent / f"workers-{workers}.yaml"
    preset.write_text(f"kind: local\nworkers: {workers}\n")
    command = [*GZSCALE, "night", str(config), "--output", str(output), "--cluster", str(preset)]
    command += ["--set", f"max_objects={most}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    clock = Clock(process.pid)
    while process.poll() is None:
        clock.look()
        time.sleep(LOOK)
    if process.returncode:
        sys.exit(f"the night over {config} ended with {process.returncode}")
    wall = time.perf_counter() - start
    begin, end, found = spans(output)
    found["beside_cpu_s"] = clock.others(begin, end)
    found["serial_cpu_s"] = clock.others(0, time.time()) - found["beside_cpu_s"]
    return {"workers": workers, "wall_s": wall, "worker_cpu_s": clock.workers(), **found}


def bind(pid: int, number: int) -> None:
    """Bind a process and what it starts from now on to one of the machine's cores."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):  # It has ended.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[number % len(cores)]})


def quiet_seconds(night: dict[str, float]) -> float:
    """Return the wall time of a night on two cores that do nothing else.

    One worker leaves a core to the main process, two do not.
    """
    shared = night["beside_cpu_s"] if night["workers"] > 1 else 0.0
    processing = (night["worker_cpu_s"] + shared) / night["workers"]
    return night["serial_cpu_s"] + processing / (1 - night["idle_share"])


def spans(output: Path) -> tuple[float, float, dict[str, float]]:
    """Return when the processing began and ended, and what the workers did meanwhile."""
    storage = open_storage(str(output))
    ledger = Ledger(storage)
    night = ledger.last_night()
    assert night is not None
    tasks: dict[str, list[list[float]]] = {}
    for item in read_plan(storage, night.night).partitions:
        for stage in ("cut", "predict"):
            record = ledger.read(stage, item.partition)
            assert record is not None
            tasks.setdefault(record.worker, []).append(record.span)
    busy = [sum(end - begin for begin, end in each) for each in tasks.values()]
    begin = min(span[0] for each in tasks.values() for span in each)
    end = max(span[1] for each in tasks.values() for span in each)
    present = (end - begin) * len(busy)
    last = [max(span[1] for span in each) for each in tasks.values()]
    return (
        begin,
        end,
        {
            "processing_s": end - begin,
            "work_s": sum(busy),
            "idle_share": 1 - sum(busy) / present,
            "idle_share_at_the_end": sum(end - each for each in last) / present,
        },
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--config", type=Path, help="a night that is there already")
    parser.add_argument("--max-objects", type=int, default=2048, help="few objects: make partitions smaller")
    parser.add_argument("--folder", type=Path, default=Path("bench"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = options.config
    if config is None:
        sky = options.folder / f"sky-{options.objects}"
        config = sky / "night.yaml"
        if not config.exists():
            made = [*GZSCALE, "simulate", str(sky), "--objects", str(options.objects), "--seed", "1"]
            subprocess.run(made, check=True)
    found = []
    for workers in (1, 2):
        load = os.getloadavg()[0]
        found.append(
            run(config, options.folder / "scaling" / "night", workers, options.max_objects)
            | {"load_before": load}
        )
        print(", ".join(f"{key} {value:.4g}" for key, value in found[-1].items()), flush=True)
    one, two = found
    by_cpu = quiet_seconds(one) / quiet_seconds(two)
    result = {
        "nights": found,
        "speed_up": one["wall_s"] / two["wall_s"],
        "speed_up_of_processing": one["processing_s"] / two["processing_s"],
        "by_cpu_seconds": by_cpu,
        "goal": 1.9,
    }
    print(
        f"two workers against one: {result['speed_up']:.3f} (goal 1.9), of the processing "
        f"{result['speed_up_of_processing']:.3f}; by CPU seconds {by_cpu:.3f}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
