"""Scaling: as many as the work asks for within the limits, fewer only after a while, lost ones renewed."""

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from gzscale.clusters.keeper import PATIENCE, Keeper, count_tasks, wanted
from gzscale.clusters.workers import Limits, Workers


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(0, 50), st.integers(1, 16))
def test_the_size_is_within_the_limits_and_no_larger_than_the_work(tasks, minimum, more, each):
    limits = Limits(minimum, minimum + more, each)
    size = wanted(tasks, limits)
    assert minimum <= size <= minimum + more
    assert size == minimum or (size - 1) * each < tasks
    assert size == minimum + more or size * each >= tasks


class Recorded(Workers):
    def __init__(self):
        super().__init__("tcp://nowhere:1")
        self.limits = {"CUT": Limits(1, 8, 2)}
        self.scaled = []
        self.renewed = 0

    def scale(self, kind, number):
        self.scaled.append((kind, number))

    def renew(self):
        self.renewed += 1
        return 0


def look(keeper, client, tasks):
    client.run_on_scheduler = lambda function: {"CUT": tasks, "PREDICT": 0}
    keeper.look()


def test_it_grows_at_once_and_shrinks_after_a_while():
    workers, client = Recorded(), SimpleNamespace()
    keeper = Keeper(client, workers)
    look(keeper, client, 9)
    assert workers.scaled == [("CUT", 5)]
    for _ in range(PATIENCE - 1):
        look(keeper, client, 0)
    look(keeper, client, 9)  # dry for a moment alone
    for _ in range(PATIENCE - 1):
        look(keeper, client, 2)
    assert workers.scaled == [("CUT", 5)]
    look(keeper, client, 2)
    assert workers.scaled == [("CUT", 5), ("CUT", 1)]
    assert workers.renewed == 1 + PATIENCE + PATIENCE


def test_tasks_that_wait_for_others_do_not_count():
    def task(state, *kinds):
        return SimpleNamespace(state=state, resource_restrictions=dict.fromkeys(kinds, 1) or None)

    tasks = [
        task("processing", "CUT"),
        task("no-worker", "CUT"),
        task("waiting", "PREDICT"),
        task("memory", "CUT"),
    ]
    scheduler = SimpleNamespace(tasks=dict(enumerate([*tasks, task("processing")])), workers={})
    assert count_tasks(scheduler) == {"CUT": 2, "PREDICT": 0}


def test_what_a_gpu_s_worker_has_in_hand_at_a_time_asks_for_one_worker():
    restricted = SimpleNamespace(state="processing", resource_restrictions={"PREDICT": 1})
    workers = {"a": SimpleNamespace(resources={"CUT": 1.0}), "b": SimpleNamespace(resources={"PREDICT": 4.0})}
    for tasks, expected in ((0, 0), (1, 1), (2, 1), (3, 2), (12, 6)):
        scheduler = SimpleNamespace(tasks=dict.fromkeys(range(tasks), restricted), workers=workers)
        assert count_tasks(scheduler) == {"CUT": 0, "PREDICT": expected}


def test_a_cluster_that_does_not_close_in_order_does_not_undo_the_night(caplog):
    def close():
        raise RuntimeError("Nanny failed to start")

    Workers(SimpleNamespace(close=close)).close()
    assert "did not close in order: RuntimeError: Nanny failed" in caplog.text


def test_lost_processes_start_again_under_new_names(monkeypatch):
    spec = {0: {"cls": "a"}, 1: {"cls": "b"}}
    scaled = []
    workers = Workers(SimpleNamespace(worker_spec=spec, workers={0: object()}, scale=scaled.append))
    assert workers.renew() == 1
    assert spec == {0: {"cls": "a"}, "1~1": {"cls": "b"}}
    assert workers.renew() == 0  # It is coming up.
    monkeypatch.setattr("time.monotonic", lambda: math.inf)
    assert workers.renew() == 1  # It has not: once more.
    assert spec == {0: {"cls": "a"}, "1~2": {"cls": "b"}}
    assert scaled == [2, 2]
