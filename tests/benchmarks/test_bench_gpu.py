"""The GPU's benchmark runs without one, says what it needs, and writes figures and a picture."""

import json
import xml.etree.ElementTree as ET

import bench_gpu
import pytest


def test_a_name_that_is_no_bundles_is_told_before_anything_is_measured(capsys):
    with pytest.raises(SystemExit):
        bench_gpu.main(["--bundles", "none"])
    assert "no bundle has a part of 'none' in its name: " in capsys.readouterr().err


def test_without_bundles_to_be_shown_together_the_others_are_told_of():
    result = {"device": "cpu", "torch": "2", "processor": "", "bundles": {}}
    assert "together" not in bench_gpu.table(result)


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
        assert about["busy"] is None
        assert not about["captured"]
    assert result["three"]["together"] > 0
    assert ET.parse(target.with_suffix(".svg")).getroot().tag.endswith("svg")
