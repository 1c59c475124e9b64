import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gzscale import debiased as module
from gzscale.cli import main
from gzscale.debiased import debias_table
from gzscale.errors import CatalogError, ConfigError
from gzscale.models.votes import ANSWERS, QUESTIONS
from gzscale.tasks.debias import debias
from gzscale.tasks.gz2_class import gz2_class

DEBIASED = [f"{answer}_debiased" for answer in ANSWERS]


@pytest.fixture(scope="module")
def sample():
    """Features that are seen the less the further the galaxies are; ten without a redshift."""
    rng = np.random.default_rng(4)
    redshift = rng.uniform(0.01, 0.2, 600)
    redshift[:10] = np.nan
    fractions = np.empty((600, 37))
    for question in QUESTIONS:
        fractions[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), 600)
    seen = rng.beta(2, 2, 600) * (1 - 4 * np.nan_to_num(redshift))
    fractions[:, 0], fractions[:, 1], fractions[:, 2] = 0.97 - 0.97 * seen, 0.97 * seen, 0.03
    table = pd.DataFrame({"name": [f"g{i}" for i in range(600)], "z": redshift, "gz2_class": "?"})
    columns = {f"{answer}_fraction": fractions[:, index] for index, answer in enumerate(ANSWERS)}
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def fractions_of(table):
    return table[[f"{answer}_fraction" for answer in ANSWERS]].to_numpy()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_in_and_a_table_out(sample, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(module, "_ROWS", 128)
    pq.write_table(pa.Table.from_pandas(sample), tmp_path / "in.parquet")
    assert debias_table(tmp_path / "in.parquet", "z", tmp_path / f"out.{ending}") == (600, 590)
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    found = read(tmp_path / f"out.{ending}")
    expected = debias(fractions_of(sample).astype(np.float32), sample["z"].to_numpy())
    np.testing.assert_allclose(found[DEBIASED].to_numpy(), expected, atol=1e-6)
    assert found["name"].tolist() == sample["name"].tolist()
    assert found["gz2_class"].tolist() == gz2_class(expected).tolist()
    assert found["t01_smooth_or_features_a01_smooth_clean"].tolist() == (expected[:, 0] >= 0.8).tolist()
    np.testing.assert_allclose(expected[:10], fractions_of(sample)[:10], atol=1e-6)
    far = sample["z"].to_numpy() > 0.15
    assert expected[far, 1].mean() > fractions_of(sample)[far, 1].mean() + 0.1


def test_new_columns_say_what_they_are(sample, tmp_path):
    sample.to_csv(tmp_path / "in.csv", index=False)
    debias_table(tmp_path / "in.csv", "z", tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    types = {name: str(schema.field(name).type) for name in ("name", "z", "t03_bar_a06_bar_fraction")}
    assert types == {"name": "string", "z": "double", "t03_bar_a06_bar_fraction": "float"}
    found = pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_allclose(fractions_of(found), fractions_of(sample), rtol=1e-6)
    np.testing.assert_array_equal(found["z"], sample["z"])
    assert b"corrected for what distance hides" in schema.field(DEBIASED[0]).metadata[b"description"]
    assert schema.names.count("gz2_class") == 1


def test_the_command_says_what_it_did_and_what_it_cannot(sample, tmp_path):
    sample.to_csv(tmp_path / "in.csv", index=False)
    words = ["debias", str(tmp_path / "in.csv"), "--redshift", "z", "-o", str(tmp_path / "out.csv")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "590 with a redshift were compared, 10 kept as seen" in done.output
    told = CliRunner().invoke(main, ["debias", "--help"]).output
    assert "limited in" in told
    assert "not a galaxy" in told


@pytest.mark.parametrize(
    ("change", "redshift", "output", "error", "words"),
    [
        (lambda table: table, "photo_z", "out.csv", CatalogError, "the first is 'photo_z'"),
        (
            lambda table: table.drop(columns=f"{ANSWERS[4]}_fraction"),
            "z",
            "out.csv",
            CatalogError,
            "1 columns",
        ),
        (lambda table: table.iloc[:60], "z", "out.csv", CatalogError, "50 galaxies have a redshift"),
        (
            lambda table: table.assign(**{f"{ANSWERS[1]}_fraction": 1.5}),
            "z",
            "o.csv",
            CatalogError,
            "600 of 600",
        ),
        (lambda table: table, "z", "out.fits", ConfigError, "must end in"),
        (lambda table: table, "z", "in.csv", ConfigError, "name another output"),
    ],
)
def test_a_table_that_cannot_be_used(sample, tmp_path, change, redshift, output, error, words):
    change(sample).to_csv(tmp_path / "in.csv", index=False)
    before = (tmp_path / "in.csv").read_bytes()
    with pytest.raises(error, match=words):
        debias_table(tmp_path / "in.csv", redshift, tmp_path / output)
    assert (tmp_path / "in.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
