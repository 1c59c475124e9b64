"""The GPU's benchmark runs without one, says what it needs, and writes figures and a picture."""

import json
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import bench_gpu
import pytest
import roofline
import torch


def test_a_name_that_is_no_bundles_is_told_before_anything_is_measured(capsys):
    with pytest.raises(SystemExit):
        bench_gpu.main(["--bundles", "none"])
    assert "no bundle has a part of 'none' in its name: " in capsys.readouterr().err


def test_without_bundles_to_be_shown_together_the_others_are_told_of():
    result = {"device": "cpu", "torch": "2", "processor": "", "bundles": {}}
    assert "together" not in bench_gpu.table(result)


def test_a_gpu_is_as_busy_as_its_batches_take_of_the_time_that_counts(monkeypatch):
    clock = [10.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]

        def synchronize(self):
            pass

        def elapsed_time(self, other):
            return 1e3 * (other.at - self.at)

    def rows(seconds):
        clock[0] += seconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: clock[0])
    engine = SimpleNamespace(device=torch.device("cuda"), rows=rows)
    with roofline.Computing([engine]) as computing:
        engine.rows(2.0)
        clock[0] += 1.0
        engine.rows(3.0)
        # Of 10 to 12 and 13 to 16.
        assert computing.share(11.0, 15.0) == 0.75
    engine = SimpleNamespace(device=torch.device("cpu"), rows=rows)
    with roofline.Computing([engine]) as computing:
        assert computing.share(0.0, 1.0) == "not measured: no GPU"


@pytest.mark.slow
def test_it_runs_on_the_cores(tmp_path, capsys):
    target = tmp_path / "out" / "gpu.json"
    arguments = ["--bundles", "lenses-sdss,redshifts-sdss", "--partitions", "1", "--objects", "32"]
    bench_gpu.main([*arguments, "--seconds", "0", "--json", str(target)])
    told = capsys.readouterr().out
    assert told.splitlines()[0].endswith(bench_gpu.INSTALL)
    assert "lenses-sdss + redshifts-sdss at 96 px: together" in told
    result = json.loads(target.read_text())
    assert set(result["bundles"]) == {"lenses-sdss", "redshifts-sdss"}
    for about in result["bundles"].values():
        assert all(rate > 0 for rate in bench_gpu.rates(about).values())
        assert about["busy"] == "not measured: no GPU"
        assert about["side"] == 96
        assert about["looks_at"] <= 96
        assert not about["captured"]
    assert result["three"]["together"] > 0
    assert ET.parse(target.with_suffix(".svg")).getroot().tag.endswith("svg")
