"""Nights on a real SLURM whose jobs end in their middle, against the same night on this machine.

Two jobs cut, one predicts. While they cut, one is cancelled by ``scancel``; the other reaches its walltime of
a minute: its worker leaves before (``drained``), or, where it is told nothing of the walltime, SLURM kills it
(``killed``). Each night has to end in the release of an undisturbed local night, byte for byte, at the first
try, and `gzscale verify` may find nothing. Run on a submit host:
``python tests/benchmarks/slurm_night.py --partition NAME [--interface lo] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from cheap_night import write_night, write_plugin
from parts import GZSCALE, wait_for

from gzscale.night.pointer import read_pointer
from gzscale.night.verify import verify
from gzscale.storage import open_storage, sha256_hex

CASES = ("drained", "killed")
#: Objects, and seconds that each image takes, so that two jobs cut for longer than a walltime.
OBJECTS, PAUSE = 400, 1.0
#: Seconds that a night may take at most, and between two looks at the queue.
LIMIT, LOOK = 900.0, 0.5
#: Seconds of a job that cuts, SLURM's shortest; the states that a job ends in.
WALLTIME = 60
ENDED = ("COMPLETING", "COMPLETED", "CANCELLED", "TIMEOUT")
#: Of workers that are not told when their job ends.
UNTOLD = "unset DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER"


@dataclass
class Case:
    """What came of one night.

    ``jobs`` are those of the night: number -> its name, and the states that it was seen in with the seconds
    from the beginning of the night on that each was first seen.
    """

    walltime: str
    code: int = -1
    same: bool = False
    verified: bool = False
    seconds: float = 0.0
    cancelled: str = ""
    jobs: dict[str, dict[str, float | str]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether a job was cancelled, one reached its walltime, and the release tells nothing of it."""
        others = (states for job, states in self.jobs.items() if job != self.cancelled)
        reached = any(self._reached(states) for states in others)
        return bool(self.cancelled) and reached and self.code == 0 and self.same and self.verified

    def _reached(self, states: dict[str, float | str]) -> bool:
        """Whether a job was killed by its walltime, or ended in its last quarter with work left to do."""
        if self.walltime == "killed":
            return "TIMEOUT" in states
        ends = [float(states[name]) for name in ENDED if name in states]
        ran = min(ends, default=0.0) - float(states.get("RUNNING", 0))
        return 0.75 * WALLTIME < ran < WALLTIME + 5 and min(ends) < self.seconds - 5


def write_preset(path: Path, partition: str, interface: str | None, walltime: str) -> None:
    """Write a preset of two jobs that cut for a minute at most, and one that predicts."""
    job = {"partition": partition, "memory": "2GB"}
    tree = {
        "kind": "slurm",
        "start_timeout": 240,
        "python": sys.executable,
        "logs": str(path.parent / "logs"),
        "cut": {**job, "minimum": 2, "maximum": 2, "walltime": "00:01:00"},
        "predict": {**job, "walltime": "00:30:00"},
    }
    tree |= {"interface": interface} if interface else {}
    tree |= {"prologue": [UNTOLD]} if walltime == "killed" else {}
    path.write_text(yaml.safe_dump(tree))


def released(output: Path) -> dict[str, str]:
    """Return the hash of each file of the release that is published."""
    storage = open_storage(str(output))
    pointer = read_pointer(storage)
    if pointer is None:
        return {}
    prefix = f"releases/{pointer.release}"
    return {
        entry.key.removeprefix(prefix): sha256_hex(storage.get(entry.key)) for entry in storage.list(prefix)
    }


def look_at_jobs(case: Case, before: set[str], seconds: float) -> None:
    """Note the states of this night's jobs."""
    command = ["squeue", "--me", "--noheader", "--states=all", "--format=%A|%j|%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        job, name, state = line.split("|")
        if job in before or not name.startswith("gzscale"):
            continue
        case.jobs.setdefault(job, {"name": name}).setdefault(state, round(seconds, 1))


def start(config: Path, output: Path, *more: str) -> subprocess.Popen:
    """Begin a night; what it says is in a file beside its output."""
    command = [*GZSCALE, "night", str(config), "--output", str(output), *more]
    with open(f"{output}.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def run_case(folder: Path, config: Path, walltime: str, options: argparse.Namespace) -> Case:
    """Run one night, and cancel one of its jobs while it cuts."""
    case, seen = Case(walltime), Case("")
    look_at_jobs(seen, set(), 0.0)
    preset, output = folder / f"{walltime}.yaml", folder / walltime
    write_preset(preset, options.partition, options.interface, walltime)
    begun = time.monotonic()
    process = start(config, output, "--cluster", str(preset))
    storage = open_storage(str(output))

    def cutting() -> bool:
        return process.poll() is not None or any(True for _ in storage.list("ledger/cut"))

    wait_for(cutting, "the first partition", LIMIT)
    look_at_jobs(case, set(seen.jobs), time.monotonic() - begun)
    running = [job for job, said in case.jobs.items() if "cut" in str(said["name"]) and "RUNNING" in said]
    if process.poll() is None and running:
        case.cancelled = running[0]
        subprocess.run(["scancel", case.cancelled], check=True)
    while process.poll() is None:
        if time.monotonic() - begun > LIMIT:
            process.kill()
        look_at_jobs(case, set(seen.jobs), time.monotonic() - begun)
        time.sleep(LOOK)
    case.code, case.seconds = process.returncode, time.monotonic() - begun
    return case


def main() -> None:
    """Run the nights and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--interface", help="network interface of the jobs, such as lo or ib0")
    parser.add_argument("--walltime", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--folder", type=Path, help="that the nodes see, too; the current one's if absent")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gzscale-slurm-", dir=options.folder or Path.cwd()))
    os.environ["PYTHONPATH"] = f"{write_plugin(folder / 'plugin')}:{os.environ.get('PYTHONPATH', '')}"
    os.environ |= {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "prefect")}
    cases: list[Case] = []
    try:
        survey = {"kind": "cheap", "root": "memory", "bands": "gri", "options": {"pause": PAUSE}}
        config = write_night(
            folder / "sky", options.objects, survey=survey, max_objects=max(options.objects // 48, 1)
        )
        local = folder / "local"
        if start(config, local, "--cluster", "local").wait():
            raise SystemExit(f"the local night failed: {Path(f'{local}.log').read_text()}")
        reference = released(local)
        print(f"local: a release of {len(reference)} files", flush=True)
        for walltime in options.walltime:
            case = run_case(folder, config, walltime, options)
            output = folder / walltime
            case.same, case.verified = released(output) == reference, not verify(str(output))
            cases.append(case)
            print(json.dumps(asdict(case)), flush=True)
            if not case.passed:
                print(Path(f"{output}.log").read_text(errors="replace"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    if not all(case.passed for case in cases):
        sys.exit(1)


if __name__ == "__main__":
    main()
