"""The pixels that are found against a plain recursion over counts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gzscale.catalog.pixels import INDEX_ORDER, Partition, find_partitions

#: Few distinct leading bits, so that pixels fill, split and cluster.
INDICES = st.lists(
    st.builds(
        lambda base, fine, low: ((base << 58) | (fine << 44) | low) % (12 << 58),
        st.integers(0, 11),
        st.sampled_from([0, 1, 2, 3, 4, 255, 8191, 16383]),
        st.integers(0, 40),
    ),
    max_size=60,
)


def counted(indices, most, max_order):
    """Part from order 0 by counting every pixel, as HATS does."""
    leaves = []

    def part(order, pixel, inside):
        if len(inside) <= most or order == max_order:
            leaves.append((Partition(order, pixel), len(inside)))
            return
        for child in range(4 * pixel, 4 * pixel + 4):
            held = [i for i in inside if i >> 2 * (INDEX_ORDER - order - 1) == child]
            if held:
                part(order + 1, child, held)

    for pixel in range(12):
        held = [i for i in indices if i >> 2 * INDEX_ORDER == pixel]
        if held:
            part(0, pixel, held)
    return leaves


def cut(indices, places):
    ordered = np.sort(np.asarray(indices, dtype=np.int64))
    return np.split(ordered, sorted(place % (len(ordered) + 1) for place in places))


@settings(max_examples=150, deadline=None)
@given(INDICES, st.integers(1, 12), st.sampled_from([3, 7, 18]), st.lists(st.integers(0, 100), max_size=5))
def test_they_are_those_of_counting_however_the_indices_arrive(indices, most, max_order, places):
    found = list(find_partitions(cut(indices, places), most, max_order))
    assert found == counted(sorted(indices), most, max_order)


@settings(max_examples=60, deadline=None)
@given(INDICES, INDICES, st.integers(1, 8))
def test_objects_elsewhere_change_nothing_here(indices, others, most):
    before = list(find_partitions([np.sort(np.array(indices, dtype=np.int64))], most))
    for partition, count in before:
        shift = 2 * (INDEX_ORDER - partition.order)
        elsewhere = [i for i in others if i >> shift != partition.pixel]
        joined = np.sort(np.array(indices + elsewhere, dtype=np.int64))
        assert (partition, count) in list(find_partitions([joined], most))


def test_more_objects_than_allowed_stay_together_in_the_smallest_pixel():
    same = np.full(50, 123456789012345678)
    assert list(find_partitions([same[:20], same[20:]], 7)) == [(Partition(18, 123456789012345678 >> 22), 50)]


def test_the_path_is_that_of_hats():
    assert Partition(7, 23456).path == "Norder=7/Dir=20000/Npix=23456"
    assert Partition(1, 3) < Partition(2, 0)
