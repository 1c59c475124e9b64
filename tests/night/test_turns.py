"""Turns at a device: one partition at a time, and beside it others that are read and written."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from distributed import Client, LocalCluster, get_worker

from gzscale.models.device import device_turn, held
from gzscale.night import answering
from gzscale.night.ledger import Ledger
from gzscale.night.origins import origins
from gzscale.night.station import run_stage
from gzscale.night.turns import LEAST, MOST, in_hand, let_next_in
from gzscale.night.work import Summary, predict
from gzscale.storage import open_storage

GIB = 1 << 30
#: What the tasks of the cluster in this process did, in order.
_TOLD = []


def stage(number, on_gpu, turns=1, patient=False):
    _TOLD.append(("read", number))
    if on_gpu:
        let_next_in(GIB)
    time.sleep(0.05)
    for _ in range(turns):
        with device_turn(torch.device("cuda" if on_gpu else "cpu")):
            _TOLD.append(("begin", number))
            time.sleep(0.1)
            if patient:
                _wait_for_the_next()
            _TOLD.append(("end", number))
    time.sleep(0.05)
    _TOLD.append(("written", number))
    return get_worker().state.total_resources["PREDICT"]


def _wait_for_the_next():
    """Wait until another partition is being read than were predicted before and is now, if one is let in."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        reads, ends = (sum(what == word for what, _ in list(_TOLD)) for word in ("read", "end"))
        if reads >= min(8, ends + 2):
            return
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})


@contextlib.contextmanager
def worker_of(resources):
    """Connect to a worker of one thread in this process."""
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with (
        LocalCluster(resources=resources, **options) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def run(resources, *arguments):
    """Run eight partitions on one worker of one thread; return what it did, and PREDICT at the end."""
    _TOLD.clear()
    options = {"resources": {"PREDICT": 1}, "pure": False}
    with worker_of(resources) as client:
        futures = [client.submit(stage, number, *arguments, **options) for number in range(8)]
        last = client.gather(futures)[-1]
    return list(_TOLD), last


def most_begun(told):
    """Return the most partitions that were begun and not written at any time."""
    now = most = 0
    for what, _ in told:
        now += {"read": 1, "written": -1}.get(what, 0)
        most = max(most, now)
    return most


def test_a_gpu_predicts_while_the_next_are_read_and_the_last_written():
    told, resources = run({"PREDICT": 1}, True, 1, True)
    on_device = [words for words in told if words[0] in ("begin", "end")]
    # Never two at a time, whoever comes first.
    for begin, end in zip(on_device[::2], on_device[1::2], strict=True):
        assert (begin[0], end[0]) == ("begin", "end")
        assert begin[1] == end[1]
    assert sorted(number for what, number in told if what == "written") == list(range(8))
    assert 2 <= most_begun(told) <= LEAST
    ends = [place for place, words in enumerate(told) if words[0] == "end"]
    reads = [place for place, words in enumerate(told) if words[0] == "read"]
    # But for the first, each was being read before the one before it had been predicted.
    assert all(read < end for read, end in zip(reads[1:], ends, strict=False))
    assert resources == LEAST


@pytest.mark.parametrize(
    ("cores", "memory", "each", "number"),
    [
        (2, 64 * GIB, GIB, LEAST),
        (8, 64 * GIB, GIB, 8),
        (64, 64 * GIB, GIB, MOST),
        (64, 16 * GIB, GIB, 12),
        (64, 16 * GIB, 2 * GIB, 6),
        (64, 1, GIB, LEAST),
        (12, None, GIB, 12),
    ],
)
def test_cores_and_memory_say_how_many_partitions_are_in_hand(monkeypatch, cores, memory, each, number):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    assert in_hand(memory, each) == number


def test_a_task_may_have_several_turns():
    told, _ = run({"PREDICT": 1}, True, 2)
    assert sum(what == "end" for what, _ in told) == 16
    assert most_begun(told) <= LEAST


@pytest.mark.parametrize(("resources", "on_gpu"), [({"PREDICT": 1}, False), ({"PREDICT": 1, "CUT": 1}, True)])
def test_a_worker_without_a_gpu_of_its_own_holds_one_partition_at_a_time(resources, on_gpu):
    told, left = run(resources, on_gpu)
    assert most_begun(told) == 1
    assert left == 1


def test_outside_of_a_worker_nobody_is_let_in():
    let_next_in(GIB)
    with device_turn(torch.device("cuda")):
        pass


def test_a_bundle_is_loaded_once_by_however_many_threads_while_another_predicts(monkeypatch):
    loaded = []

    def load(location, sha256=""):
        return SimpleNamespace(sha256=f"of {location}")

    def engine(bundle):
        loaded.append(bundle.sha256)
        time.sleep(0.05)
        return bundle

    monkeypatch.setattr(answering, "load_bundle", load)
    monkeypatch.setattr(answering, "Engine", engine)
    monkeypatch.setattr(answering, "location_of", lambda config, name: name)
    config = SimpleNamespace(tasks={"one of a test": None, "two of a test": None})
    with device_turn(torch.device("cuda")), ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(answering.load_engines, config) for _ in range(3)]:
            done.result(60)
    assert loaded == ["of one of a test", "of two of a test"]


def test_waiting_is_told_apart_from_what_is_done_then(monkeypatch):
    now = [100.0]

    @contextlib.contextmanager
    def waited_for():
        now[0] += 0.25
        yield

    monkeypatch.setattr("gzscale.models.device.time", SimpleNamespace(perf_counter=lambda: now[0]))
    seconds = {"wait": 1.0}
    with held(waited_for(), seconds):
        now[0] += 8
    assert seconds == {"wait": 1.25}


def test_partitions_side_by_side_come_to_the_same_bytes(ran, monkeypatch):
    storage = open_storage(ran.config.output)
    keys = [entry.key for entry in storage.list("predictions")]
    before = {key: storage.get(key) for key in keys}
    for item in ran.plan.partitions:
        Ledger(storage).revoke("predict", item.partition)
    for key in keys:
        storage.put(key, b"")
    origin = origins(ran.config)
    monkeypatch.setattr(answering, "choose_device", lambda: torch.device("cuda"))
    with worker_of({"PREDICT": 1}) as client:
        futures = [
            client.submit(
                run_stage,
                predict,
                *(ran.config, origin, item.partition, item.digest, Summary(item.partition)),
                resources={"PREDICT": 1},
                pure=False,
            )
            for item in ran.plan.partitions
        ]
        summaries = client.gather(futures)
    assert {key: storage.get(key) for key in keys} == before
    for summary in summaries:
        assert summary.skipped == ()
        # Where nothing was cut, nothing is run.
        assert (summary.seconds.get("infer", 0) > 0) == (summary.counts["morphology"].done > 0)
        assert "wait" not in summary.seconds
