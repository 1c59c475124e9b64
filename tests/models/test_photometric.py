import numpy as np
import pytest
import torch

from gzscale.models.inputs import FluxInputs, to_channels
from gzscale.models.network import build_network

PARAMETERS = {
    "bands": 3,
    "reference": 1,
    "side": 48,
    "width": 16,
    "body": {"widths": [8, 8], "blocks": [1, 1]},
    "heads": {"pdf": {"kind": "pdf", "bins": 9}},
}
INPUTS = FluxInputs("gri", "gr", (0.1, 0.1, 0.1), (3.0, 2.0, 1.5))


def galaxies(count=6, side=48, gain=(1.0, 2.0, 3.0)):
    rng = np.random.default_rng(0)
    axis = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    images = []
    for _ in range(count):
        angle, ratio, size = rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.uniform(2, 4)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        images.append(np.exp(-np.hypot(along, across / ratio) / size))
    return (np.stack(images)[:, None] * np.array(gain)[:, None, None]).astype(np.float32)


def shown(images):
    count = len(images)
    return to_channels(
        torch.from_numpy(images), torch.ones(count), torch.full((count, 3), 0.05), torch.zeros(count), INPUTS
    )


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("photometric", PARAMETERS).eval()


def test_it_measures_the_same_in_all_8_views_and_in_training(network):
    views = shown(galaxies())
    measured = network.measure(views)
    for turned in (views.rot90(1, (2, 3)), views.flip(-1), views.transpose(2, 3)):
        torch.testing.assert_close(network.measure(turned), measured, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.train().measure(views), measured, atol=1e-4, rtol=1e-4)


def test_colours_are_those_of_the_galaxy_whatever_its_shape(network):
    rings = 12
    measured = network.measure(shown(galaxies(gain=(20.0, 40.0, 60.0)))).numpy()
    for first, ratio in ((0, 0.5), (rings, 2 / 3)):
        within = measured[:, first : first + rings]
        np.testing.assert_allclose(within, np.log(ratio), atol=0.02)
    np.testing.assert_allclose(
        measured[:, 2 * rings : 2 * rings + 2], [np.log(0.5), np.log(2 / 3)] * np.ones((6, 1)), atol=0.02
    )


def test_ellipticity_is_that_of_the_shape(network):
    axis = np.arange(48) - 23.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    round_, flat = np.exp(-(x**2 + y**2) / 18), np.exp(-(x**2 / 18 + y**2 / 4))
    images = np.repeat(np.stack([round_, flat])[:, None], 3, axis=1).astype(np.float32)
    measured = network.measure(shown(20 * images))
    ellipticity = measured[:, -12:-6]
    assert ellipticity[0].abs().max() < 0.01
    assert ellipticity[1].min() > 0.2


def test_nothing_measured_gives_finite_numbers(network):
    images = np.stack([np.full((3, 48, 48), np.nan), np.zeros((3, 48, 48)), -galaxies(1)[0]]).astype(
        np.float32
    )
    with torch.inference_mode():
        found = network(shown(images))["pdf"]
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))


def test_folding_changes_nothing_and_the_threads_not_a_bit(network):
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    network.learn_scale(network.measure(shown(galaxies(50))))
    views = shown(galaxies(32))
    before = torch.get_num_threads()
    with torch.inference_mode():
        plain = network(views)["pdf"]
        network.fuse()
        torch.testing.assert_close(network(views)["pdf"], plain, atol=1e-5, rtol=1e-4)
        try:
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(network.measured_features(network.measure(views)))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_body_may_keep_the_symmetries_of_the_square():
    torch.manual_seed(0)
    about = {"kind": "equivariant", "widths": [2, 3], "blocks": [1, 1]}
    network = build_network("photometric", {**PARAMETERS, "body": about}).eval()
    views = shown(galaxies())
    with torch.inference_mode():
        torch.testing.assert_close(
            network(views.rot90(1, (2, 3)))["pdf"], network(views)["pdf"], atol=1e-5, rtol=1e-4
        )
