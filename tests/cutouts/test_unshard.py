"""A shard that is decoded here: what zarr-python wrote, and never damage taken for data."""

import hashlib
import json

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

import gzscale.cutouts.unshard as unshard
from gzscale.cutouts.shard import COMPRESSORS

SHAPE = (3, 6, 6)


def written(count, chunk, compressors=COMPRESSORS, **layout):
    """Return what zarr-python writes: the metadata, the file, and the pixels in it."""
    stamps = np.random.default_rng(count).normal(0, 3, (count, *SHAPE)).astype(np.float16)
    stamps[count // 2] = np.nan
    store = MemoryStore()
    chosen = {"chunks": (chunk, *SHAPE), "shards": (-(-count // chunk) * chunk, *SHAPE)} | layout
    array = zarr.create_array(
        store,
        shape=stamps.shape,
        dtype=stamps.dtype,
        filters=None,
        compressors=compressors,
        fill_value=np.nan,
        config={"write_empty_chunks": True},
        **chosen,
    )
    array[...] = stamps
    files = store._store_dict
    return json.loads(files["zarr.json"].to_bytes()), files["c/0/0/0/0"].to_bytes(), stamps


class File:
    """Bytes that note which of them are read."""

    def __init__(self, content):
        self.content, self.spans = content, []

    def __call__(self, start, stop):
        self.spans.append((start, stop))
        return self.content[start:stop]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3000), st.data())
def test_what_zarr_wrote_comes_back(count, chunk, piece, data):
    metadata, content, stamps = written(count, chunk)
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unshard, "PIECE", piece)
        file = File(content)
        shard = unshard.open_shard(metadata, file, len(content))
        pixels, digest = shard.read(file, len(content))
        np.testing.assert_array_equal(pixels, stamps)
        assert digest == hashlib.sha256(content).hexdigest()
        _index, *pieces = file.spans
        assert b"".join(content[start:stop] for start, stop in pieces) == content, "once, in order"
        longest = int(np.diff(shard.begin).max())
        assert all(stop - start <= max(piece, longest) for start, stop in pieces[:-1])
        np.testing.assert_array_equal(shard.take(file, rows), stamps[rows])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_is_never_pixels(place, bit):
    metadata, content, _ = written(9, 4)
    damaged = bytearray(content)
    damaged[place % len(content)] ^= 1 << bit
    file = File(bytes(damaged))
    with pytest.raises((ValueError, RuntimeError), match=r"damaged|decompression"):
        unshard.open_shard(metadata, file, len(content)).read(file, len(content))


@pytest.mark.parametrize("length", [0, 3, 100])
def test_a_file_that_was_cut_short_has_no_index(length):
    metadata, content, _ = written(9, 4)
    with pytest.raises(ValueError, match="index"):
        unshard.open_shard(metadata, File(content[:length]), length)


def test_a_chunk_of_other_pixels_is_refused():
    """Its CRC is right, but it belongs to an array with smaller cutouts."""
    metadata, _, _ = written(8, 4)
    _, small, _ = written(8, 2)
    place = np.frombuffer(small[-68:-4], "<u8").reshape(4, 2)
    chunks = [small[start : start + length] for start, length in place.tolist()][:2]
    index = np.array([[0, len(chunks[0])], [len(chunks[0]), len(chunks[1])]], "<u8").tobytes()
    tail = index + int(unshard.google_crc32c.value(index)).to_bytes(4, "little")
    file = File(b"".join(chunks) + tail)
    shard = unshard.open_shard(metadata, file, len(file.content))
    with pytest.raises(ValueError, match="432 bytes of pixels, 864 were expected"):
        shard.read(file, len(file.content))


@pytest.mark.parametrize(
    ("compressors", "layout"),
    [
        ((ZstdCodec(),), {}),
        ((BloscCodec(),), {}),
        (COMPRESSORS, {"chunks": (4, 1, 6, 6)}),
        (COMPRESSORS, {"shards": (16, *SHAPE)}),
        (COMPRESSORS, {"chunks": (8, *SHAPE), "shards": None}),
        ((Crc32cCodec(),), {}),
    ],
)
def test_other_layouts_are_left_to_zarr(compressors, layout):
    metadata, content, _ = written(8, 4, compressors, **layout)
    assert unshard.open_shard(metadata, File(content), len(content)) is None
