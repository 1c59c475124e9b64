"""Where a GPU's memory is full: what is let go of and tried again, without a change of a night's bits."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import torch
from small_bundles import flux_bundle

from gzscale.errors import WorkerError
from gzscale.models import engine as engine_module
from gzscale.models import replay as replay_module
from gzscale.models import room
from gzscale.models.batches import Known, Sizes
from gzscale.models.engine import Engine, run_together
from gzscale.models.replay import Replay

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(engine_module, "_KNOWN", Known())
    monkeypatch.setattr(replay_module, "_failed", threading.Event())
    monkeypatch.setattr(room, "_retried", itertools.count(1))


def engine_of(bundle, *same):
    """Return an engine that has found some sizes to say the same."""
    engine = Engine(bundle, "cpu")
    engine.sizes = Sizes(same)
    return engine


def full_once(engine, monkeypatch, error):
    """Let an engine's first batch find the memory full."""
    outputs, errors, seen = engine.network.outputs, [error], []

    def once(prepared):
        seen.append(len(prepared))
        if errors:
            raise errors.pop()
        return outputs(prepared)

    monkeypatch.setattr(engine.network, "outputs", once)
    return seen


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), torch.AcceleratorError("CUDA error: out of memory")]
)
def test_a_size_is_tried_again_before_it_is_given_up(bundle, measured, monkeypatch, error):
    expected = engine_of(bundle, 16).run(measured)["vote_fractions"]
    runner = engine_of(bundle, 2, 4)
    seen = full_once(runner, monkeypatch, error)
    found = runner.run(measured)["vote_fractions"]
    assert runner.sizes == Sizes((2, 4))
    assert seen[:2] == [4, 4]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("same", "after"), [((1, 2), (1,)), ((2,), (2,))])
def test_what_takes_a_second_try_again_and_again_is_told_and_made_smaller(
    bundle, measured, monkeypatch, caplog, same, after
):
    runner = engine_of(bundle, *same)
    for _ in range(room.RETRIES):
        assert runner.sizes == Sizes(same)
        full_once(runner, monkeypatch, torch.OutOfMemoryError("full of others"))
        assert len(runner.run(measured)["vote_fractions"]) == 21
    assert runner.sizes == Sizes(after)
    assert caplog.text.count("GPU memory was full (full of others)") == room.RETRIES
    assert caplog.text.count("smaller from here on") == (same != after)


def test_what_does_not_fit_is_done_in_sizes_that_say_the_same_and_stays_so(bundle, measured, with_room_for):
    shipped = dataclasses.replace(bundle, sha256="abc")
    expected = engine_of(shipped, 16).run(measured)["vote_fractions"]
    runner = engine_of(shipped, 1, 4, 16)
    with_room_for(2, runner)
    found = runner.run(measured)["vote_fractions"]
    # Never in twos, which were not compared.
    assert runner.sizes == Sizes((1,))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert Engine(shipped, "cpu").sizes == Sizes((1,))


def test_without_a_size_that_says_the_same_the_worker_is_let_go(bundle, measured, with_room_for):
    runner = engine_of(bundle, 16)
    with_room_for(8, runner)
    with pytest.raises(WorkerError, match=r"does not hold a batch that gives this night's bits.*nvidia-smi"):
        runner.run(measured)
    assert runner.sizes == Sizes((16,))


def test_a_size_that_another_thread_gave_up_meanwhile_is_no_reason_to_give_up_the_next(
    bundle, measured, monkeypatch
):
    runner = engine_of(bundle, 2, 4)
    outputs = runner.network.outputs

    def full(prepared):
        if len(prepared) > 2:
            runner.sizes = Sizes((2,))
            raise torch.OutOfMemoryError("full")
        return outputs(prepared)

    monkeypatch.setattr(runner.network, "outputs", full)
    monkeypatch.setattr(runner, "shrink", None)
    assert len(runner.run(measured)["vote_fractions"]) == 21
    assert runner.sizes == Sizes((2,))


def test_pictures_find_room_as_cutouts_do(bundle, with_room_for):
    pictures = np.random.default_rng(4).integers(0, 255, (21, 32, 32, 3), dtype=np.uint8)
    (expected,) = engine_of(bundle, 16).run_pictures([pictures])
    runner = engine_of(bundle, 4, 16)
    with_room_for(4, runner)
    (found,) = runner.run_pictures([pictures])
    assert runner.batch == 4
    np.testing.assert_allclose(found["vote_fractions"], expected["vote_fractions"], atol=1e-6)


def test_one_that_has_no_memory_left_does_not_shrink_the_other_below_it(bundle, measured, with_room_for):
    large, small = engine_of(bundle, 2, 4), engine_of(flux_bundle(), 1, 2)
    with_room_for(2, large)
    run_together([large, small], measured)
    assert (large.batch, small.batch) == (2, 2)


def test_want_of_memory_takes_what_other_engines_captured(bundle, measured, with_room_for):
    other, runner = engine_of(flux_bundle(), 2, 4), engine_of(bundle, 2, 4)
    for engine in (other, runner):
        engine._replay = Replay(lambda function, example: function)
    other.run(measured)
    with_room_for(2, runner)
    assert other._replay.is_captured
    runner.run(measured)
    assert runner.batch == 2
    assert not other._replay.is_captured


def test_after_a_failed_capture_nothing_is_given_back_and_the_process_is_renewed(
    bundle, measured, monkeypatch
):
    runner = engine_of(bundle, 8, 16)
    full_once(runner, monkeypatch, torch.OutOfMemoryError("full"))
    replay_module._failed.set()
    with pytest.raises(WorkerError, match=r"capture of a CUDA graph failed.*start the process anew"):
        runner.run(measured)


def unsettled(bundle):
    engine = Engine(bundle, "cpu")
    engine._is_settled, engine._least = False, 16
    return engine


def test_a_search_that_failed_is_made_again(bundle, monkeypatch):
    runner, broken = unsettled(bundle), [torch.AcceleratorError("CUDA error: an illegal memory access")]

    def measure(size):
        if broken:
            raise broken.pop()
        return float(min(size, 64)), b"same"

    monkeypatch.setattr(runner, "_measure", measure)
    with pytest.raises(torch.AcceleratorError):
        runner.settle()
    runner.settle()
    assert runner.sizes == Sizes((16, 32, 64))


def test_a_search_begins_with_all_memory_there_is(bundle, monkeypatch):
    runner, tried = unsettled(bundle), []

    def measure(size):
        tried.append(size)
        if len(tried) == 1 or size > 64:
            raise torch.OutOfMemoryError("full")
        return float(size), b"same"

    monkeypatch.setattr(runner, "_measure", measure)
    runner.settle()
    # What all are compared with is tried twice, and a larger one that does not fit is no loss.
    assert tried == [16, 16, 32, 64, 128]
    assert runner.sizes == Sizes((16, 32, 64))
