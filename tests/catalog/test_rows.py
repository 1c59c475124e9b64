"""Bad rows: each is told apart by its reason, and the reason names the numbers."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.catalog.rows import duplicate_rows, split_rows
from gzscale.catalog.schema import QUARANTINE_SCHEMA


def batch(object_id, ra, dec):
    count = len(object_id)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(100, 100 + count)),
            pa.array(object_id, pa.int64()),
            pa.array(ra, pa.float64()),
            pa.array(dec, pa.float64()),
        ],
        names=["row", "object_id", "ra", "dec"],
    )


@pytest.mark.parametrize(
    ("ra", "dec", "words"),
    [
        (None, 0.0, "ra is missing"),
        (float("nan"), 0.0, "ra is missing"),
        (float("inf"), 0.0, "ra is missing"),
        (10.0, None, "dec is missing"),
        (10.0, float("nan"), "dec is missing"),
        (-12.5, 0.0, "ra = -12.5 is negative"),
        (360.0, 0.0, "ra = 360 is outside"),
        (-999.0, 0.0, "ra = -999 is outside"),
        (10.0, 90.001, "dec = 90.001 is outside"),
        (10.0, -91.0, "dec = -91 is outside"),
    ],
)
def test_impossible_coordinates(ra, dec, words):
    good, bad = split_rows(batch([1, 2], [5.0, ra], [5.0, dec]), "table.csv")
    assert good.column("object_id").to_pylist() == [1]
    assert bad.schema == QUARANTINE_SCHEMA
    (row,) = bad.to_pylist()
    assert (row["object_id"], row["stage"], row["task"], row["reason"]) == (
        2,
        "catalog",
        "",
        "BAD_COORDINATES",
    )
    assert words in row["detail"]
    assert "table.csv" in row["detail"]


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 0.0), (359.9999, 0.0), (0.0001, 0.0), (10.0, 90.0), (10.0, -90.0), (-0.0, 1.0)]
)
def test_positions_at_the_limits_are_good(ra, dec):
    good, bad = split_rows(batch([1], [ra], [dec]), "t")
    assert (good.num_rows, bad.num_rows) == (1, 0)


def test_a_missing_identifier_is_found_by_its_row():
    _, bad = split_rows(batch([1, None], [5.0, float("nan")], [5.0, 5.0]), "t.fits")
    (row,) = bad.to_pylist()
    assert row["object_id"] is None
    assert row["reason"] == "BAD_ID"
    assert "row 101 of t.fits" in row["detail"]


def test_a_duplicate_names_the_row_that_is_kept():
    bad = duplicate_rows(batch([7], [1.0], [2.0]), np.array([3]), "t")
    assert bad.to_pylist()[0]["detail"] == "row 100 of t has the identifier of row 3, which is kept"


@given(st.lists(st.tuples(st.none() | st.integers(0, 5), st.floats(), st.floats()), max_size=20))
def test_every_row_is_in_one_of_the_two(rows):
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    good, bad = split_rows(batch(*map(list, columns)), "t")
    assert good.num_rows + bad.num_rows == len(rows)
    ok = [r for r in rows if r[0] is not None and 0 <= r[1] < 360 and -90 <= r[2] <= 90]
    assert good.column("object_id").to_pylist() == [r[0] for r in ok]
