from itertools import pairwise

import numpy as np
import pytest
from hats.pixel_math.partition_stats import generate_alignment
from hypothesis import given, settings
from hypothesis import strategies as st
from mocpy import MOC

from gzscale.catalog.align import align, complement, end_index, first_index
from gzscale.catalog.pixels import Partition
from gzscale.errors import CatalogError

ORDER = 3


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    filled=st.floats(0.001, 1),
    threshold=st.sampled_from([20, 100, 1000, 10**6]),
)
def test_alignment_is_that_of_hats(seed, filled, threshold):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 20, 12 << 2 * ORDER) * (rng.random(12 << 2 * ORDER) < filled)
    theirs = generate_alignment(counts, ORDER, 0, threshold, drop_empty_siblings=True)
    expected = {tuple(map(int, pixel)) for pixel in theirs if pixel is not None}
    ours = align([(Partition(ORDER, i), int(n)) for i, n in enumerate(counts)], threshold)
    assert {(each.pixel.order, each.pixel.pixel, each.rows) for each in ours} == expected
    assert [part.pixel for each in ours for part in each.parts] == np.flatnonzero(counts).tolist()
    assert sum(each.rows for each in ours) == counts.sum()


def test_partitions_of_many_orders_merge_and_a_large_one_stays_whole():
    quarter = [(Partition(6, 4 * 4 * 100 + i), 10) for i in range(4)]
    pixels = align([*quarter, (Partition(5, 401), 10), (Partition(4, 200), 500)], 50)
    assert [(each.pixel, each.rows) for each in pixels] == [
        (Partition(4, 100), 50),
        (Partition(4, 200), 500),
    ]


def test_a_hundred_million_rows_make_hundreds_of_files():
    order = 6
    pixels = align([(Partition(order, i), 2035) for i in range(12 << 2 * order)], 1_000_000)
    assert sum(each.rows for each in pixels) == 2035 * 49152
    assert len(pixels) == 192


def test_overlapping_partitions_are_refused():
    with pytest.raises(CatalogError, match="Norder=3/Dir=0/Npix=5 and Norder=4/Dir=0/Npix=20 overlap"):
        align([(Partition(3, 5), 1), (Partition(4, 20), 1)], 100)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, (12 << 2 * ORDER) - 1), max_size=40, unique=True))
def test_the_complement_is_that_of_a_moc(numbers):
    pixels = [Partition(ORDER, number) for number in sorted(numbers)]
    rest = complement(pixels)
    orders = np.full(len(numbers), ORDER, dtype=np.uint8)
    moc = MOC.from_healpix_cells(np.array(numbers, dtype=np.uint64), orders, ORDER).complement()
    cells = moc.serialize("json")
    assert {(each.order, each.pixel) for each in rest} == {(int(k), n) for k, v in cells.items() for n in v}
    tiles = sorted([*pixels, *rest], key=first_index)
    assert first_index(tiles[0]) == 0
    assert end_index(tiles[-1]) == 12 * 4**29
    assert all(end_index(a) == first_index(b) for a, b in pairwise(tiles))
