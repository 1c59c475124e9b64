"""What Prefect makes of nights that fire, collide, fail, are killed and come late.

A real Prefect server on a real PostgreSQL (Debian's), the deployments of deploy/prefect.yaml with a schedule
of every minute, the automations with a webhook that is listened to, and a process worker. Images cost next to
nothing. Each case has to hold in every part; what was found is printed as a table, and the exit status is 1
if a case failed. It takes some fifteen minutes, most of them waits for the schedule and for heartbeats. Run:
``python tests/benchmarks/prefect_nights.py [--cases NAME ...] [--json OUT] [--keep FOLDER]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cheap_night import write_night, write_plugin
from parts import GZSCALE
from prefect_site import ENDED, HOME, Site, running_site

from gzscale.config import load_config
from gzscale.night.ledger import Ledger
from gzscale.night.plan import make_plan
from gzscale.night.pointer import read_pointer
from gzscale.night.verify import verify
from gzscale.storage import open_storage

#: Seconds that an image of a night takes that is to be killed, or met by another.
SLOW = 0.6
#: Seconds without heartbeat after which a run is dead: two of deploy/prefect.yaml's intervals, and some.
SILENCE = 75
#: Seconds that the server is away.
AWAY = 5
#: Seconds between two renewals of a run's hold on its deployment's place: Prefect's own, which nothing sets.
RENEWAL = 225


@dataclass
class Case:
    """What became of one case: the parts that did not hold, and figures."""

    name: str
    wrong: list[str]
    figures: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every part held."""
        return not self.wrong


class Output:
    """A night's configuration with an output of its own."""

    def __init__(self, folder: Path, name: str, objects: int, pause: float = 0.0) -> None:
        survey = {"kind": "cheap", "root": "memory", "bands": "gri", "options": {"pause": pause}}
        self.url = str(folder / name / "output")
        self.config = write_night(
            folder / name, objects, survey=survey, max_objects=max(objects // 4, 1), output=self.url
        )
        self.storage = open_storage(self.url)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of a run."""
        return {"config": str(self.config)}

    def nights(self) -> list[str]:
        """Return the states of the runs in the ledger, oldest first."""
        ledger = Ledger(self.storage)
        return [ledger.read_night(name).state for name in ledger.nights()]

    def commits(self) -> dict[str, bytes]:
        """Return the commits of predictions; one that is made again has other bytes."""
        entries = [item.key for item in self.storage.list("ledger/predict") if item.key.endswith(".json")]
        return {key: self.storage.get(key) for key in entries}

    def release(self) -> str:
        """Return the name of the release that the pointer names."""
        pointer = read_pointer(self.storage)
        return pointer.release if pointer else ""

    def block(self) -> tuple[Path, int]:
        """Put a folder where a partition's predictions should go; return it, and how many objects it is."""
        item = make_plan(load_config(str(self.config), []), "before").partitions[0]
        place = Path(self.url, f"predictions/{item.partition.path}.parquet")
        place.mkdir(parents=True)
        return place, item.rows


Checks = dict[str, bool]


def duration(run: dict[str, Any]) -> str:
    """Return how long a run took."""
    return f"{run['total_run_time']:.0f} s"


def schedule_twice(site: Site, output: Output) -> tuple[Checks, str]:
    """The schedule makes a night, and another one that finds nothing to do."""

    def ended() -> list[dict[str, Any]]:
        # One that met the night before it was refused: on a busy machine that takes more than its minute.
        found = site.runs(auto_scheduled=True)
        return [run for run in found if run["state_type"] in ENDED - {"CANCELLED"}]

    site.until(lambda: len(ended()) > 1, "two scheduled nights", 420)
    first, second = ended()[:2]
    refused = len(site.runs(auto_scheduled=True, state_type="CANCELLED"))
    release, commits = output.release(), output.commits()
    starts = [datetime.fromisoformat(run["expected_start_time"]) for run in (first, second)]
    pull = site.deployment()["pull_steps"]
    checks = {
        "both runs completed": {first["state_type"], second["state_type"]} == {"COMPLETED"},
        "on the minute": {start.second for start in starts} == {0} and starts[0] < starts[1],
        "one night in the ledger": output.nights() == ["complete"],
        "a release": bool(release),
        "both left the account": min(site.accounts(run["id"]) for run in (first, second)) == 1,
        "no path of the deploying machine": "laptop" not in str(pull),
    }
    site.schedule(active=False)
    site.until(site.idle, "the end of the scheduled runs")
    figures = f"nights of {duration(first)} and {duration(second)}, {len(commits)} partitions"
    return checks, f"{figures}, release {release}; {refused} refused in between"


def overlap(site: Site, slow: Output) -> tuple[Checks, str]:
    """A scheduled run that meets a long one is refused, and so is the command line on its output."""
    long = site.start_run(slow.parameters)
    site.until(lambda: slow.nights() == ["running"], "the long night", 120)
    begun = datetime.now(UTC)
    site.schedule(active=True)

    def refused() -> list[dict[str, Any]]:
        found = site.runs(state_type="CANCELLED", auto_scheduled=True)
        return [run for run in found if datetime.fromisoformat(run["expected_start_time"]) > begun]

    site.until(lambda: refused() or site.run(long)["state_type"] != "RUNNING", "a scheduled run", 240)
    still = site.run(long)["state_type"]
    command = [*GZSCALE, "night", str(slow.config)]
    done = subprocess.run(command, env=site.environment, capture_output=True, text=True, check=False)
    site.schedule(active=False)
    ended = site.wait(long)
    site.until(site.idle, "the end of the scheduled runs")
    told = (refused() or [{"state": {"message": "none was refused"}}])[0]["state"]["message"] or ""
    checks = {
        "the scheduled run was refused": "concurrency limit reached" in told,
        "while the long one ran": still == "RUNNING",
        "the command line was refused": done.returncode == 2 and "LOCKED" in done.stderr,
        "the long run completed": ended["state_type"] == "COMPLETED",
        "one night in the ledger": slow.nights() == ["complete"],
        "nothing damaged": not verify(slow.url),
    }
    return checks, f'"{told}"; the long one took {duration(ended)}; the command line: exit {done.returncode}'


def failing(site: Site, output: Output) -> tuple[Checks, str]:
    """A night with objects that fail is a failed run that notifies; mended, the next one does the rest."""
    in_the_way, rows = output.block()
    run = site.wait(site.start_run(output.parameters))
    message = run["state"]["message"] or ""
    seconds = site.until(lambda: site.listener.about(run["name"], "failed"), "the notification", 60)
    body = site.listener.about(run["name"], "failed")[0]
    done = output.commits()
    in_the_way.rmdir()
    again = site.wait(site.start_run(output.parameters))
    kept = sum(output.commits().get(key) == data for key, data in done.items())
    checks = {
        "the run failed": run["state_type"] == "FAILED",
        "its message has the count": f"{rows} of " in message and "objects failed" in message,
        "and the remedy": str(in_the_way) in message and "run the night again" in message,
        "the account is left": site.accounts(run["id"]) == 1,
        "the notification says the same": message[:200] in body,
        "one notification": len(site.listener.about(run["name"])) == 1,
        "the next run completed": again["state_type"] == "COMPLETED" and output.nights()[-1] == "complete",
        "what was committed is kept": 0 < kept == len(done),
        "the mended run is not notified of": not site.listener.about(again["name"]),
    }
    return checks, f"{rows} objects failed, told after {seconds:.1f} s; mended: {kept} partitions kept"


def begin(site: Site, output: Output) -> str:
    """Start a night, and wait until it has committed a partition; return the run's identifier."""
    run = site.start_run(output.parameters)
    site.until(lambda: output.commits() or site.run(run)["state_type"] in ENDED, "a first partition", 300)
    return run


def finish(site: Site, output: Output, done: dict[str, bytes], run: str) -> tuple[Checks, str]:
    """Wait for the run after a death."""
    ended = site.wait(run, seconds=600)
    after = output.commits()
    kept = sum(after.get(key) == data for key, data in done.items())
    checks = {
        "the next run completed": ended["state_type"] == "COMPLETED",
        "it finished the work": output.nights()[-1] == "complete" and len(after) > len(done),
        "what was committed is kept": kept == len(done),
        "nothing damaged": not verify(output.url),
    }
    return checks, f"{kept} partitions kept, {len(after) - kept} done by the next run in {duration(ended)}"


def night_killed(site: Site, output: Output) -> tuple[Checks, str]:
    """The process of a night is killed: its worker tells of it, the next run finishes the work."""
    run = begin(site, output)
    for process in site.nights():
        process.send_signal(signal.SIGKILL)
    done = output.commits()
    seconds = site.until(lambda: site.run(run)["state_type"] != "RUNNING", "the end of the killed run", 120)
    killed = site.run(run)
    told = site.until(lambda: site.listener.about(killed["name"], "failed"), "the notification", 60)
    checks, figures = finish(site, output, done, site.start_run(output.parameters))
    checks |= {"the run crashed": killed["state_type"] == "CRASHED"}
    return checks, f"crashed after {seconds:.1f} s, told {told:.1f} s later; {figures}"


def worker_killed(site: Site, output: Output) -> tuple[Checks, str]:
    """The worker is killed with its night: silence ends the run, the next is late until a worker is back."""
    run = begin(site, output)
    count = site.kill_worker()
    done = output.commits()
    state = site.run(run)["state_type"]
    limit = SILENCE + 120
    seconds = site.until(lambda: site.run(run)["state_type"] != "RUNNING", "the end of the silent run", limit)
    killed = site.run(run)
    site.until(lambda: site.listener.about(killed["name"], "failed"), "the notification", 60)
    following = site.start_run(output.parameters)
    name = site.run(following)["name"]
    late = site.until(lambda: site.listener.about(name, "late"), "the notification of a late run", 120)
    site.start_worker()
    checks, figures = finish(site, output, done, following)
    checks |= {
        "nobody told Prefect of the death": state == "RUNNING",
        "the run crashed": killed["state_type"] == "CRASHED",
        "for its silence": "no heartbeat" in (killed["state"]["message"] or ""),
    }
    told = f"{count} processes killed, crashed after {seconds:.0f} s; next one late, told after {late:.0f} s"
    return checks, f"{told}; {figures}"


def server_restarted(site: Site, output: Output) -> tuple[Checks, str]:
    """The server is away for a while in the middle of a night, which goes on; once back, it is told of it."""
    run = begin(site, output)
    site.stop_server()
    time.sleep(AWAY)
    site.start_server()
    back = datetime.now(UTC)
    ended = site.wait(run, seconds=600)
    after, total = (datetime.fromisoformat(ended["end_time"]) - back).total_seconds(), ended["total_run_time"]
    checks = {
        "the run completed": ended["state_type"] == "COMPLETED",
        "its place was renewed after that": total // RENEWAL > (total - after) // RENEWAL,
        "one night in the ledger": output.nights() == ["complete"],
        "the account is left": site.accounts(run) == 1,
        "nothing damaged": not verify(output.url),
    }
    state = f"{ended['state']['name']} {ended['state']['message'] or ''}".strip()
    return checks, f"{state}, {after:.0f} s after the server was back, {duration(ended)} in all"


def play(name: str, case: Callable[[Site, Output], tuple[Checks, str]], site: Site, output: Output) -> Case:
    """Play a case; one that gives up has failed."""
    start = time.monotonic()
    try:
        checks, figures = case(site, output)
        wrong = [what for what, held in checks.items() if not held]
    except SystemExit as error:
        wrong, figures = [str(error)], ""
    made = Case(name, wrong, figures, time.monotonic() - start)
    print(line(made), flush=True)
    return made


def line(case: Case) -> str:
    """Write a case as a row of a Markdown table."""
    told = case.figures if case.passed else f"not: {'; '.join(case.wrong)}. {case.figures}"
    return f"| {case.name} | {'PASS' if case.passed else 'FAIL'} | {told} | {case.seconds:.0f} s |"


#: Case -> what plays it, objects of its night, seconds of an image.
CASES: dict[str, tuple[Callable[[Site, Output], tuple[Checks, str]], int, float]] = {
    "schedule fires twice": (schedule_twice, 40, 0.0),
    "overlapping runs": (overlap, 100, 12 * SLOW),
    "objects that fail": (failing, 40, 0.0),
    "night killed": (night_killed, 100, SLOW),
    "server restarted": (server_restarted, 100, 30 * SLOW),
    "worker and night killed": (worker_killed, 100, SLOW),
}


def cases(folder: Path, names: list[str]) -> list[Case]:
    """Start the site and play the cases."""
    path = f"{write_plugin(folder / 'plugin')}:{HOME}:{os.environ.get('PYTHONPATH', '')}"
    outputs = {
        name: Output(folder, name.replace(" ", "-"), objects, pause)
        for name, (_, objects, pause) in CASES.items()
    }
    with running_site(folder, {"PYTHONPATH": path, "GZSCALE_HOME": str(HOME)}) as site:
        first = "schedule fires twice"
        site.deploy("* * * * *", outputs[first].parameters, active=first in names)
        site.alert(SILENCE)
        site.start_worker()
        return [play(name, CASES[name][0], site, outputs[name]) for name in names]


def main() -> None:
    """Play the cases and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder that logs and outputs stay in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="gzscale-prefect-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = cases(folder, options.cases)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n| case | | what happened | took |\n|---|---|---|---|")
    print("\n".join(map(line, found)))
    if options.json:
        options.json.write_text(json.dumps([asdict(item) for item in found], indent=1) + "\n")
    if not all(item.passed for item in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
