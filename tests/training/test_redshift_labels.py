import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from gzscale.errors import CatalogError
from gzscale.training.labels import Refusal
from gzscale.training.redshift_labels import read_redshifts


def test_bad_redshifts_are_refused_by_name(tmp_path):
    made = {
        "objID": [1, 2, 3, 4, 5, 6, 7, 7, 8, None],
        "z": [0.1, -9.0, 0.0, 20.0, np.nan, 0.7, 0.2, 0.3, np.inf, 0.1],
    }
    pd.DataFrame(made).astype({"objID": "Int64"}).to_csv(tmp_path / "a.csv", index=False)
    found = read_redshifts(tmp_path / "a.csv", 0.4)
    assert found.object_id.tolist() == [1, 7]
    assert found.redshift.tolist() == [0.1, 0.2]
    assert np.isnan(found.extinction).all()
    assert found.refused == {
        Refusal.BAD_REDSHIFT: 3,
        Refusal.MISSING_REDSHIFT: 2,
        Refusal.BEYOND_GRID: 1,
        Refusal.DUPLICATE_ID: 1,
        Refusal.MISSING_ID: 1,
    }


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("a.parquet", ("object_id", "redshift", "ebv")),
        ("a.fits", ("OBJID", "Z", "EBV")),
        ("a.vot", ("id", "zspec", "E_BV")),
    ],
)
def test_columns_are_found_by_name_in_every_format(tmp_path, name, columns):
    made = Table([[5, 6], [0.1, 0.2], [0.05, -1.0]], names=columns)
    made.write(tmp_path / name, **({"format": "votable"} if name.endswith("vot") else {}))
    found = read_redshifts(tmp_path / name, 0.4)
    assert found.object_id.tolist() == [5, 6]
    assert found.extinction[0] == pytest.approx(0.05)
    assert np.isnan(found.extinction[1])
    assert found.names == ("5", "6")


@pytest.mark.parametrize(
    ("text", "words"),
    [("objid,mag\n1,2\n", "no redshift"), ("name,z\n1,2\n", "no identifier"), ("objid,z\n", "0 rows"),
     ("objid,z\n1.23e18,0.1\n", "lost digits")],
)  # fmt: skip
def test_a_table_that_cannot_be_used(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(CatalogError, match=words):
        read_redshifts(tmp_path / "a.csv", 0.4)
