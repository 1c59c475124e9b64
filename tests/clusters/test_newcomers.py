"""Workers that join in mid-night are asked what the first ones were, and sent away where it is wrong."""

import asyncio
import dataclasses
import logging
import time
from types import SimpleNamespace

import pytest
from distributed import LocalCluster, Nanny
from distributed.core import Status
from distributed.protocol import pickle

from gzscale.cluster import open_cluster
from gzscale.clusters import newcomers
from gzscale.clusters.health import Demands, WorkerReport, own_versions
from gzscale.clusters.newcomers import Newcomers
from gzscale.clusters.workers import KINDS


class Worker:
    """As much of a worker as is asked and told."""

    name, address = "cut-7", "tcp://10.0.0.7:40000"
    status = Status.running

    def __init__(self, clock, delays, trips):
        self.loop = self.scheduler = self
        self._clock, self._delays, self._trips = clock, iter(delays), iter(trips)
        self.told, self.called = [], []

    async def run_function(self, function):
        # The whole trip is the answer's way: as far from the middle as it can be.
        answer = {"status": "OK", "result": pickle.loads(function)() + next(self._delays)}
        self._clock.now += next(self._trips)
        return answer

    def log_event(self, topic, message):
        self.told.append((topic, message))

    def add_callback(self, function, *arguments):
        self.called.append(function)


@pytest.fixture
def join(monkeypatch):
    clock = SimpleNamespace(now=1.8e9)
    monkeypatch.setattr(newcomers, "time", SimpleNamespace(time=lambda: clock.now))

    def ask(ahead=0.0, delay=0.0, trips=(0.0,) * 3, error=None, **changes):
        def report(worker):
            if error:
                raise error
            good = WorkerReport(own_versions(), clock.now, "/scratch", 10**9, "cpu float32")
            return dataclasses.replace(good, **changes)

        monkeypatch.setattr(newcomers, "report", report)
        worker = Worker(clock, [delay] * 3, trips)
        bounds = ahead, ahead + 0.01
        plugin = Newcomers("night", Demands(own_versions(), 10**9, False), "cpu float32", bounds)
        asyncio.run(plugin.setup(worker))
        return worker

    return ask


def test_a_good_worker_is_let_in(join):
    for worker in (
        join(),
        join(compute=""),
        # The scheduler is an hour ahead of the night, and the worker with the night.
        join(ahead=3600.0, delay=3598.0),
        # A scheduler that was busy, and may be 4.9 or 5.1 seconds ahead for all that is known.
        join(delay=5.1, trips=(0.3, 0.2, 0.3)),
    ):
        assert (worker.status, worker.told, worker.called) == (Status.running, [], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"versions": {**own_versions(), "torch": "1.0"}},
            "runs other code than this process (torch 1.0, here",
        ),
        ({"versions": {**own_versions(), "numpy": "1.0"}}, "numpy 1.0, here"),
        ({"versions": {**own_versions(), "gzscale": "0.0.1"}}, "gzscale 0.0.1, here"),
        ({"versions": {**own_versions(), "code": "0"}}, "install the same gzscale there"),
        ({"delay": -60.0}, "another time than this process (60.0 s off, 5 s allowed); synchronise"),
        ({"delay": 5.3, "trips": (0.5, 0.0, 0.5)}, "5.3 s off"),
        ({"ahead": 3600.0}, "another time than this process (3600.0 s off"),
        ({"free": 10**8}, "0.10 GB free in /scratch, 1.00 GB needed"),
        ({"compute": "cpu bfloat16"}, "predicts on cpu bfloat16, and this night on cpu float32"),
        (
            {"error": ModuleNotFoundError("no torch")},
            "cannot say what it runs (ModuleNotFoundError: no torch)",
        ),
    ],
)
def test_a_worker_that_would_spoil_the_night_is_not_let_in(join, changes, said, caplog):
    worker = join(**changes)
    ((topic, message),) = worker.told
    assert topic == "night"
    assert message.startswith("worker cut-7 at tcp://10.0.0.7:40000 is not let in: it ")
    assert said in message
    assert message in caplog.text
    assert worker.status == Status.closing_gracefully
    assert len(worker.called) == 1


def test_of_several_things_that_are_wrong_all_are_told(join):
    ((_, message),) = join(delay=-60.0, free=0).told
    assert "another time" in message
    assert "too little scratch space" in message


def test_of_several_trips_the_shortest_tells_the_time():
    assert newcomers.shortest([(-9.0, 1.0), (-0.2, 0.1), (0.0, 2.0)]) == (-0.2, 0.1)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def local(tmp_path):
    """A cluster that goes on when nights are over."""
    options = {"threads_per_worker": 1, "resources": dict.fromkeys(KINDS, 1), "dashboard_address": None}
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", **options) as cluster:
        yield cluster


def add(local, name, **options):
    """Start a worker process."""
    options = {"nthreads": 1, "dashboard": False, **options}
    local.worker_spec[name] = {"cls": Nanny, "options": options}
    local.scale(len(local.worker_spec))


@pytest.mark.slow
def test_a_process_with_other_code_that_joins_later_does_none_of_the_work(local, tmp_path, caplog):
    (tmp_path / "other.py").write_text("import gzscale\ngzscale.__version__ = '0.0.1'\n")
    path = tmp_path / "preset.yaml"
    path.write_text(f"kind: address\naddress: {local.scheduler_address}\nscratch_free: 1KB\n")
    scheduler = local.scheduler
    with open_cluster(str(path)) as cluster, caplog.at_level(logging.WARNING):
        assert any(name.startswith("gzscale-newcomers") for name in scheduler.worker_plugins)
        # Only newcomers can do it: the first is not let in, the second is.
        future = cluster.client.submit(sum, [1, 2], resources={"LATE": 1})
        add(local, "late", resources={"LATE": 1}, preload=[str(tmp_path / "other.py")])
        wait_for(lambda: "late at" in caplog.text)
        said = "is not let in: it runs other code than this process (gzscale 0.0.1, here"
        assert said in caplog.text
        wait_for(lambda: said in cluster.waits_for())
        wait_for(lambda: {worker.name for worker in scheduler.workers.values()} == {0})
        # It may be gone again before the cluster has noted that it came.
        wait_for(lambda: "late" in local.workers and local.workers["late"].status == Status.closed)
        assert not future.done()
        assert scheduler.tasks[future.key].suspicious == 0
        add(local, "good", resources={"LATE": 1})
        assert future.result(timeout=60) == 3
        assert {worker.name for worker in scheduler.workers.values()} == {0, "good"}
    wait_for(lambda: not any(name.startswith("gzscale-newcomers") for name in scheduler.worker_plugins))
    add(local, "after", preload=[str(tmp_path / "other.py")])
    wait_for(lambda: "after" in {worker.name for worker in scheduler.workers.values()})
