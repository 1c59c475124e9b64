"""The union of known and given rows against a plain dictionary, and both sums of its account."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gzscale.catalog import sorting
from gzscale.catalog.partition import partition_catalog
from gzscale.catalog.pixels import INDEX_ORDER, Partition
from gzscale.catalog.read import open_catalog
from gzscale.catalog.union import Known, is_outside
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError

COLUMNS = {"object_id": "id", "ra": "ra", "dec": "dec", "size": "r90", "version": "v", "removed": "gone"}
PLACES = [(10.0, 5.0), (10.001, 5.0), (200.0, -30.0), (300.0, 80.0)]


def parted(table, folder, known=None, columns=COLUMNS, max_objects=3):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "table.parquet"
    table.to_parquet(path, index=False)
    with open_catalog(CatalogConfig(path=str(path), columns=columns), False) as reader:
        return partition_catalog(reader, folder / "work", max_objects, known)


def known_of(catalog, joined=True):
    return Known(((partition, catalog.rows(partition)) for partition, _ in catalog.partitions), joined)


def rows_of(catalog):
    tables = [catalog.rows(partition) for partition, _ in catalog.partitions]
    return {row["object_id"]: row for table in tables for row in table.to_pylist()}


def frame(rows):
    """Make a table of (id, place, size, version, gone); place -1 is not on the sky."""
    return pd.DataFrame(
        {
            "id": pd.array([row[0] for row in rows], "int64"),
            "ra": [np.nan if row[1] < 0 else PLACES[row[1]][0] for row in rows],
            "dec": [0.0 if row[1] < 0 else PLACES[row[1]][1] for row in rows],
            "r90": np.array([row[2] for row in rows], "float32"),
            "v": pd.array([row[3] for row in rows], "Int64"),
            "gone": [row[4] for row in rows],
        }
    )


def best_rows(rows):
    """Return the usable row of each identifier: the newest, of equal versions the first."""
    best = {}
    for row in rows:
        if row[3] is None or (row[1] < 0 and not row[4]):
            continue
        if row[0] not in best or row[3] > best[row[0]][3]:
            best[row[0]] = row
    return best


def expected_union(before, after, joined):
    """Do in a dictionary what the sort does: return objects and counts."""
    known = {key: row for key, row in best_rows(before).items() if not row[4]}
    counts = dict.fromkeys(("new", "changed", "unchanged", "stale", "removed", "moved"), 0)
    result = dict(known) if joined else {}
    for key, row in best_rows(after).items():
        if joined and key in known and row[3] < known[key][3]:
            counts["stale"] += 1
        elif row[4]:
            counts["removed" if key in known else "unchanged"] += 1
            result.pop(key, None)
        elif key not in known:
            counts["new"] += 1
            result[key] = row
        else:
            counts["unchanged" if row[:4] == known[key][:4] else "changed"] += 1
            result[key] = row
    counts["vanished"] = 0 if joined else len(set(known) - set(best_rows(after)))
    counts["given"], counts["known"] = len(after), len(known)
    counts["quarantined"] = len(after) - len(best_rows(after))
    return result, counts


ROW = st.tuples(
    st.integers(0, 8),
    st.integers(-1, len(PLACES) - 1),
    st.sampled_from([1.0, 2.0]),
    st.none() | st.integers(-1, 3),
    st.booleans(),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, min_size=1, max_size=20), st.lists(ROW, min_size=1, max_size=20), st.booleans())
def test_it_is_what_a_dictionary_says(tmp_path_factory, before, after, joined):
    folder = tmp_path_factory.mktemp("union")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "CHUNK_ROWS", 3)
        patch.setattr(sorting, "ID_BUCKETS", 2)
        patch.setattr(sorting, "STRETCH_ROWS", 4)
        first = parted(frame(before), folder / "before")
        union = parted(frame(after), folder / "after", known_of(first, joined))
    expected, counts = expected_union(before, after, joined)
    found = rows_of(union)
    assert sorted(found) == sorted(expected)
    for key, row in expected.items():
        there = found[key]
        assert (there["ra"], there["dec"], there["size"], there["version"]) == (*PLACES[row[1]], *row[2:4])
    del counts["moved"]
    changes = union.changes.to_dict()
    assert {name: changes[name] for name in counts} == counts
    assert union.changes.closes
    assert union.planned == len(expected) + counts["quarantined"]


def test_the_union_is_parted_as_the_whole_table_is(tmp_path):
    rng = np.random.default_rng(3)
    whole = pd.DataFrame(
        {"id": np.arange(400), "ra": rng.uniform(0, 360, 400), "dec": rng.uniform(-80, 80, 400), "r90": 1.0}
    )
    columns = {name: COLUMNS[name] for name in ("object_id", "ra", "dec", "size")}
    old = whole.iloc[:300].copy()
    old.loc[:49, "r90"] = 7.0
    first = parted(old, tmp_path / "old", columns=columns, max_objects=20)
    delta = pd.concat([whole.iloc[:50], whole.iloc[300:]])
    union = parted(delta, tmp_path / "delta", known_of(first), columns, 20)
    full = parted(whole, tmp_path / "whole", columns=columns, max_objects=20)
    assert union.partitions == full.partitions
    assert rows_of(union) == rows_of(full)
    assert (union.changes.new, union.changes.changed, union.changes.kept) == (100, 50, 250)


def test_an_object_that_leaves_its_partition_has_moved(tmp_path):
    before = [(number, place, 1.0, 1, False) for number, place in enumerate([0, 0, 0, 2, 2])]
    first = parted(frame(before), tmp_path / "before")
    # One over the border of its pixel, one within it, one that is larger only.
    after = [(0, 2, 1.0, 2, False), (1, 1, 1.0, 2, False), (2, 0, 5.0, 2, False)]
    union = parted(frame(after), tmp_path / "after", known_of(first))
    assert (union.changes.changed, union.changes.moved) == (3, 1)
    assert union.changes.kept == 2


@pytest.mark.parametrize(("order", "pixel"), [(0, 0), (0, 11), (7, 12 * 4**7 - 1), (18, 12 * 4**18 - 1)])
def test_the_partition_is_read_back_from_its_number(order, pixel):
    home = -np.array([4 * 4**order + pixel] * 3)
    first = pixel << 2 * (INDEX_ORDER - order)
    width = 1 << 2 * (INDEX_ORDER - order)
    assert is_outside(np.array([first, first + width - 1, first + width]), home).tolist() == [
        False,
        False,
        True,
    ]


def test_a_quarantined_row_leaves_what_is_known(tmp_path):
    first = parted(frame([(1, 0, 1.0, 1, False)]), tmp_path / "before")
    after = frame([(1, -1, 9.0, 2, False), (1, 0, 9.0, None, False)])
    union = parted(after, tmp_path / "after", known_of(first))
    assert rows_of(union) == rows_of(first)
    assert union.quarantined == {"BAD_COORDINATES": 1, "BAD_VERSION": 1}


def test_a_removal_needs_no_position(tmp_path):
    first = parted(frame([(1, 0, 1.0, 1, False), (2, 0, 1.0, 1, False)]), tmp_path / "before")
    union = parted(frame([(1, -1, 1.0, 2, True)]), tmp_path / "after", known_of(first))
    assert sorted(rows_of(union)) == [2]
    assert (union.changes.removed, union.planned) == (1, 1)


def test_a_delta_of_other_columns_is_refused(tmp_path):
    first = parted(frame([(1, 0, 1.0, 1, False)]), tmp_path / "before")
    fewer = {name: column for name, column in COLUMNS.items() if name != "size"}
    with pytest.raises(CatalogError, match=r"map the same ones"):
        parted(frame([(2, 0, 1.0, 1, False)]), tmp_path / "after", known_of(first), fewer)
    unversioned = {name: column for name, column in COLUMNS.items() if name != "version"}
    with pytest.raises(CatalogError, match=r"add catalog\.columns\.version"):
        parted(frame([(2, 0, 1.0, 1, False)]), tmp_path / "last", known_of(first), unversioned)


def test_rows_without_a_version_are_older_than_any(tmp_path):
    plain = {name: column for name, column in COLUMNS.items() if name not in ("version", "removed")}
    first = parted(frame([(1, 0, 1.0, 1, False), (2, 0, 1.0, 1, False)]), tmp_path / "before", columns=plain)
    union = parted(frame([(1, 0, 1.0, -5, False)]), tmp_path / "after", known_of(first))
    assert {key: row["version"] for key, row in rows_of(union).items()} == {1: -5, 2: None}
    assert (union.changes.changed, union.changes.kept) == (1, 1)


def test_known_rows_alone_do_not_part_a_whole_catalog(tmp_path):
    """Held against a full catalog, they are counted and leave no trace in the result."""
    first = parted(frame([(number, 0, 1.0, 1, False) for number in range(9)]), tmp_path / "before")
    table = frame([(0, 0, 1.0, 1, False), (50, 2, 1.0, 1, False)])
    alone = parted(table, tmp_path / "alone")
    held = parted(table, tmp_path / "held", known_of(first, joined=False))
    assert held.partitions == alone.partitions
    assert all(held.rows(part).equals(alone.rows(part)) for part, _ in alone.partitions)
    assert (held.changes.vanished, held.changes.new, held.changes.kept) == (8, 1, 1)
    assert isinstance(held.partitions[0][0], Partition)
    assert pa.types.is_int64(held.rows(held.partitions[0][0]).schema.field("version").type)
