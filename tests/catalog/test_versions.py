"""Versions and removal flags of every type that tables hold them in."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.catalog.versions import to_removals, to_versions
from gzscale.errors import CatalogError

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
MICROSECONDS = 1772366400000000


@pytest.mark.parametrize(
    "values",
    [
        pa.array([NOON], pa.timestamp("ns", "UTC")),
        pa.array([NOON], pa.timestamp("s", "America/Santiago")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ms")),
        pa.array(["2026-03-01T12:00:00Z"]),
        pa.array(["2026-03-01 12:00"]).dictionary_encode(),
    ],
)
def test_times_become_microseconds(values):
    assert to_versions(values, "v").to_pylist() == [MICROSECONDS]
    assert round(NOON.timestamp() * 1e6) == MICROSECONDS


def test_a_date_is_its_midnight():
    days = (dt.date(2026, 3, 1) - dt.date(1970, 1, 1)).days
    for values in (pa.array([dt.date(2026, 3, 1)]), pa.array(["2026-03-01"])):
        assert to_versions(values, "v").to_pylist() == [days * 86_400_000_000]


@given(st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1)))
def test_integers_stay_in_any_clothes(numbers):
    assert to_versions(pa.array(numbers, pa.int64()), "v").to_pylist() == numbers
    texts = [None if number is None else str(number) for number in numbers]
    assert to_versions(pa.array(texts, pa.string()), "v").to_pylist() == numbers


def test_what_is_neither_is_missing():
    texts = pa.array(["17", "2026-13-45", "v2", "", None, "2026-03-01T12:00:00Z"])
    assert to_versions(texts, "v").to_pylist() == [17, None, None, None, None, MICROSECONDS]
    assert to_versions(pa.array([3.0, np.nan]), "v").to_pylist() == [3, None]


@pytest.mark.parametrize(
    "values", [pa.array([60000.5]), pa.array([True]), pa.array([2**63], pa.uint64()), pa.array([[1]])]
)
def test_other_numbers_are_refused(values):
    with pytest.raises(CatalogError, match=r"'v' \(as version\)"):
        to_versions(values, "v")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.int8()),
        pa.array([1.0, 0.0, None]),
        pa.array(["True", "0", None]),
    ],
)
def test_removals(values):
    assert to_removals(values, "gone").to_pylist() == [True, False, False]


@pytest.mark.parametrize("values", [pa.array([1, 2]), pa.array(["yes"]), pa.array([0.5])])
def test_a_removal_that_is_not_said_outright_is_refused(values):
    with pytest.raises(CatalogError, match=r"'gone' \(as removed\) holds"):
        to_removals(values, "gone")
