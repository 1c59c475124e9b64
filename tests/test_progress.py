"""How far long work is, in a log."""

import io
from types import SimpleNamespace

from gzscale import progress
from gzscale.progress import Meter


def lines(stream):
    return stream.getvalue().splitlines()


def test_the_end_is_told_and_what_comes_before_only_now_and_then(monkeypatch):
    clock = iter([0.0, 1.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    stream = io.StringIO()
    meter = Meter("simulate", "images", stream=stream)
    for done in (1, 2, 3, 4):
        meter.show(done, 4)
    assert lines(stream) == ["simulate: 2 of 4 images", "simulate: 4 of 4 images"]


def test_without_a_total_what_is_done_is_told(monkeypatch):
    clock = iter([0.0, 11.0, 12.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    stream = io.StringIO()
    with Meter("verify", "files", stream=stream) as meter:
        meter.add(3)
        meter.add(2)
    assert meter.done == 5
    assert lines(stream) == ["verify: 3 files"]
