import numpy as np
import pytest
import torch

from gzscale.models.votes import QUESTIONS, asked, to_conditional
from gzscale.training.sketch import draw_sketches
from gzscale.training.sketch_shapes import BAR_SHARE, SMOOTH_SHARE, draw_shapes, rule_votes

COUNT = 2000


@pytest.fixture(scope="module")
def shapes():
    return draw_shapes(COUNT, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def votes(shapes):
    return to_conditional(rule_votes(shapes).numpy().astype(float))


def test_pictures_and_votes():
    pictures, joint = draw_sketches(32, torch.Generator().manual_seed(2), 48, 64)
    assert pictures.shape == (32, 3, 48, 48)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    # A galaxy stands in the middle: brighter there than at the border, in every picture.
    middle, border = pictures[:, :, 20:28, 20:28].mean(dim=(1, 2, 3)), pictures[:, :, :4].mean(dim=(1, 2, 3))
    assert (middle > border).float().mean() > 0.95
    sums = np.stack([joint[:, question.answers].sum(dim=1) for question in QUESTIONS], axis=1)
    np.testing.assert_allclose(sums, asked(joint.numpy()), atol=1e-5)


def test_same_seed_same_sketches():
    first, second, other = (draw_sketches(3, torch.Generator().manual_seed(seed), 32) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_the_same_galaxy_at_any_number_of_pixels():
    small, large = (draw_sketches(8, torch.Generator().manual_seed(4), size)[1] for size in (32, 64))
    torch.testing.assert_close(small, large)


def test_shares_are_as_stated(shapes):
    assert float(shapes.smooth.mean()) == pytest.approx(SMOOTH_SHARE, abs=0.04)
    assert float((shapes.bar > 0)[shapes.face_on > 0].float().mean()) == pytest.approx(BAR_SHARE, abs=0.05)
    assert bool(((shapes.smooth + shapes.edge_on + shapes.face_on) == 1).all())


def test_rules_see_what_is_there(shapes, votes):
    def mean(column, chosen):
        return votes[chosen.numpy().astype(bool), column].mean()

    disks = shapes.face_on > 0
    assert mean(0, shapes.smooth) > 0.75 > 0.5 > mean(0, shapes.edge_on)
    assert mean(3, shapes.edge_on) > 0.8
    assert mean(5, disks & (shapes.bar > 0.2)) > 0.4 > mean(5, disks & (shapes.bar == 0))
    assert mean(7, disks & (shapes.arm_contrast > 0.8)) > 2 * mean(7, disks & (shapes.arm_contrast == 0))
    assert (
        mean(13, shapes.companion > 0.8) > 0.6 > 0.2 > mean(13, (shapes.companion == 0) & (shapes.ring == 0))
    )
    assert mean(18, shapes.ring > 0) > 0.3
    two, four = (shapes.arm_number == number for number in (2, 4))
    assert mean(32, two) > 2 * mean(32, four)
    assert mean(12, disks & (shapes.bulge > 0.6)) > mean(12, disks & (shapes.bulge < 0.2))


def test_faint_ones_are_fainter_smaller_and_look_smoother():
    usual, some = (draw_shapes(400, torch.Generator().manual_seed(5), share) for share in (0.0, 0.5))
    faint = some.fainter > 0
    assert 0.4 < faint.float().mean() < 0.6
    assert torch.equal(some.size[~faint], usual.size[~faint])
    assert (some.size[faint] < 0.81 * usual.size[faint]).all()
    assert torch.equal(some.arm_contrast, usual.arm_contrast)
    smooth, before = rule_votes(some)[:, 0], rule_votes(usual)[:, 0]
    assert torch.equal(smooth[~faint], before[~faint])
    assert (smooth[faint] > before[faint]).float().mean() > 0.9
    bright, dim = (
        draw_sketches(24, torch.Generator().manual_seed(6), faint=share)[0].mean() for share in (0.0, 1.0)
    )
    assert dim < 0.8 * bright
