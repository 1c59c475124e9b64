"""A shard that is encoded here: the same bytes as zarr-python writes."""

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from gzscale.cutouts.shard import COMPRESSORS, shard_pieces


@pytest.mark.parametrize(("count", "chunk"), [(1, 1), (5, 5), (64, 64), (65, 64), (300, 64)])
def test_a_shard_has_the_bytes_that_zarr_writes(count, chunk):
    stamps = np.random.default_rng(count).normal(0, 3, (count, 3, 16, 16)).astype(np.float16)
    stamps[count // 2] = np.nan
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=stamps.shape,
        dtype=stamps.dtype,
        chunks=(chunk, 3, 16, 16),
        shards=(-(-count // chunk) * chunk, 3, 16, 16),
        filters=None,
        compressors=COMPRESSORS,
        fill_value=np.nan,
        config={"write_empty_chunks": True},
    )
    array[...] = stamps
    assert b"".join(shard_pieces(stamps, chunk)) == store._store_dict["c/0/0/0/0"].to_bytes()
