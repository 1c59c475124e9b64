"""Two small bundles with random weights: one that is shown colours, one that is shown flux."""

import torch

from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.inputs import SDSS_REDDENING, SDSS_STRETCH, FluxInputs
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS

PARAMETERS = {"widths": [8, 16], "blocks": [1, 1], "heads": {"vote_fractions": "tree"}, "crop": 28}


def votes_bundle():
    """Return a residual network with random weights that votes."""
    torch.manual_seed(3)
    network = build_network("residual", PARAMETERS)
    for module in network.modules():  # statistics as after training, so that folding them is tested
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return Bundle(
        task="morphology",
        name="small",
        network="residual",
        parameters=PARAMETERS,
        geometry=BundleGeometry(32, "0.08 * size"),
        inputs=SDSS_STRETCH,
        symmetries=8,
        outputs={"vote_fractions": ANSWERS},
        training={},
        scores={},
        terms={},
        tensors=network.state_dict(),
    )


def flux_bundle(bands="gri", required="r", crop=24):
    """Return a residual network with random weights that measures flux in some bands."""
    torch.manual_seed(4)
    parameters = {
        "channels": 2 * len(bands),
        "widths": [8],
        "blocks": [1],
        "heads": {"pdf": {"kind": "pdf", "bins": 7}},
        "mean": 0.0,
        "spread": 1.0,
        "crop": crop,
    }
    network = build_network("residual", parameters)
    torch.nn.init.normal_(network.heads["pdf"].logits.weight, 0, 0.5)
    inputs = FluxInputs(bands, required, (0.02,) * len(bands), tuple(SDSS_REDDENING[band] for band in bands))
    return Bundle(
        task="redshifts",
        name="flux",
        network="residual",
        parameters=parameters,
        geometry=BundleGeometry(32, 0.396),
        inputs=inputs,
        symmetries=8,
        outputs={"pdf": [str(number) for number in range(7)]},
        training={},
        scores={},
        terms={},
        tensors=network.state_dict(),
    )
