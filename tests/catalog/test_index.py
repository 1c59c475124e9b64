import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gzscale.catalog import index
from gzscale.catalog.index import IdIndex
from gzscale.catalog.pixels import Partition


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=300, unique=True),
    max_rows=st.integers(1, 400),
    group_rows=st.integers(1, 400),
)
def test_every_identifier_is_found_in_order(tmp_path_factory, ids, max_rows, group_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_RUN_ROWS", 64)
        patch.setattr(index, "_SAMPLE", 4)
        entries = IdIndex(tmp_path_factory.mktemp("ids"))
        array = np.array(ids, dtype=np.int64)
        for start in range(0, len(ids), 50):
            pixel = Partition(7, 123456 + start)
            entries.add(array[start : start + 50], np.arange(start, min(start + 50, len(ids))), pixel)
        parts = [list(groups) for groups in entries.parts(max_rows, group_rows)]
    assert all(parts)
    table = pa.concat_tables([group for groups in parts for group in groups])
    order = np.argsort(array)
    assert table["object_id"].to_pylist() == array[order].tolist()
    assert table["_healpix_29"].to_pylist() == order.tolist()
    assert table["Npix"].to_pylist() == (123456 + order // 50 * 50).tolist()
    assert set(table["Norder"].to_pylist()) == {7}
    assert set(table["Dir"].to_pylist()) == {120000}
    # A splitter is at most _SAMPLE entries a run off its quantile.
    assert max(sum(group.num_rows for group in groups) for groups in parts) <= max_rows + 4 * (
        len(ids) // 50 + 2
    )
    for groups in parts:
        assert {group.num_rows for group in groups[:-1]} <= {group_rows}
        assert 0 < groups[-1].num_rows <= group_rows


def test_nothing_gives_nothing(tmp_path):
    assert list(IdIndex(tmp_path).parts(10, 10)) == []
