"""Every configuration that ships loads, and maps what its geometries need."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gzscale.catalog.read import open_catalog
from gzscale.config import load_config
from gzscale.night.origins import survey_of
from gzscale.storage import LocalStorage

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


def object_table(rows, columns=300):
    """An Object table with DP1's names of what the preset maps, and many columns that it does not."""
    rng = np.random.default_rng(1)
    given = {
        "objectId": 2176546000000000000 + np.arange(rows),
        "coord_ra": rng.uniform(52.9, 53.3, rows),
        "coord_dec": rng.uniform(-28.3, -27.9, rows),
        "r_kronRad": rng.uniform(3, 20, rows).astype("f4"),
        "ebv": rng.uniform(0, 0.1, rows).astype("f4"),
        "refExtendedness": (np.arange(rows) % 2).astype("f4"),
        "r_kronFlux_flag": np.arange(rows) % 3 == 0,
        "r_cModelFlux": np.where(np.arange(rows) % 5 == 0, 2000.0, 3000.0),
    }
    others = {
        f"{band}_ap{k:02d}Flux": rng.normal(size=rows) for k in range(columns // 6) for band in "ugrizy"
    }
    return pa.table(given | others)


def test_rubin_dp1_reads_the_few_columns_that_it_maps(tmp_path, monkeypatch):
    table = object_table(30_000)
    pq.write_table(table, tmp_path / "object.parquet", row_group_size=10_000)
    read, get_range = [], LocalStorage.get_range

    def counted(self, key, start, stop):
        read.append(stop - start)
        return get_range(self, key, start, stop)

    monkeypatch.setattr(LocalStorage, "get_range", counted)
    (path,) = (path for path in PRESETS if path.stem == "rubin-dp1")
    config = load_config(str(path), [f"catalog.path={tmp_path / 'object.parquet'}"], environment={})
    with open_catalog(config.catalog, needs_size=True) as reader:
        found = pa.Table.from_batches(list(reader.batches()))
    kept = [k for k in range(30_000) if k % 2 == 1 and k % 3 and k % 5]
    assert found["object_id"].to_pylist() == table["objectId"].take(kept).to_pylist()
    assert found["ra"].to_pylist() == table["coord_ra"].take(kept).to_pylist()
    size = np.float32(0.39) * table["r_kronRad"].to_numpy()[kept]
    assert found["size"].to_numpy() == pytest.approx(size, rel=1e-6)
    # Eight of 308 columns; footers and the read-ahead come on top.
    assert 0 < sum(read) < (tmp_path / "object.parquet").stat().st_size / 5


def test_the_folder_of_the_file_is_where_relative_paths_start():
    (path,) = (path for path in PRESETS if path.stem == "sdss-fields")
    assert load_config(str(path), environment={}).catalog.path == str(path.parent / "galaxies.parquet")
