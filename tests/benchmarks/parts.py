"""A cluster as a site has it, of processes that can be killed, started again and measured one by one.

Scheduler and workers run by themselves; a night reaches them by a preset of kind ``address``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from gzscale.clusters.workers import ENVIRONMENT

GZSCALE = [sys.executable, "-m", "gzscale.cli"]


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait, and give up with an error."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


class Parts:
    """Processes by name: a scheduler, workers, and whatever else is added to `commands`.

    Parameters
    ----------
    folder
        For logs, scratch and the preset.
    workers
        Name of each worker -> its resources, as `dask worker` takes them.
    environment
        Beside that of this process.
    """

    def __init__(self, folder: Path, workers: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.folder, self.workers = folder, tuple(workers)
        self.running: dict[str, subprocess.Popen] = {}
        port = free_port()
        address = f"tcp://127.0.0.1:{port}"
        dask = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny"]
        worker = [*dask, "--nthreads", "1", "--memory-limit", "0", "--local-directory", str(folder / "dask")]
        scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
        self.commands = {"scheduler": [*scheduler, "--port", str(port)]}
        self.commands |= {name: [*worker, "--resources", given] for name, given in workers.items()}
        self.ports = {"scheduler": port}
        self.preset = folder / "parts.yaml"
        self.preset.write_text(f"kind: address\naddress: {address}\nstart_timeout: 60\n")
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "prefect")}
        self.environment |= {"no_proxy": "127.0.0.1,localhost", **environment}

    def start(self, name: str) -> None:
        """Start a part unless it runs, and wait until it listens."""
        if name in self.running and self.running[name].poll() is None:
            return
        if name in self.ports and answers(self.ports[name]):
            raise SystemExit(
                f"port {self.ports[name]}: something answers there that is not the {name} to kill"
            )
        environment = self.environment | (ENVIRONMENT if name in self.workers else {})
        with open(self.folder / f"{name.replace(' ', '-')}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                self.commands[name], env=environment, stdout=log, stderr=log, cwd=self.folder
            )
        if name in self.ports:
            wait_for(lambda: answers(self.ports[name]), name, 120)

    def kill(self, name: str) -> None:
        """Kill a part without warning."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def start_all(self) -> None:
        """Start whatever does not run; workers that lost their scheduler are replaced."""
        if "scheduler" not in self.running:
            for name in self.workers:
                if name in self.running:
                    self.kill(name)
        others = [name for name in self.commands if name not in {"scheduler", *self.workers}]
        for name in (*others, "scheduler", *self.workers):
            self.start(name)

    def stop_all(self) -> None:
        """Kill every part that was started here."""
        for name in list(self.running):
            self.kill(name)

    def night(self, config: Path, output: str, log: Path) -> subprocess.Popen:
        """Begin a night on this cluster; it is a part, too, named ``main``."""
        command = [*GZSCALE, "night", str(config), "--output", output, "--cluster", str(self.preset)]
        with open(log, "wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        self.running["main"] = process
        return process


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)
