"""Images under crowds of stars: which they are, what they keep, and how many of them are lenses."""

from dataclasses import replace

import numpy as np
import pytest
from test_inject import red_galaxies, write_store

from gzscale.sky.stamps import read_stamps
from gzscale.training.crowded import with_crowded_images
from gzscale.training.lens_examples import Mix, make_examples

IMAGES = np.repeat(["a", "b", "c", "d"], 10)


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    store = write_store(tmp_path_factory.mktemp("crowded"), red_galaxies(40))
    return replace(read_stamps([str(store)], "gri")[0], source=IMAGES)


def test_some_images_appear_again_under_stars(stamps):
    found = with_crowded_images(stamps, 0.5, "gri", np.random.default_rng(1))
    assert len(found) == 60
    for name in ("object_id", "source", "images", "deflector"):
        np.testing.assert_array_equal(getattr(found, name)[:40], getattr(stamps, name))
    again = found.take(np.arange(40, 60))
    names = np.unique(again.source)
    assert len(names) == 2
    assert set(np.char.replace(names, "+crowd", "")) < set(IMAGES)
    row = np.searchsorted(stamps.object_id, again.object_id)
    np.testing.assert_array_equal(stamps.source[row], np.char.replace(again.source, "+crowd", ""))
    np.testing.assert_array_equal(stamps.seeing[row], again.seeing)
    np.testing.assert_array_equal(stamps.noise[row], again.noise)
    added = again.images.astype(np.float32) - stamps.images[row].astype(np.float32)
    # Stars are all over the cutout, from its centre to its rim.
    for part in (slice(None, 12), slice(-12, None), slice(26, 38)):
        assert (added[:, 1, part].sum(axis=(1, 2)) > 0).mean() > 0.9
    # Measured with the stars' light.
    assert (again.magnitude <= stamps.magnitude[row] + 0.01).all()
    assert (again.magnitude < stamps.magnitude[row] - 0.1).any()


def test_shares_are_of_each_store_s_images(stamps):
    location = np.repeat([0, 1], 20)
    two = replace(stamps, location=location)
    found = with_crowded_images(two, 0.5, "gri", np.random.default_rng(1))
    assert np.bincount(found.location).tolist() == [30, 30]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_too_small_a_share_adds_none(stamps, share):
    assert with_crowded_images(stamps, share, "gri", np.random.default_rng(1)) is stamps


def test_under_stars_as_many_are_lenses_as_elsewhere(stamps):
    mix = Mix(lenses=60, crowds=0.5)
    found = make_examples(stamps, "gri", mix, np.random.default_rng(1))
    image = found.stamps.source[found.base]
    crowded = np.char.endswith(image, "+crowd")
    assert 10 < crowded.sum() < 70
    assert found.lens[crowded].mean() == 0.5
    for name in np.unique(image):
        assert found.lens[image == name].mean() == 0.5
