import numpy as np
import pytest
import torch

from gzscale.models.network import build_network
from gzscale.models.votes import QUESTIONS, to_joint
from gzscale.training.fit import OUTPUT, Settings, augment, fit, reduce_pictures, rmse

PARAMETERS = {"widths": [8, 16], "blocks": [1, 1], "heads": {OUTPUT: "tree"}, "dropout": 0.0}
QUICK = Settings(epochs=8, batch=8, rate=1e-2, sizes=(32,))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def galaxies(count):
    """Round blobs, which all call smooth, and rings, which all call odd disks."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:106, :106] - 52.5
    radius = np.hypot(x, y)
    ring = rng.random(count) < 0.5
    shapes = np.where(ring[:, None, None], np.exp(-(((radius - 25) / 6) ** 2)), np.exp(-radius / 12))
    pictures = np.repeat((shapes[:, None] * 200).astype(np.uint8), 3, axis=1)
    conditional = np.empty((count, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = 1 / (question.stop - question.start)
    conditional[:, 0], conditional[:, 1] = np.where(ring, 0.05, 0.9), np.where(ring, 0.9, 0.05)
    conditional[:, 2] = 0.05
    return pictures, to_joint(conditional).astype(np.float32), ring


def fitted(settings, count=64):
    torch.manual_seed(0)
    pictures, joint, ring = galaxies(count)
    return fit(build_network("residual", PARAMETERS), pictures, joint, settings), pictures, joint, ring


def test_learns_what_can_be_learnt():
    network, pictures, joint, ring = fitted(QUICK)
    assert not network.training
    with torch.inference_mode():
        images = torch.from_numpy(pictures)[:, :, 5:101, 5:101] / 255
        found = network(torch.nn.functional.avg_pool2d(images, 3))[OUTPUT].numpy()
    assert np.array_equal(found[:, 1] > found[:, 0], ring)
    assert rmse(found, joint) < 0.5 * rmse(np.broadcast_to(joint.mean(axis=0), joint.shape), joint)


def test_same_seed_same_weights_and_another_seed_others():
    settings = Settings(epochs=2, batch=16, sizes=(32, 48))
    first, second = fitted(settings, 32)[0].state_dict(), fitted(settings, 32)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fitted(Settings(epochs=2, batch=16, sizes=(32, 48), seed=1), 32)[0].state_dict()
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_time_ends_the_fit():
    seen = []
    torch.manual_seed(0)
    pictures, joint, _ = galaxies(32)
    settings = Settings(epochs=10**6, minutes=0.01, batch=16, sizes=(32,))
    network = build_network("residual", PARAMETERS)
    fit(network, pictures, joint, settings, progress=lambda epoch, loss: seen.append(epoch))
    assert 1 <= len(seen) < 1000


def test_views_stay_pictures_and_differ():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.from_numpy(galaxies(8)[0]).float() / 255
    first = augment(pictures, 96, 96, generator)
    second = augment(pictures, 96, 96, generator)
    assert first.shape == (8, 3, 96, 96)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, second)
    # turned, shifted and zoomed a little, a galaxy keeps its place: the middle is bright or ringed as before
    middle = pictures[:, :, 5:101, 5:101].mean(dim=(1, 2, 3))
    assert torch.corrcoef(torch.stack([middle, first.mean(dim=(1, 2, 3))]))[0, 1] > 0.5


def test_reduced_pictures_are_block_means():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 424, 424, 3), dtype=np.uint8)
    found = reduce_pictures(pictures)
    assert found.shape == (2, 3, 106, 106)
    assert found[1, 2, 7, 9] == round(float(pictures[1, 28:32, 36:40, 2].mean()))


def test_rmse():
    assert rmse(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])) == pytest.approx(2**0.5)
