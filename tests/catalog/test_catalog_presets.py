"""Every configuration that ships loads, and maps what its geometries need."""

from pathlib import Path

import pytest

from gzscale.catalog.read import open_catalog
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


def test_galaxy_zoo_2_takes_the_main_sample(tmp_path):
    # The published table's own names for what is used of it.
    table = tmp_path / "gz2sample.csv"
    names = "OBJID,RA,DEC,PETROR90_R,PETROMAG_R,PETROMAG_MR,REDSHIFT"
    main = "587722981741363294,190.1,-1.1,7.2,16.1,-20.5,0.04"
    faint, small = main.replace("294,", "295,").replace(",16.1,", ",17.4,"), main.replace(",7.2,", ",2.9,")
    table.write_text("\n".join([names, main, faint, small.replace("294,", "296,")]) + "\n")
    (path,) = (path for path in PRESETS if path.stem == "sdss-gz2")
    config = load_config(str(path), [f"catalog.path={table}"], environment={})
    with open_catalog(config.catalog, needs_size=True) as reader:
        found = list(reader.batches())
    assert [row for batch in found for row in batch.column("object_id").to_pylist()] == [587722981741363294]


def test_the_folder_of_the_file_is_where_relative_paths_start():
    (path,) = (path for path in PRESETS if path.stem == "sdss-fields")
    assert load_config(str(path), environment={}).catalog.path == str(path.parent / "galaxies.parquet")
