"""Every configuration that ships loads, and maps what its geometries need."""

from pathlib import Path

import pytest

from gzscale.config import load_config
from gzscale.night.origins import survey_of

PRESETS = sorted((Path(__file__).parents[2] / "catalogs").glob("*.yaml"))


def test_there_are_presets():
    assert {"rubin-dp1", "sdss-fields", "sdss-gz2", "simulated"} <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_it_loads_and_says_where_it_comes_from(path):
    config = load_config(str(path), environment={})
    assert config.survey.kind == ("rubin" if path.stem.startswith("rubin") else "sdss")
    # The survey takes its settings, and opens nothing.
    assert survey_of(config).bands == config.survey.bands
    assert "size" in config.catalog.columns
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Where it comes from:", "Licence:", "Cite:"):
        assert any(word in line for line in comments)


def test_the_folder_of_the_file_is_where_relative_paths_start():
    (path,) = (path for path in PRESETS if path.stem == "sdss-fields")
    assert load_config(str(path), environment={}).catalog.path == str(path.parent / "galaxies.parquet")
