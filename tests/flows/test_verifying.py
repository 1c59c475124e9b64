"""The verify flow: it looks where the nights write, and says so where there is nothing."""

import pytest
import yaml

from flows import verify as module
from flows.verify import verify
from gzscale.errors import ConfigError, DamageError, MissingError
from gzscale.night.verify import Finding


@pytest.fixture
def looked(monkeypatch):
    """Where was looked, and what is there: files and findings by output."""
    there = {}

    def look(output, progress):
        files, findings = there.get(output, (0, []))
        progress(files)
        return findings

    monkeypatch.setattr(module.night_verify, "verify", look)
    monkeypatch.setattr(module, "create_table_artifact", lambda **given: None)
    monkeypatch.delenv("GZSCALE_OUTPUT", raising=False)
    return there


@pytest.fixture
def config(tmp_path):
    tree = {
        "survey": {"kind": "sdss", "root": "memory", "bands": "gri"},
        "catalog": {"path": "catalog.parquet", "columns": {"object_id": "id", "ra": "ra", "dec": "dec"}},
        "geometries": {"sky": {"size": 64, "scale": 0.396}},
        "tasks": {"lenses": {"geometry": "sky"}},
        "output": "./night",
    }
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_it_looks_where_a_night_of_the_configuration_writes(looked, config, monkeypatch):
    looked[str(config.parent / "night")] = (7, [])
    assert verify.fn(config=str(config)) == {"files": 7, "findings": 0, "removed": 0}
    monkeypatch.setenv("GZSCALE_OUTPUT", "s3://survey/night")
    looked["s3://survey/night"] = (9, [])
    assert verify.fn(config=str(config))["files"] == 9
    looked["elsewhere"] = (3, [])
    assert verify.fn("elsewhere", config=str(config))["files"] == 3


def test_nothing_to_verify_is_no_success(looked):
    with pytest.raises(MissingError, match="elsewhere: nothing was committed here"):
        verify.fn("elsewhere")
    with pytest.raises(ConfigError, match="give the output to verify"):
        verify.fn()


def test_damage_ends_the_run(looked):
    looked["night"] = (3, [Finding("night/a.parquet", "hash differs")])
    with pytest.raises(DamageError, match=r"3 files read, 1 finding\(s\), 0 removed; night/a.parquet"):
        verify.fn("night")
