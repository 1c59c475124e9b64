import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from gzscale.training.augment import Augmentation, change_light, turn
from gzscale.training.sketch import blur

NOTHING = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


def some_pictures(count=4, side=96):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    wedge = np.exp(-np.hypot(x, y) / 12) * (1 + 0.6 * np.cos(np.arctan2(y, x)))
    return torch.from_numpy(np.repeat(wedge[None, None] / 2, count, 0).repeat(3, 1)).float()


def moments(views):
    """Angle and extent of the light."""
    y, x = np.mgrid[: views.shape[2], : views.shape[3]] - (views.shape[2] - 1) / 2
    light = views[:, 0].numpy()
    total = light.sum(axis=(1, 2))
    return (light * x).sum(axis=(1, 2)) / total, (light * y).sum(axis=(1, 2)) / total, total


def test_a_view_is_the_galaxy_turned():
    views = turn(some_pictures(64), 64, 64, NOTHING, torch.Generator().manual_seed(0))
    assert views.shape == (64, 3, 64, 64)
    x, y, total = moments(views)
    straight_x, straight_y, whole = moments(some_pictures(1)[:, :, 16:80, 16:80])
    np.testing.assert_allclose(np.hypot(x, y), np.hypot(straight_x, straight_y)[0], rtol=0.03)
    np.testing.assert_allclose(total, whole[0], rtol=0.02)
    angles = np.arctan2(y, x)
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() > 4


def test_zoom_and_stretch_change_the_area_by_what_they_say():
    bright = turn(some_pictures(200), 64, 64, Augmentation(zoom=0.25, shift=0), torch.Generator()) > 0.2
    areas = bright[:, 0].sum(dim=(1, 2)).float()
    straight = (some_pictures(1)[:, :, 16:80, 16:80] > 0.2)[0, 0].sum()
    spread = np.log((areas / straight).numpy())
    assert 0.35 < spread.max() < 0.6  # a zoom of exp(0.25) is an area of exp(0.5)
    assert -0.6 < spread.min() < -0.35


def test_light_without_changes_stays_and_with_them_is_a_picture():
    pictures = some_pictures()
    torch.testing.assert_close(change_light(pictures, NOTHING, torch.Generator()), pictures)
    views = change_light(pictures, Augmentation(), torch.Generator().manual_seed(1))
    assert views.min() >= 0
    assert views.max() <= 1
    assert not torch.allclose(views[0], views[1], atol=1e-2)


def test_same_draws_same_views():
    first, second = (
        change_light(turn(some_pictures(), 64, 48, Augmentation(), generator), Augmentation(), generator)
        for generator in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
    )
    assert torch.equal(first, second)


def test_blur_is_a_gaussian():
    images = torch.rand(2, 3, 40, 40)
    found = blur(images, torch.tensor([1.3, 0.01]))
    expected = gaussian_filter(images[0].numpy(), (0, 1.3, 1.3), mode="nearest", truncate=9 / 1.3)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-4)
    torch.testing.assert_close(found[1], images[1])
