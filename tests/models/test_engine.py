import dataclasses

import numpy as np
import pytest
import torch
from small_bundles import flux_bundle

from gzscale.errors import BundleError
from gzscale.models import engine as engine_module
from gzscale.models.engine import Engine
from gzscale.models.inputs import (
    from_flux,
    from_pictures,
    to_channels,
)
from gzscale.models.observation import Observation
from gzscale.models.votes import QUESTIONS, asked


@pytest.fixture
def in_float32(monkeypatch):
    """As on a device that has no bfloat16, so that rounding is not what a comparison sees."""
    monkeypatch.setattr(engine_module, "has_native_bfloat16", lambda device: False)


@pytest.mark.usefixtures("in_float32")
def test_equals_a_plain_loop_over_the_views(bundle, cutouts):
    images, scale = cutouts
    found = Engine(bundle, "cpu", batch=8).run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    inputs = from_flux(torch.from_numpy(images), torch.from_numpy(scale), "ugriz")
    network = bundle.build()
    with torch.inference_mode():
        views = [torch.rot90(image, turn, (2, 3)) for image in (inputs, inputs.flip(-1)) for turn in range(4)]
        expected = torch.stack([network(view)["vote_fractions"] for view in views]).mean(dim=0)
    assert found.shape == (21, 37)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_output_is_consistent_down_the_tree(bundle, cutouts):
    joint = Engine(bundle, "cpu").run(Observation.of(cutouts[0], "ugriz", cutouts[1]))["vote_fractions"]
    sums = np.stack([joint[:, question.answers].sum(axis=1) for question in QUESTIONS], axis=1)
    np.testing.assert_allclose(sums, asked(joint), atol=1e-6)


def test_turning_and_mirroring_change_nothing(bundle, cutouts):
    images, scale = cutouts
    runner = Engine(bundle, "cpu")
    straight = runner.run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    mirrored = np.rot90(images, axes=(2, 3))[..., ::-1]
    turned = runner.run(Observation.of(mirrored, "ugriz", scale))["vote_fractions"]
    np.testing.assert_allclose(turned, straight, atol=1e-6)


def test_same_bytes_whatever_the_threads_the_batch_and_the_neighbours(bundle, cutouts):
    images, scale = cutouts
    single = dataclasses.replace(bundle, symmetries=1)
    expected = Engine(single, "cpu").run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    for threads, batch in ((3, 0), (2, 5)):
        torch.set_num_threads(threads)  # the fixture puts it back
        runner = Engine(single, "cpu", batch=batch)
        found = runner.run(Observation.of(images, "ugriz", scale))["vote_fractions"]
        assert found.tobytes() == expected.tobytes()
    alone = Engine(single, "cpu").run(Observation.of(images[7:9], "ugriz", scale[7:9]))["vote_fractions"]
    assert alone.tobytes() == expected[7:9].tobytes()


def test_bfloat16_moves_no_fraction_by_more_than_its_rounding(bundle, cutouts, monkeypatch):
    images, scale = cutouts
    found = {}
    for native in (False, True):
        monkeypatch.setattr(engine_module, "has_native_bfloat16", lambda device, native=native: native)
        found[native] = Engine(bundle, "cpu").run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    assert not np.array_equal(found[True], found[False])
    np.testing.assert_allclose(found[True], found[False], atol=0.02)


def test_bands_in_any_order(bundle, cutouts):
    images, scale = cutouts
    runner = Engine(bundle, "cpu")
    straight = runner.run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    reverse = runner.run(Observation.of(images[:, ::-1], "zirgu", scale))["vote_fractions"]
    assert np.array_equal(straight, reverse)


def test_some_of_the_objects(bundle, cutouts):
    images, scale = cutouts
    runner, seen = Engine(bundle, "cpu", batch=4), Observation.of(images, "ugriz", scale)
    chosen = np.array([20, 3, 3, 7, 11])
    expected = runner.run(seen.take(chosen))["vote_fractions"]
    assert np.array_equal(runner.run(seen, chosen)["vote_fractions"], expected)
    assert runner.run(seen, chosen[:0])["vote_fractions"].shape == (0, 37)


def test_no_images(bundle):
    nothing = Observation.of(np.empty((0, 3, 32, 32), np.float16), "gri", np.empty(0))
    found = Engine(bundle, "cpu").run(nothing)
    assert found["vote_fractions"].shape == (0, 37)


@pytest.mark.parametrize(
    ("shape", "bands", "scale"),
    [
        ((2, 2, 32, 32), "gr", [1.0, 1.0]),
        ((2, 3, 31, 32), "gri", [1.0, 1.0]),
        ((2, 3, 32, 32), "gri", [1.0]),
        ((2, 3, 32, 32), "gri", [1.0, 0.0]),
        ((2, 3, 32, 32), "gri", [1.0, np.nan]),
    ],
)
def test_wrong_food_is_refused(bundle, shape, bands, scale):
    with pytest.raises(BundleError):
        Engine(bundle, "cpu").run(Observation.of(np.zeros(shape, np.float16), bands, np.array(scale)))


@pytest.mark.usefixtures("in_float32")
def test_pictures_a_block_at_a_time(bundle, rng):
    blocks = [rng.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8) for n in (3, 11, 1)]
    found = list(Engine(bundle, "cpu", batch=4).run_pictures(iter(blocks)))
    assert [len(outputs["vote_fractions"]) for outputs in found] == [3, 11, 1]
    network = bundle.build()
    with torch.inference_mode():
        inputs = from_pictures(torch.from_numpy(blocks[2]), 32)
        views = [torch.rot90(image, turn, (2, 3)) for image in (inputs, inputs.flip(-1)) for turn in range(4)]
        expected = torch.stack([network(view)["vote_fractions"] for view in views]).mean(dim=0)
    np.testing.assert_allclose(found[2]["vote_fractions"], expected.numpy(), atol=2e-6)


@pytest.mark.usefixtures("in_float32")
def test_one_view_where_the_bundle_says_so(bundle, cutouts):
    single = dataclasses.replace(bundle, symmetries=1)
    images, scale = cutouts
    found = Engine(single, "cpu").run(Observation.of(images, "ugriz", scale))["vote_fractions"]
    inputs = from_flux(torch.from_numpy(images), torch.from_numpy(scale), "ugriz")
    with torch.inference_mode():
        expected = bundle.build()(inputs)["vote_fractions"]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


@pytest.mark.usefixtures("in_float32")
def test_flux_equals_a_plain_loop_over_the_views(measured):
    bundle = flux_bundle()
    found = Engine(bundle, "cpu", batch=8).run(measured)["pdf"]
    arrays = (measured.images[:, 1:4], measured.scale, measured.noise[:, 1:4], measured.extinction)
    inputs = to_channels(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays), bundle.inputs)
    network = bundle.build()
    with torch.inference_mode():
        views = [torch.rot90(image, turn, (2, 3)) for image in (inputs, inputs.flip(-1)) for turn in range(4)]
        expected = torch.stack([network(view)["pdf"] for view in views]).mean(dim=0)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.01


def test_a_band_that_may_be_missing_is_as_one_without_a_measurement(measured):
    engine = Engine(flux_bundle(), "cpu")
    blind = measured.images.copy()
    blind[:, 3] = np.nan
    without = Observation(
        measured.images[:, :3], "ugr", measured.scale, measured.noise[:, :3], measured.extinction
    )
    hidden = Observation(blind, "ugriz", measured.scale, measured.noise, measured.extinction)
    assert np.array_equal(engine.run(without)["pdf"], engine.run(hidden)["pdf"])
    assert not np.array_equal(engine.run(measured)["pdf"], engine.run(hidden)["pdf"])


def test_a_band_that_may_not_be_missing_and_wrong_shapes_are_refused(measured):
    engine = Engine(flux_bundle(), "cpu")
    lacking = Observation.of(measured.images[:, :2], "ug", measured.scale)
    noisy = dataclasses.replace(measured, noise=measured.noise[:, :4])
    dusty = dataclasses.replace(measured, extinction=measured.extinction[:4])
    for observation, words in ((lacking, "'r'"), (noisy, "noise"), (dusty, "extinction")):
        with pytest.raises(BundleError, match=words):
            engine.run(observation)


def test_flux_is_not_told_by_pictures(rng):
    pictures = rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(BundleError, match="FITS"):
        next(Engine(flux_bundle(), "cpu").run_pictures([pictures]))
