"""Batches as graphs: captured once for each shape, and run as they are where that fails."""

import logging

import pytest
import torch

from gzscale.models.replay import Replay


def double(inputs):
    return {"twice": 2 * inputs}


def recording(captured):
    def capture(function, example):
        captured.append(tuple(example.shape))
        return function

    return capture


def test_captured_once_for_each_shape():
    captured = []
    replay = Replay(double, recording(captured))
    for rows in (4, 2, 4, 2, 4):
        assert torch.equal(replay(torch.ones(rows))["twice"], torch.full((rows,), 2.0))
    assert captured == [(4,), (2,)]
    replay.clear()
    replay(torch.ones(4))
    assert captured == [(4,), (2,), (4,)]


def test_run_as_it_is_where_it_cannot_be_captured(caplog):
    tried = []

    def capture(function, example):
        tried.append(example.shape)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    replay = Replay(double, capture)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(replay(torch.ones(2))["twice"], torch.full((2,), 2.0))
    assert len(tried) == 1
    assert len(caplog.records) == 1
    assert "not permitted" in caplog.text


def test_want_of_memory_is_told():
    def capture(function, example):
        raise torch.OutOfMemoryError("none left")

    with pytest.raises(torch.OutOfMemoryError):
        Replay(double, capture)(torch.ones(2))
