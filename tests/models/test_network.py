import copy

import pytest
import torch

from gzscale.models.heads import LOGIT_BOUND, PdfHead, TreeHead
from gzscale.models.network import build_network, fuse
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


@pytest.mark.parametrize("kind", ["residual", "equivariant"])
def test_folding_the_normalisation_changes_nothing(kind):
    torch.manual_seed(1)
    network = build_network(kind, {"widths": [8, 12], "blocks": [1, 2], "heads": HEADS})
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


def trained(kind, parameters):
    """A network with statistics and weights as after some training."""
    torch.manual_seed(2)
    network = build_network(kind, parameters)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
        if isinstance(module, TreeHead):
            torch.nn.init.normal_(module.logits.weight)
    return network.eval()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("others", [{}, {"kernel": 5, "activation": "silu", "pooling": "mean-max"}])
def test_an_equivariant_network_says_the_same_of_all_8_views(fused, others):
    network = trained(
        "equivariant", {"widths": [3, 5], "blocks": [1, 2], "heads": HEADS, "crop": 28, "size": 40}
    )
    if fused:
        fuse(network)
    images = torch.rand(3, 3, 32, 32)
    views = [torch.rot90(image, turn, (2, 3)) for image in (images, images.flip(-1)) for turn in range(4)]
    with torch.inference_mode():
        first, *others = (network(view)["vote_fractions"] for view in views)
        different = network(images.roll(1, 0))["vote_fractions"]
    for other in others:
        torch.testing.assert_close(other, first, atol=2e-6, rtol=0)
    assert (different - first).abs().max() > 1e-3


def test_turning_the_image_turns_and_permutes_the_layers():
    # The definition of equivariance (Cohen & Welling 2016, equation 10), for a quarter turn.
    network = trained("equivariant", {"widths": [3, 5], "blocks": [1, 1]})
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        straight = network.stages(torch.relu(network.stem(image)))[0].reshape(5, 8, 4, 4)
        turned = network.stages(torch.relu(network.stem(torch.rot90(image, 1, (2, 3)))))[0].reshape(
            5, 8, 4, 4
        )
    back = torch.rot90(turned, -1, (2, 3))
    order = [
        next(h for h in range(8) if torch.allclose(back[:, g], straight[:, h], atol=1e-5)) for g in range(8)
    ]
    assert sorted(order) == list(range(8))
    assert order != list(range(8))


def test_a_committee_of_committees_is_one():
    parts = {
        "kind": "equivariant",
        "members": 2,
        "parameters": {"widths": [2], "blocks": [1], "heads": {"lens": "lens"}},
    }
    committee = build_network("committee", {"kind": "committee", "members": 2, "parameters": parts}).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        said = torch.stack([member(images)["lens"] for member in committee.members])
        pooled = torch.logit(committee(images)["lens"])
    torch.testing.assert_close(pooled, torch.logit(said).mean(dim=0), atol=1e-5, rtol=1e-5)


def test_a_committee_says_the_mean():
    parameters = {"widths": [4], "blocks": [1], "heads": HEADS}
    committee = build_network(
        "committee", {"kind": "equivariant", "members": 3, "parameters": parameters}
    ).eval()
    images = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        said = torch.stack([member(images)["vote_fractions"] for member in committee.members])
        torch.testing.assert_close(committee(images)["vote_fractions"], said.mean(dim=0))
    assert committee.features(committee.prepare(images)).shape == (2, 12)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("oracle", {}),
        ("equivariant", {"pooling": "oracle"}),
        ("equivariant", {"widths": [8], "blocks": [1, 1]}),
        ("committee", {"kind": "oracle", "members": 1, "parameters": {}}),
        ("residual", {"heads": {"a": "oracle"}}),
        ("residual", {"widths": [8], "blocks": [1, 1]}),
    ],
)
def test_unknown_networks(name, parameters):
    with pytest.raises(ValueError, match=r"oracle|widths"):
        build_network(name, parameters)


def test_pdf_head_is_a_softmax_the_same_with_and_without_gradients():
    torch.manual_seed(0)
    for hidden in (0, 12):
        head = PdfHead(16, bins=30, hidden=hidden)
        torch.nn.init.normal_(head.logits.weight)
        features = torch.randn(9, 16)
        learning = head(features)
        with torch.inference_mode():
            found = head(features)
        assert found.sum(dim=1).numpy() == pytest.approx(1, abs=1e-6)
        assert learning.detach().numpy() == pytest.approx(found.numpy(), abs=1e-6)
        vector = torch.relu(head.hidden(features)) if hidden else features
        expected = torch.softmax(vector @ head.logits.weight.T + head.logits.bias, dim=1)
        assert found.numpy() == pytest.approx(expected.detach().numpy(), abs=1e-6)


def test_heads_may_have_parameters():
    network = build_network(
        "equivariant",
        {"widths": [3], "blocks": [1], "heads": {"pdf": {"kind": "pdf", "bins": 11}, "far": "distance"}},
    ).eval()
    with torch.inference_mode():
        found = network(torch.rand(2, 3, 32, 32))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"pdf": (2, 11), "far": (2, 1)}
    for wrong in ({"kind": "pdf"}, {"bins": 3}, {"kind": "pdf", "bins": 3, "colour": 1}):
        with pytest.raises(ValueError, match="does not take"):
            build_network("residual", {"heads": {"pdf": wrong}})
