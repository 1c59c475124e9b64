"""Trains and scores morphology bundles on labelled pictures of Galaxy Zoo 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.cutouts.pictures import read_picture
from gzscale.errors import MissingError
from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.engine import Engine
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS, to_conditional
from gzscale.training.fit import OUTPUT, Settings, fit, reduce_pictures, rmse
from gzscale.training.labels import HELD_OUT_SHARE, Labels, held_out

__all__ = ["GEOMETRY", "NETWORK", "evaluate_morphology", "train_morphology"]

#: What Galaxy Zoo 2 showed, averaged over 4 x 4 pixels and cut to the centre.
GEOMETRY = BundleGeometry(96, "0.08 * size")
#: The network that is trained.
NETWORK: dict[str, object] = {
    "channels": 3,
    "widths": [32, 64, 128, 256],
    "blocks": [1, 1, 1, 1],
    "heads": {OUTPUT: "tree"},
    "mean": 0.05,
    "spread": 0.1,
    "dropout": 0.1,
    "stride": 2,
    "crop": 64,
}
_TERMS = {
    "licence": "BSD-3-Clause (weights); images: SDSS, public; votes: Galaxy Zoo 2",
    "cite": [
        "Willett et al. 2013, MNRAS 435, 2835 (Galaxy Zoo 2)",
        "Hart et al. 2016, MNRAS 461, 3663 (Galaxy Zoo 2, debiasing)",
    ],
}
_BLOCK = 64


def train_morphology(
    labels: Labels,
    images: str | Path,
    settings: Settings,
    name: str,
    progress: Callable[[int, float], None] | None = None,
) -> Bundle:
    """Train a morphology bundle; the galaxies of `held_out` are never seen and give the scores.

    Parameters
    ----------
    labels
        Votes.
    images
        Folder with ``<name>.jpg`` for each label.
    settings
        How to fit.
    name
        Name of the model.
    progress
        Called after each epoch with its number and the mean loss.

    Returns
    -------
    Bundle
        float16 weights. Same inputs, same machine and thread count: same bytes.

    Raises
    ------
    MissingError, ImageError
        If a picture is missing or unreadable.
    """
    hidden = held_out(labels.names)
    seen = [galaxy for galaxy, hide in zip(labels.names, hidden, strict=True) if not hide]
    pictures = np.concatenate([reduce_pictures(block) for block in _pictures(seen, images)])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = fit(
            build_network("residual", NETWORK), pictures, labels.joint[~hidden], settings, device, progress
        )
    bundle = Bundle(
        task="morphology",
        name=name,
        network="residual",
        parameters=NETWORK,
        geometry=GEOMETRY,
        stretch=SDSS_STRETCH,
        symmetries=8,
        outputs={OUTPUT: list(ANSWERS)},
        training={
            "data": "Galaxy Zoo 2 subject JPEGs, 424 pixels, weighted vote fractions",
            "galaxies": len(seen),
            "held_out": int(hidden.sum()),
            "split": f"held out where the first 64 bits of SHA-256 of the name are below {HELD_OUT_SHARE}",
            "settings": {key: value for key, value in asdict(settings).items() if value != float("inf")},
        },
        scores={},
        terms=_TERMS,
        tensors={key: _half(value) for key, value in network.state_dict().items()},
    )
    return replace(bundle, scores=evaluate_morphology(bundle, labels, images, hidden))


def evaluate_morphology(
    bundle: Bundle, labels: Labels, images: str | Path, chosen: NDArray[np.bool_]
) -> dict[str, float]:
    """Score a bundle on labelled pictures.

    Parameters
    ----------
    bundle
        The bundle.
    labels
        Votes.
    images
        Folder with ``<name>.jpg`` for each label.
    chosen
        Which labels are used, shape (n,).

    Returns
    -------
    dict[str, float]
        ``galaxies``; ``rmse`` over the 37 joint fractions; ``rmse_of_mean``, that of predicting
        the other labels' mean (the same labels' where all are chosen); ``smooth_agreement``, the
        share whose most voted answer to question 1 is predicted.
    """
    names = [name for name, use in zip(labels.names, chosen, strict=True) if use]
    blocks = Engine(bundle).run_pictures(_pictures(names, images))
    predicted = np.concatenate([outputs[OUTPUT] for outputs in blocks])
    truth = labels.joint[chosen]
    others = labels.joint[~chosen] if not chosen.all() else truth
    first = to_conditional(predicted)[:, :3].argmax(axis=1) == truth[:, :3].argmax(axis=1)
    return {
        "galaxies": float(len(names)),
        "rmse": round(rmse(predicted, truth), 5),
        "rmse_of_mean": round(rmse(np.broadcast_to(others.mean(axis=0), truth.shape), truth), 5),
        "smooth_agreement": round(float(first.mean()), 4),
    }


def _pictures(names: Sequence[str], images: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Yield blocks of pictures, shape (n, 424, 424, 3)."""
    for start in range(0, len(names), _BLOCK):
        paths = [Path(images) / f"{name}.jpg" for name in names[start : start + _BLOCK]]
        for path in paths:
            if not path.exists():
                raise MissingError(f"{path}: no picture for a galaxy of the labels")
        yield np.stack([read_picture(path) for path in paths])


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Round weights to float16; the statistics of batch normalisation, few, stay float32."""
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
