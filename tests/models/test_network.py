import copy

import pytest
import torch

from gzscale.models.network import LOGIT_BOUND, TreeHead, build_network, fuse
from gzscale.models.votes import to_conditional, to_joint

HEADS = {"vote_fractions": "tree"}


def test_head_agrees_with_the_tree():
    torch.manual_seed(0)
    head = TreeHead(16)
    features = torch.randn(9, 16) * 3
    joint = head(features).detach().numpy()
    again = to_joint(to_conditional(joint))
    assert abs(joint - again).max() < 1e-6
    logits = LOGIT_BOUND * torch.tanh(head.logits(features) / LOGIT_BOUND)
    assert torch.softmax(logits[:, :3], dim=1).detach().numpy() == pytest.approx(joint[:, :3], abs=1e-6)


def test_however_sure_the_head_is_every_question_has_an_answer():
    head = TreeHead(4)
    with torch.no_grad():
        head.logits.weight.fill_(0)
        head.logits.bias.copy_(torch.linspace(-1e6, 1e6, 37))
        joint = head(torch.zeros(1, 4)).numpy()
    assert (joint > 0).all()
    assert abs(to_conditional(joint).sum() - 11) < 1e-4


def test_folding_the_normalisation_changes_nothing():
    torch.manual_seed(1)
    network = build_network("residual", {"widths": [8, 12], "blocks": [1, 2], "heads": HEADS})
    images = torch.rand(6, 3, 32, 32)
    for _ in range(3):  # statistics other than those at birth
        network(images)
    network.eval()
    folded = fuse(copy.deepcopy(network))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        found, expected = folded(images), network(images)
    torch.testing.assert_close(found["vote_fractions"], expected["vote_fractions"], atol=1e-6, rtol=1e-4)


def test_only_the_central_square_is_looked_at():
    network = build_network("residual", {"widths": [8], "blocks": [1], "heads": HEADS, "crop": 16}).eval()
    images = torch.rand(2, 3, 24, 24)
    changed = images.clone()
    changed[:, :, :4] = changed[:, :, -4:] = 0
    changed[:, :, :, :4] = changed[:, :, :, -4:] = 0
    with torch.inference_mode():
        first, second = network(images)["vote_fractions"], network(changed)["vote_fractions"]
        changed[:, :, 4] = 1
        third = network(changed)["vote_fractions"]
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_features_have_the_last_width():
    network = build_network("residual", {"widths": [8, 12], "blocks": [1, 1], "heads": HEADS}).eval()
    assert network.features(network.prepare(torch.rand(2, 3, 40, 40))).shape == (2, 12)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("oracle", {}),
        ("residual", {"heads": {"a": "oracle"}}),
        ("residual", {"widths": [8], "blocks": [1, 1]}),
    ],
)
def test_unknown_networks(name, parameters):
    with pytest.raises(ValueError, match=r"oracle|widths"):
        build_network(name, parameters)
