"""A site's Prefect on loopback: a server on PostgreSQL, deployments, a worker, and whoever is notified."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from parts import answers, free_port, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "surveys"))

from postgres_server import running_server

HOME = Path(__file__).resolve().parents[2]
PREFECT = [sys.executable, "-m", "prefect"]
POOL, BLOCK = "nights", "night-alerts"
#: States that a run does not leave.
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
FILES = "prefect.server.concurrency.lease_storage.filesystem"
#: Saves the block that automations send to; in a process of its own, with this site's environment.
SAVE_BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
data = {"subject": "{{subject}}", "body": "{{body}}"}
block = CustomWebhookNotificationBlock(name="alerts", url=sys.argv[1], json_data=data)
block.save(sys.argv[2], overwrite=True)
"""


class Listener:
    """An HTTP server that keeps what it is told: the chat or pager of a site."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def about(self, run: str, subject: str = "") -> list[str]:
        """Return the messages that name a run."""
        found = (item for item in self.messages if subject in item["subject"])
        return [item["body"] for item in found if f"run {run} " in item["body"]]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()


class Site:
    """See the module.

    Parameters
    ----------
    folder
        For logs, Prefect's home and the deployments' file.
    database
        URL of the server's database.
    environment
        Of the worker and its nights, beside that of this process.
    """

    def __init__(self, folder: Path, database: str, environment: dict[str, str]) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **environment,
        }
        self._server_environment = self.environment | {
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            LEASES: os.environ.get(LEASES, FILES),  # as deploy/ sets it
        }
        self._running: dict[str, subprocess.Popen] = {}
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        self.listener = Listener()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def start_server(self) -> None:
        """Start the server; its first start makes the tables."""
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._start("server", command, self._server_environment)
        wait_for(lambda: answers(self.port), "Prefect's server", 180)

    def stop_server(self) -> None:
        """Stop the server as an update of its host does."""
        self._end("server")

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def start_worker(self) -> None:
        """Start a worker of the pool, and wait until it polls."""
        self._start("worker", [*PREFECT, "worker", "start", "--pool", POOL], self.environment)

    def kill_worker(self) -> int:
        """Kill the worker and every process below it, as a machine that loses power does; count them."""
        worker = psutil.Process(self._running.pop("worker").pid)
        doomed = [worker, *worker.children(recursive=True)]
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(doomed, 30)
        return len(doomed)

    def nights(self) -> list[psutil.Process]:
        """Return the processes of the worker that run a flow: all below it that are Prefect's engine."""
        below = psutil.Process(self._running["worker"].pid).children(recursive=True)
        return [process for process in below if "prefect.engine" in " ".join(process.cmdline())]

    def command(self, *command: str, folder: Path = HOME) -> str:
        """Run a command of this site to its end; return what it wrote."""
        done = subprocess.run(
            command, env=self.environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def deploy(self, cron: str, parameters: dict[str, Any], active: bool) -> None:
        """Make the pool and the deployments of deploy/prefect.yaml, `nightly` with another schedule."""
        self.command(*PREFECT, "work-pool", "create", POOL, "--type", "process")
        tree = yaml.safe_load((HOME / "deploy" / "prefect.yaml").read_text())
        nightly = next(item for item in tree["deployments"] if item["name"] == "nightly")
        nightly["schedules"] = [{"cron": cron, "timezone": "UTC", "active": active}]
        nightly["parameters"] = parameters
        path = self.folder / "prefect.yaml"
        path.write_text(yaml.safe_dump(tree))
        # As on a laptop: what its environment says must not be stored.
        laptop = ("env", "GZSCALE_HOME=/laptop", f"GZSCALE_POOL={POOL}", *PREFECT, "--no-prompt", "deploy")
        self.command(*laptop, "--prefect-file", str(path), "--all")

    def alert(self, silence: int) -> None:
        """Make the automations; a run is dead after so many seconds without heartbeat."""
        self.command(sys.executable, "-c", SAVE_BLOCK, self.listener.url, BLOCK)
        self.command(sys.executable, "-m", "flows.automations", f"custom-webhook/{BLOCK}", str(silence))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server."""
        answer = self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self) -> dict[str, Any]:
        """Return the deployment."""
        return self.api("GET", "/deployments/name/nightly/nightly")

    def schedule(self, active: bool) -> None:
        """Have the schedule make runs, or none."""
        made = self.deployment()
        for item in made["schedules"]:
            self.api("PATCH", f"/deployments/{made['id']}/schedules/{item['id']}", {"active": active})

    def runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the deployment's runs that have these values, oldest first."""
        body = {"deployments": {"name": {"any_": ["nightly"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.api("POST", "/flow_runs/filter", body)
        return [run for run in found if all(run[name] == value for name, value in wanted.items())]

    def idle(self) -> bool:
        """Tell whether no run has the deployment's place."""
        return not any(run["state_type"] in {"PENDING", "RUNNING"} for run in self.runs())

    def start_run(self, parameters: dict[str, Any]) -> str:
        """Ask for a run once none has the deployment's place; return its identifier."""
        self.until(self.idle, "the end of the runs before")
        path = f"/deployments/{self.deployment()['id']}/create_flow_run"
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.api("POST", path, body)["id"]

    def run(self, identifier: str) -> dict[str, Any]:
        """Return a run."""
        return self.api("GET", f"/flow_runs/{identifier}")

    def wait(self, identifier: str, states: set[str] = ENDED, seconds: float = 300) -> dict[str, Any]:
        """Wait until a run is in one of some states."""
        self.until(
            lambda: self.run(identifier)["state_type"] in states, f"run {identifier}: {states}", seconds
        )
        return self.run(identifier)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 300) -> float:
        """Wait, asking the server no more than it likes; return the seconds."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise SystemExit(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.5)
        return time.monotonic() - start

    def accounts(self, identifier: str) -> int:
        """Count the accounting tables that a run left, its tasks included."""
        body = {"artifacts": {"flow_run_id": {"any_": [identifier]}, "key": {"any_": ["night-accounting"]}}}
        return len(self.api("POST", "/artifacts/filter", body))

    def close(self) -> None:
        """End every process that was started here."""
        if "worker" in self._running:
            self.kill_worker()
        for name in list(self._running):
            self._end(name)
        self.listener.close()


@contextlib.contextmanager
def running_site(folder: Path, environment: dict[str, str]) -> Iterator[Site]:
    """Start PostgreSQL and Prefect's server on it; end both."""
    with running_server() as postgres:
        account, _, place = postgres.url.removeprefix("postgresql://").partition("@")
        site = Site(folder, f"postgresql+asyncpg://{account}:{postgres.password}@{place}", environment)
        try:
            site.start_server()
            yield site
        finally:
            site.close()
