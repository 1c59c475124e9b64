"""Fingerprints: equal for equal values, and for nothing else."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.night.fingerprint import canonical_json, code_digest, fingerprint, table_digest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_the_order_of_names_does_not_count(inputs):
    turned = dict(reversed(list(inputs.items())))
    assert fingerprint(inputs) == fingerprint(turned)


def test_what_is_not_finite_has_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


def a_table(size, ids=(1, 2, 3)):
    return pa.table(
        {
            "object_id": pa.array(ids, pa.int64()),
            "size": pa.array(size, pa.float32()),
            "name": ["a", None, "c"],
        }
    )


def test_tables_hash_by_value():
    table = a_table([1.0, None, 3.0])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert table_digest(chunked) == table_digest(table)
    assert table_digest(a_table([1.0, 0.0, 3.0])) != table_digest(table)
    assert table_digest(a_table([1.0, np.nan, 3.0])) != table_digest(table)
    assert table_digest(a_table([1.0, None, 3.0], (1, 3, 2))) != table_digest(table)
    assert table_digest(table.rename_columns(["id", "size", "name"])) != table_digest(table)


def test_code_has_one_digest_a_set_of_packages():
    assert code_digest("surveys", "cutouts") == code_digest("cutouts", "surveys")
    assert code_digest("surveys") != code_digest("cutouts")
