"""Parquet from bytes: the values, the damage, and no thread that outlives the reading."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale._parquet import decode


def encoded(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, row_group_size=7)
    return sink.getvalue()


TABLE = pa.table({"id": np.arange(20), "name": [f"J{i}" for i in range(20)], "z": np.linspace(0, 1, 20)})


@given(st.permutations(TABLE.column_names), st.integers(1, 3))
def test_the_columns_asked_for_in_their_order(names, count):
    assert decode(encoded(TABLE), names[:count]).equals(TABLE.select(names[:count]))


def test_the_whole_table():
    assert decode(encoded(TABLE)).equals(TABLE)
    assert decode(encoded(TABLE.slice(0, 0))).equals(TABLE.slice(0, 0))


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(pa.ArrowInvalid, match="no column flux, ra among 3"):
        decode(encoded(TABLE), ["ra", "id", "flux"])


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all"])
def test_what_is_no_parquet_is_refused(data):
    with pytest.raises((pa.ArrowInvalid, OSError)):
        decode(data)


def test_a_changed_page_is_found_by_its_sum():
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(sink.getvalue())
    data[data.index(TABLE["z"].to_numpy().tobytes()) + 3] ^= 1
    read = pq.ParquetFile(pa.BufferReader(bytes(data)), page_checksum_verification=False).read()
    assert not read.equals(TABLE)
    with pytest.raises(OSError, match=r"CRC|integrity"):
        decode(bytes(data))


_COUNT = """
import os, sys
import pyarrow.parquet
from pathlib import Path
from gzscale._parquet import decode
from gzscale.night.tables import read_parquet
from gzscale.storage import open_storage
path = sys.argv[1]
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
assert sum(batch.num_rows for batch in {reading}) == 20
print(count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of /proc")
@pytest.mark.parametrize(
    "reading",
    [
        "decode(Path(path).read_bytes()).to_batches()",
        "read_parquet(open_storage(os.path.dirname(path)), 'table').to_batches()",
    ],
)
def test_a_reading_starts_no_thread_that_could_abort_the_end_of_a_command(tmp_path, reading):
    path = tmp_path / "table"
    path.write_bytes(encoded(TABLE))
    code = _COUNT.format(reading=reading)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "0\n", done.stderr
