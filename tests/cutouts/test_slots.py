"""Places for stamps that wait for further images: never shared at one time, and no more than needed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gzscale.cutouts.slots import assign_slots

OBJECT = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(OBJECT, max_size=60))
def test_no_two_objects_that_wait_at_one_time_share_a_slot(objects):
    layers, one, other = np.array(objects, dtype=np.int64).reshape(-1, 3).T
    first, last = np.minimum(one, other), np.maximum(one, other)
    slot, count = assign_slots(layers, first, last)
    assert np.array_equal(slot >= 0, layers > 0)
    for image in range(10):
        held = [
            place
            for row in np.flatnonzero((layers > 0) & (first <= image) & (image <= last))
            for place in range(slot[row], slot[row] + layers[row])
        ]
        assert len(set(held)) == len(held)
        assert all(0 <= place < count for place in held)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60))
def test_as_many_slots_as_objects_wait_at_most(spans):
    one, other = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    first, last = np.minimum(one, other), np.maximum(one, other)
    _, count = assign_slots(np.ones(len(spans), np.int64), first, last)
    assert count == max(int(((first <= image) & (image <= last)).sum()) for image in range(10))
