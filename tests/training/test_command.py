"""The learning curve of a training that is killed and started again."""

from __future__ import annotations

import csv
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from gzscale.training.command import Curve
from gzscale.training.loop import Epoch


@pytest.fixture
def curve(tmp_path):
    return Curve(tmp_path / "below" / "own.curve.csv").begun()


def epochs_of(curve, stage):
    with curve.path.open(newline="") as file:
        return [
            (int(row["epoch"]), float(row["loss"])) for row in csv.DictReader(file) if row["stage"] == stage
        ]


def line(epoch, loss):
    return Epoch(epoch, 0.03, loss, math.nan, 1.0)


def test_epochs_that_are_learnt_again_stand_once(curve):
    for epoch in range(4):
        curve.add("sketches", line(epoch, 3.0))
    curve.add("member 1 of 5", line(0, 2.0))
    # Its last checkpoint was that of the second epoch.
    again = Curve(curve.path).begun()
    for epoch in (2, 3, 4):
        again.add("sketches", line(epoch, 1.0))
    assert epochs_of(curve, "sketches") == [(1, 3.0), (2, 3.0), (3, 1.0), (4, 1.0), (5, 1.0)]
    assert epochs_of(curve, "member 1 of 5") == [(1, 2.0)]
    # Another fit of the same stage, from its beginning.
    again.add("sketches", line(0, 0.5))
    assert epochs_of(curve, "sketches") == [(1, 0.5)]
    assert epochs_of(curve, "member 1 of 5") == [(1, 2.0)]


@pytest.mark.parametrize("torn", ["sketches", "sketches,", "sketches,3,0.0"])
def test_a_line_that_was_torn_is_left_out(curve, torn):
    curve.add("sketches", line(0, 3.0))
    with curve.path.open("a") as file:
        file.write(torn)
    curve.add("sketches", line(1, 2.0))
    assert epochs_of(curve, "sketches") == [(1, 3.0), (2, 2.0)]


def test_a_curve_that_was_taken_away_ends_no_training(curve):
    curve.path.unlink()
    curve.add("sketches", line(4, 2.0))
    assert curve.path.read_text().startswith("sketches,5,")


def test_several_write_at_a_time(curve):
    def learn(stage):
        for epoch in range(30):
            curve.add(stage, line(epoch, 1.0))

    stages = [f"member {number}" for number in range(6)]
    with ThreadPoolExecutor(len(stages)) as pool:
        list(pool.map(learn, stages))
    for stage in stages:
        assert epochs_of(curve, stage) == [(epoch, 1.0) for epoch in range(1, 31)]
