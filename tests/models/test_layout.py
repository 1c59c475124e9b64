"""What is sent of an observation: only what is looked at, and for several bundles once."""

import numpy as np
import pytest
import torch

from gzscale.models.layout import Layout, join
from gzscale.models.observation import Observation


@pytest.fixture
def seen():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(6, 4, 10, 10)).astype(np.float16)
    noise = rng.uniform(0.01, 0.05, (6, 4))
    return Observation.of(images, "griz", rng.uniform(0.2, 1, 6), noise, rng.uniform(0, 1, 6))


def filled(layout, seen, rows, room=4):
    arrays = layout.empty(room, seen.images.dtype)
    layout.fill(arrays, seen, rows)
    return arrays


@pytest.mark.parametrize(
    "rows", [slice(1, 4), np.array([5, 0, 5]), np.array([2, 3, 4]), np.array([-1, 0, 1])]
)
def test_the_bands_in_their_order_and_the_centre_alone(seen, rows):
    images, scale, noise, extinction = filled(Layout("iug", 10, 4, True), seen, rows)
    expected = seen.take(rows)
    assert np.array_equal(images[:3, 0], expected.images[:, 2, 3:7, 3:7])
    assert np.array_equal(images[:3, 2], expected.images[:, 0, 3:7, 3:7])
    assert np.isnan(images[:, 1]).all()
    assert np.isnan(noise[:, 1]).all()
    assert np.array_equal(noise[:3, [0, 2]], expected.noise[:, [2, 0]])
    assert np.array_equal(scale[:3], expected.scale)
    assert np.array_equal(extinction[:3], expected.extinction)
    # The last row fills what is left.
    assert np.array_equal(images[3, 0], images[2, 0])
    assert scale[3] == scale[2]


@pytest.mark.parametrize("rows", [[5, 6], [6], [6, 7, 8], [2, 9], [-7, -6]])
def test_a_row_that_is_not_there_is_refused(seen, rows):
    with pytest.raises(IndexError, match="out of bounds"):
        filled(Layout("g", 10, 4, True), seen, np.array(rows))


def test_rows_one_after_the_other_are_copied_once(seen):
    asked = []

    class Images(np.ndarray):
        def __getitem__(self, key):
            asked.append(key[0])
            return super().__getitem__(key)

    watched = Observation(seen.images.view(Images), seen.bands, seen.scale, seen.noise, seen.extinction)
    filled(Layout("g", 10, 4, False), watched, np.array([2, 3, 4]))
    assert asked == [slice(2, 5)]


def test_one_sending_holds_what_each_bundle_would_be_sent(seen):
    each = [Layout("gri", 10, 8, False), Layout("zr", 10, 4, True), Layout("rug", 10, 6, True)]
    both = join(each)
    assert both == Layout("grizu", 10, 8, True)
    sent = tuple(torch.from_numpy(array) for array in filled(both, seen, slice(4)))
    for layout in each:
        alone = filled(layout, seen, slice(4))
        picked = both.pick(sent, layout)
        assert len(picked) == len(alone)
        for tensor, array in zip(picked, alone, strict=True):
            assert tensor.is_contiguous()
            np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_bundle_alone_gets_what_was_sent_without_a_copy(seen):
    layout = Layout("gri", 10, 8, True)
    sent = tuple(torch.from_numpy(array) for array in filled(layout, seen, slice(4)))
    assert all(one is other for one, other in zip(layout.pick(sent, layout), sent, strict=True))


def test_bytes_of_another_machine_are_understood(seen):
    other = Observation.of(seen.images.astype(">f4"), "griz", seen.scale)
    images, scale = filled(Layout("g", 10, 10, False), other, slice(4))
    assert images.dtype.isnative
    np.testing.assert_array_equal(images[:, 0], seen.images[:4, 0].astype(np.float32))
    assert np.array_equal(scale, seen.scale[:4])
