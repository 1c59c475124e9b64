"""Maps of evidence: their mean is the logit, by construction, through network, committee and engine."""

import numpy as np
import pytest
import torch

from gzscale.errors import BundleError
from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.engine import Engine
from gzscale.models.heads import LensHead
from gzscale.models.inputs import SDSS_REDDENING, FluxInputs
from gzscale.models.network import build_network
from gzscale.models.observation import Observation

PARAMETERS = {
    "channels": 6,
    "widths": [2, 3],
    "blocks": [1, 1],
    "heads": {"lens": "lens", "radius": {"kind": "pdf", "bins": 4}},
    "mean": 0.0,
    "spread": 2.0,
    "crop": 32,
}


def logit(chance):
    return np.log(chance / (1 - chance))


def network(**changes):
    torch.manual_seed(1)
    made = build_network("equivariant", PARAMETERS | changes).eval()
    torch.nn.init.normal_(made.heads["lens"].logits.weight, 0, 3.0)
    return made


def bundle():
    return Bundle(
        task="lenses",
        name="small",
        network="equivariant",
        parameters=PARAMETERS,
        geometry=BundleGeometry(40, 0.396),
        inputs=FluxInputs("gri", "gri", (0.1, 0.2, 0.3), tuple(SDSS_REDDENING[band] for band in "gri")),
        symmetries=1,
        outputs={"lens": ["lens"], "radius": ["a", "b", "c", "d"]},
        training={},
        scores={},
        terms={},
        tensors=dict(network().state_dict()),
    )


def test_mean_of_the_map_is_the_logit():
    made, images = network(), torch.randn(5, 6, 32, 32)
    with torch.inference_mode():
        maps = made.evidence(images, "lens").numpy()
        chance = made.outputs(images)["lens"][:, 0].numpy()
    # Cells of 8 pixels, each parted into 4 x 4.
    assert maps.shape == (5, 16, 16)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logit(chance), atol=1e-4)


def test_map_turns_with_the_image():
    made, images = network(), torch.randn(2, 6, 32, 32)
    with torch.inference_mode():
        straight, turned = (made.evidence(view, "lens") for view in (images, torch.rot90(images, 1, (2, 3))))
    np.testing.assert_allclose(turned.numpy(), np.rot90(straight.numpy(), 1, (1, 2)), atol=1e-4)


@pytest.mark.parametrize(("down", "right"), [(0, 2), (-4, 0), (2, -6)])
def test_map_moves_with_what_is_seen_by_parts_of_a_cell(down, right):
    """Two pixels are a quarter of the network's own cell, and one cell of the map."""
    made, images = network(), torch.zeros(1, 6, 32, 32)
    images[:, :, 14:18, 14:18] = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(3)) * 3
    with torch.inference_mode():
        empty, still, moved = (
            made.evidence(view, "lens")[0].numpy()
            for view in (images * 0, images, torch.roll(images, (down, right), (2, 3)))
        )
    still, moved = still - empty, moved - empty
    still -= np.median(still)
    moved -= np.median(moved)
    expected = np.roll(still, (down // 2, right // 2), (0, 1))
    # Away from the rim, where the network sees the border of the image.
    inner = (slice(4, 12), slice(4, 12))
    np.testing.assert_allclose(moved[inner], expected[inner], atol=0.1 * np.abs(still).max())
    assert np.abs(still).max() > 0.1


def test_only_heads_linear_in_means_have_maps():
    images = torch.randn(1, 6, 32, 32)
    with pytest.raises(ValueError, match="not linear"):
        network().evidence(images, "radius")
    with pytest.raises(ValueError, match="not linear"):
        network(pooling="mean-max").evidence(images, "lens")


def test_committee_shows_the_mean_and_its_chance_is_that_of_the_map():
    torch.manual_seed(2)
    committee = build_network(
        "committee", {"kind": "equivariant", "members": 2, "parameters": PARAMETERS}
    ).eval()
    torch.nn.init.constant_(committee.members[1].heads["lens"].logits.bias, 3.0)
    images = torch.randn(2, 6, 32, 32)
    with torch.inference_mode():
        maps = [member.evidence(images, "lens") for member in committee.members]
        shown = committee.evidence(images, "lens")
        said = [member.outputs(images)["lens"] for member in committee.members]
        chance = committee.outputs(images)["lens"].numpy()[:, 0].astype(np.float64)
    np.testing.assert_allclose(shown, (maps[0] + maps[1]) / 2, atol=1e-6)
    # The members differ, so that the mean of their chances is another.
    assert np.abs((said[0] + said[1]).numpy()[:, 0] / 2 - chance).max() > 0.01
    np.testing.assert_allclose(logit(chance), shown.numpy().mean(axis=(1, 2)), atol=1e-4)


def test_a_committee_that_is_quite_sure_has_a_chance_all_the_same():
    said = torch.tensor([[[1.0], [0.0]], [[1.0], [1.0]]])
    pooled = LensHead.pooled(said)
    assert torch.isfinite(pooled).all()
    assert pooled[0] > 0.999
    assert pooled[1] == pytest.approx(0.5, abs=0.05)


def test_engine_shows_what_it_scored():
    rng = np.random.default_rng(1)
    images = rng.normal(0, 0.1, (7, 5, 40, 40)).astype(np.float16)
    seen = Observation.of(images, "ugriz", np.full(7, 0.396), np.full((7, 5), 0.05))
    engine = Engine(bundle(), "cpu", batch=4)
    engine.bfloat16 = False
    maps = engine.evidence(seen, "lens")
    assert maps.shape == (7, 16, 16)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logit(engine.run(seen)["lens"][:, 0]), atol=1e-3)
    # Of an engine on a GPU as well: nothing of it is asked.
    engine.device, engine.network = torch.device("cuda"), None
    assert engine.evidence(seen, "lens").tobytes() == Engine(bundle(), "cpu").evidence(seen, "lens").tobytes()
    engine = Engine(bundle(), "cpu")
    assert engine.evidence(seen.take(slice(0, 0)), "lens").size == 0
    with pytest.raises(BundleError, match="'nothing'"):
        engine.evidence(seen, "nothing")
