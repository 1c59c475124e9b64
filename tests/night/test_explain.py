"""One object's story: what was done, and what was not."""

import hashlib
import json

import pytest

from gzscale.errors import MissingError
from gzscale.night.explain import explain


def test_a_done_object(ran):
    story = explain(ran.config.output, 1000)
    assert story["release"] == ran.record.release
    assert story["row"]["size"] == 4.0
    assert story["quarantine"] == []
    band = story["cutouts"]["galaxy"]["bands"]["r"]
    assert band["images"][0]["sha256"] == hashlib.sha256(b"a-r").hexdigest()
    assert story["cutouts"]["galaxy"]["scale"] == pytest.approx(0.4)
    told = story["predictions"]["morphology"]
    assert told["answered"]
    assert len(told["bundle"]) == 64
    assert len(told["columns"]) >= 37
    assert set(story["code"]) == {"cut", "predict"}
    json.dumps(story)


@pytest.mark.parametrize(
    ("object_id", "stage", "reason"),
    [(1, "cut", "OFF_FOOTPRINT"), (1003, "cut", "MISSING_SIZE"), (2, "catalog", "BAD_COORDINATES")],
)
def test_a_quarantined_object(ran, object_id, stage, reason):
    story = explain(ran.config.output, object_id)
    assert [(row["stage"], row["reason"]) for row in story["quarantine"]] == [(stage, reason)]
    if stage == "catalog":
        assert "predictions" not in story
        return
    told = story["predictions"]["morphology"]
    assert not told["answered"]
    assert told["bundle"] == explain(ran.config.output, 1000)["predictions"]["morphology"]["bundle"]
    assert "columns" not in told


def test_an_object_that_nobody_asked_for(ran):
    with pytest.raises(MissingError, match="not in the catalog"):
        explain(ran.config.output, 777)
