"""How long workers may be at a partition, however often it goes from one to the next."""

from types import SimpleNamespace

import pytest

from gzscale.night.airborne import Airborne


@pytest.fixture
def flown():
    futures = [SimpleNamespace(key=f"{stage}-night-5/3-0") for stage in ("predict", "cut")]
    return Airborne(item=None, futures=futures, host="")


def at_cut(worker, seconds):
    return {"cut-night-5/3-0": (worker, seconds), "cut-night-5/9-1": ("tcp://other:1", 9e9)}


def test_one_worker_may_take_as_long_as_the_limit(flown):
    assert flown.overdue(at_cut("tcp://a:1", 60.0), 60.0) is None
    assert flown.overdue({}, 60.0) is None
    assert flown.overdue(at_cut("tcp://a:1", 61.4), 60.0) == ("tcp://a:1", "61 s at cut, 60 s allowed")


def test_what_workers_spent_that_have_left_counts(flown):
    for number in range(3):
        for seconds in (5.0, 58.0):
            assert flown.overdue(at_cut(f"tcp://a:{number}", seconds), 60.0) is None
    found = flown.overdue(at_cut("tcp://a:3", 7.0), 60.0)
    assert found == ("tcp://a:3", "181 s at cut on 4 workers, 3 x 60 s allowed")


def test_a_good_one_that_was_cut_short_ends(flown):
    """By the end of a job before it was done, and by the death of the worker that held what it made."""
    for worker, seconds in (("tcp://a:1", 34.0), ("tcp://b:1", 50.0), ("tcp://c:1", 50.0)):
        assert flown.overdue(at_cut(worker, seconds), 60.0) is None


def test_each_stage_has_its_own_time(flown):
    flown.spent = {("cut", "tcp://a:1"): 59.0, ("cut", "tcp://b:1"): 59.0, ("cut", "tcp://c:1"): 59.0}
    at_predict = {"predict-night-5/3-0": ("tcp://b:1", 59.0)}
    assert flown.overdue(at_predict, 60.0) is None
    at_predict = {"predict-night-5/3-0": ("tcp://b:1", 61.0)}
    assert flown.overdue(at_predict, 60.0) == ("tcp://b:1", "61 s at predict, 60 s allowed")
