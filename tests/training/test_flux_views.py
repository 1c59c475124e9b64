import numpy as np
import pytest
import torch

from gzscale.models.inputs import FluxInputs, to_channels
from gzscale.models.observation import Observation
from gzscale.training.flux_views import FluxViews, draw_views, plain_views

INPUTS = FluxInputs("ugr", "gr", (0.5, 0.5, 0.5), (4.0, 3.0, 2.0))
STILL = FluxViews(shift=0, noisy=0, dropped=0, covered=0, corrected=1)
CPU = torch.device("cpu")


@pytest.fixture
def observation():
    images = np.random.default_rng(0).normal(0.3, 0.1, (40, 3, 20, 20)).astype(np.float16)
    noise = np.full((40, 3), 0.1, np.float32)
    return Observation(images, "ugr", np.full(40, 0.4), noise, np.full(40, 0.1, np.float32))


def draw(observation, settings, seed=0, rows=40):
    generator = torch.Generator().manual_seed(seed)
    return draw_views(observation, np.arange(rows), INPUTS, settings, generator, CPU).numpy()


def test_plain_views_are_the_central_square(observation):
    found = plain_views(observation, np.array([3, 5]), INPUTS, 12, CPU)
    taken = observation.take(np.array([3, 5]))
    arrays = (taken.images[:, :, 4:16, 4:16].copy(), taken.scale, taken.noise, taken.extinction)
    assert torch.equal(found, to_channels(*(torch.from_numpy(array) for array in arrays), INPUTS))


def test_views_are_one_of_the_8_orientations(observation):
    plain = plain_views(observation, np.arange(40), INPUTS, 20, CPU).numpy()
    found = draw(observation, STILL)
    used = set()
    for view, image in zip(found, plain, strict=True):
        turned = [np.rot90(mirrored, k, (1, 2)) for mirrored in (image, image[..., ::-1]) for k in range(4)]
        same = [np.array_equal(view, other) for other in turned]
        assert sum(same) == 1
        used.add(same.index(True))
    assert used == set(range(8))


def test_shifts_stay_within_bounds_and_are_drawn_anew(observation):
    settings = FluxViews(shift=2, noisy=0, dropped=0, covered=0, corrected=1)
    first, again, other = (
        draw(observation, settings),
        draw(observation, settings),
        draw(observation, settings, 1),
    )
    assert first.shape == (40, 6, 16, 16)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # Every pixel of a view is one of the stamp's.
    whole = plain_views(observation, np.arange(1), INPUTS, 20, CPU).numpy()
    assert np.isin(first[0, 0], whole[0, 0]).all()


def test_added_noise_is_known(observation):
    flat = np.zeros((2000, 3, 4, 4), np.float16) + np.float16(1e-3)
    quiet = Observation(
        flat, "ugr", np.full(2000, 1.0), np.full((2000, 3), 0.05, np.float32), np.zeros(2000, np.float32)
    )
    settings = FluxViews(shift=0, noise=3.0, noisy=1, dropped=0, covered=0, corrected=1)
    found = draw(quiet, settings, rows=2000)
    sigma = 0.5 * (1 / found[:, 3, 0, 0] - 1)
    assert sigma.min() >= 0.05 - 1e-6
    assert sigma.max() <= 0.05 * np.sqrt(10) + 1e-5
    added = np.sqrt(sigma**2 - 0.05**2)
    scatter = 0.5 * np.sinh(found[:, 0]).std(axis=(1, 2), ddof=1)
    assert np.sqrt((scatter**2).mean()) == pytest.approx(np.sqrt((added**2).mean()), rel=0.05)


def test_what_may_be_missing_is_left_out_and_nothing_else(observation):
    settings = FluxViews(shift=0, noisy=0, dropped=0.25, bluest=2.0, covered=0.3, corrected=0.5)
    found = np.concatenate([draw(observation, settings, seed) for seed in range(20)])
    known = found[:, 3:] > 0
    missing = ~known.any(axis=(2, 3))
    assert missing[:, 1:].sum() == 0
    assert 0.4 < missing[:, 0].mean() < 0.6
    partly = known[:, 2].mean(axis=(1, 2)) < 1
    assert 0.2 < partly.mean() < 0.4
    assert known[:, 2].mean(axis=(1, 2)).min() > 0.5
    # Uncorrected stamps are fainter by the extinction.
    level = np.sort(np.sinh(found[:, 2]).mean(axis=(1, 2))[~partly])
    assert level[-1] / level[0] > 1.15
