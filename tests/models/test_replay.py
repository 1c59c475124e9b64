"""Batches as graphs: captured once for each shape, and run as they are where that fails."""

import contextlib
import logging
import threading
from types import SimpleNamespace

import pytest
import torch

from gzscale.models import replay as replay_module
from gzscale.models.replay import Replay, capture, clear_all


@pytest.fixture(autouse=True)
def _nothing_has_failed(monkeypatch):
    monkeypatch.setattr(replay_module, "_failed", threading.Event())


def double(inputs):
    return {"twice": 2 * inputs}


def recording(captured):
    def capture(function, example):
        captured.append(tuple(example.shape))
        return function

    return capture


def test_captured_once_for_each_shape():
    captured = []
    replay = Replay(recording(captured))
    assert not replay.is_captured
    for rows in (4, 2, 4, 2, 4):
        assert torch.equal(replay(double, torch.ones(rows))["twice"], torch.full((rows,), 2.0))
    assert captured == [(4,), (2,)]
    assert replay.is_captured
    replay.clear()
    replay(double, torch.ones(4))
    assert captured == [(4,), (2,), (4,)]


def test_run_as_it_is_where_it_cannot_be_captured(caplog):
    tried = []

    def capture(function, example):
        tried.append(example.shape)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    replay = Replay(capture)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(replay(double, torch.ones(2))["twice"], torch.full((2,), 2.0))
    assert len(tried) == 1
    assert not replay.is_captured
    assert len(caplog.records) == 1
    assert "not permitted" in caplog.text


def test_after_one_that_failed_nothing_more_is_captured(caplog):
    captured = []

    def capture(function, example):
        raise RuntimeError("no graph of this")

    before = Replay(recording(captured))
    before(double, torch.ones(2))
    with caplog.at_level(logging.WARNING):
        Replay(capture)(double, torch.ones(2))
    for replay in (before, Replay(recording(captured))):
        assert torch.equal(replay(double, torch.ones(4))["twice"], torch.full((4,), 2.0))
    # What was captured before is good.
    assert captured == [(2,)]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("none left"), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), torch.AcceleratorError),
        (torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"), None),
        (RuntimeError("no graph of this"), None),
    ],
)
def test_a_device_that_fails_is_told_of_though_the_end_of_the_capture_hides_it(error, told, hidden):
    def capture(function, example):
        try:
            raise error
        finally:
            if hidden:
                raise torch.AcceleratorError("CUDA error: operation failed due to an error during capture")

    replay = Replay(capture)
    if told is None:
        assert replay(double, torch.ones(2))
        assert replay_module._failed.is_set()
        return
    with pytest.raises(told) as found:
        replay(double, torch.ones(2))
    assert str(found.value) == str(error)
    # Whether the end of the capture failed: only then is there no memory to be had any more.
    assert replay_module.has_failed() == (hidden and told is torch.OutOfMemoryError)


def test_all_of_them_are_let_go_of_at_once():
    captured = []
    both = [Replay(recording(captured)) for _ in range(2)]
    for _ in range(2):
        for replay in both:
            replay(double, torch.ones(4))
        clear_all()
    assert len(captured) == 4


def test_want_of_memory_is_told():
    def capture(function, example):
        raise torch.OutOfMemoryError("none left")

    with pytest.raises(torch.OutOfMemoryError):
        Replay(capture)(double, torch.ones(2))


@pytest.fixture
def device(monkeypatch):
    """Stand in for a device: which stream is the current one, and captures that can be made to fail."""
    names = iter(("capturing",))
    at_work = SimpleNamespace(current="compute", fails=False, replayed=0)

    class Stream:
        def __init__(self, device=None):
            self.name = next(names)

        def wait_stream(self, other):
            pass

        def synchronize(self):
            pass

    class Graph:
        def replay(self):
            at_work.replayed += 1

    @contextlib.contextmanager
    def on(stream):
        before, at_work.current = at_work.current, stream.name
        try:
            yield
        finally:
            at_work.current = before

    class Capture:
        """As torch's own: when the end of a capture raises, the stream is not put back."""

        def __init__(self, graph, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            self.stream = stream

        def __enter__(self):
            self.before, at_work.current = at_work.current, self.stream.name

        def __exit__(self, *error):
            if at_work.fails:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            at_work.current = self.before

    compute = SimpleNamespace(name="compute")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: compute)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    replay_module._stream.cache_clear()
    yield at_work
    replay_module._stream.cache_clear()


def test_a_capture_gives_what_it_was_given_to_the_graph_and_copies_what_it_says(device):
    where, seen = [], []

    def function(inputs):
        where.append(device.current)
        seen.append(inputs)
        return {"same": inputs}

    replay = capture(function, torch.zeros(3))
    assert set(where) == {"capturing"}
    said = replay(torch.ones(3))["same"]
    assert device.replayed == 1
    assert torch.equal(seen[-1], torch.ones(3))
    replay(torch.full((3,), 5.0))
    # What the graph writes next does not reach what was said before.
    assert torch.equal(said, torch.ones(3))
    assert len(where) == len(seen) < 5


def test_one_stream_of_a_device_captures(device):
    for rows in (2, 3):
        said = capture(double, torch.zeros(rows))(torch.ones(rows))
        assert said["twice"].shape == (rows,)
    assert device.current == "compute"


def test_a_capture_that_fails_leaves_the_stream_as_it_was(device):
    device.fails = True
    with pytest.raises(RuntimeError, match="during capture"):
        capture(double, torch.zeros(3))
    assert device.current == "compute"
