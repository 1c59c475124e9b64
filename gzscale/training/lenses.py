"""The recipe of a lens finder, from cutouts to a bundle that states calibrated chances.

1. Of the cutouts, those of some images are kept apart: neither network nor calibration sees them.
2. A ninth of the others, by identifier, is held back; from the rest come the examples: bright red galaxies
   with lensed arcs, with mimics and bare, and all kinds of objects as they are.
3. The network learns them; on the ninth its chances are calibrated.
4. It is scored on injections into the images that were kept apart, with all their objects as
   they are for others.

Killed and started again with the same working folder, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.inputs import REDDENING, FluxInputs
from gzscale.models.network import build_network
from gzscale.sky.rubin_camera import saturation
from gzscale.sky.stamps import Stamps
from gzscale.tasks.lenses import LENS, RADIUS, RADIUS_EDGES, SATURATION
from gzscale.training.lens_evaluate import (
    LensEvaluation,
    evaluate_lenses,
    fit_calibration,
    injected_test,
    mixed_test,
)
from gzscale.training.lens_examples import (
    EXTENT,
    LensExamples,
    Mix,
    labelled_examples,
    make_examples,
    side_of,
)
from gzscale.training.lens_fit import LensLesson, LensViews, predict_examples
from gzscale.training.loop import Epoch, Pace, learn

__all__ = ["RECIPES", "LensRecipe", "train_labelled", "train_lenses"]

#: Of so many objects one is held back for calibration.
_HELD_BACK = 9
_DATA = "simulations and injections: lensed arcs and mimics drawn into cutouts; no real lens"
_TERMS = {
    "licence": "BSD-3-Clause (weights)",
    "cite": [
        "Collett 2015, ApJ 811, 20 (lens population)",
        "Kormann, Schneider & Bartelmann 1994, A&A 284, 285 (isothermal ellipsoid)",
    ],
}


@dataclass(frozen=True)
class LensRecipe:
    """How a lens finder is trained.

    Attributes
    ----------
    survey
        Whose filters and camera they are: a key of `gzscale.models.inputs.REDDENING`.
    bands
        The bands that it sees; all are required.
    held_out
        Parts of the names of images that are kept apart for the test.
    mix
        Of what the examples consist.
    views
        How views of an example differ.
    pace
        How fast and how long.
    extent
        Side in arcsec of the central part that is looked at.
    size
        Side in pixels that it is resampled to.
    network
        Keyword arguments of `gzscale.models.equivariant.EquivariantNetwork`.
    prevalence
        Share of lenses at which scores are stated.
    tested
        Lenses of the test.
    """

    survey: str = "sdss"
    bands: str = "gri"
    held_out: tuple[str, ...] = ()
    mix: Mix = field(default_factory=Mix)
    views: LensViews = field(default_factory=LensViews)
    pace: Pace = field(default_factory=lambda: Pace(epochs=10, batch=64, memory=0.995))
    extent: float = EXTENT
    size: int = 64
    network: Mapping[str, Any] = field(
        default_factory=lambda: {"widths": [6, 12, 24], "blocks": [1, 2, 1], "dropout": 0.1}
    )
    prevalence: float = 1e-3
    tested: int = 1000


#: Survey -> what its training starts from. Rubin's sharper and deeper images show smaller lenses, in one band
#: more; what is looked at is all of a cutout.
RECIPES = {
    "sdss": LensRecipe(),
    "rubin": LensRecipe(survey="rubin", bands="griz", mix=Mix(radii=(0.5, 4.0)), extent=12.8),
}


def train_lenses(
    learnt: Stamps,
    kept: Stamps,
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Callable[[str, Epoch], None] | None = None,
) -> tuple[Bundle, LensEvaluation | None]:
    """Train a lens finder.

    Parameters
    ----------
    learnt
        Cutouts that it learns from.
    kept
        Cutouts that it is tested on; may be none.
    recipe
        How.
    name
        Name of the model.
    work
        Folder for the checkpoint.
    progress
        Called after each epoch.

    Returns
    -------
    bundle : Bundle
    evaluation : LensEvaluation or None
        Of the cutouts kept apart.

    Raises
    ------
    CatalogError
        If there are too few cutouts, or their geometries differ.
    """
    geometry = _geometry(learnt)
    rng = np.random.default_rng(recipe.pace.seed)
    back = learnt.object_id % _HELD_BACK == 0
    examples = make_examples(learnt.take(~back), recipe.bands, recipe.mix, rng, recipe.survey)
    few = replace(recipe.mix, lenses=max(64, recipe.mix.lenses // _HELD_BACK))
    held = make_examples(learnt.take(back), recipe.bands, few, rng, recipe.survey)
    return _train(examples, held, kept, geometry, recipe, name, work, progress)


def train_labelled(
    stamps: Stamps,
    lens: NDArray[np.bool_],
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Callable[[str, Epoch], None] | None = None,
) -> Bundle:
    """Train a lens finder on images that somebody has labelled.

    Parameters
    ----------
    stamps
        The images; a ninth, by identifier, is held back for calibration.
    lens
        Which are lenses, shape (n,).
    recipe, name, work, progress
        See `train_lenses`; nothing is injected.

    Raises
    ------
    CatalogError
        If lenses or others are missing on either side.
    """
    back = stamps.object_id % _HELD_BACK == 0
    for side, chosen in (("learnt", ~back), ("held back", back)):
        lenses = int(lens[chosen].sum())
        if not 0 < lenses < int(chosen.sum()):
            raise CatalogError(
                f"{int(chosen.sum())} images {side}, {lenses} of them lenses: both kinds are needed"
            )
    examples, held = (
        labelled_examples(stamps.take(chosen), lens[chosen], recipe.bands) for chosen in (~back, back)
    )
    return _train(
        examples, held, stamps.take(np.array([], int)), _geometry(stamps), recipe, name, work, progress
    )[0]


def _train(
    examples: LensExamples,
    held: LensExamples,
    kept: Stamps,
    geometry: BundleGeometry,
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Callable[[str, Epoch], None] | None,
) -> tuple[Bundle, LensEvaluation | None]:
    work.mkdir(parents=True, exist_ok=True)
    inputs = _inputs(examples.stamps, recipe)
    side = side_of(examples.stamps, recipe.extent)
    parameters = _parameters(recipe, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.pace.seed)
        network = build_network("equivariant", parameters)
        lesson = LensLesson(examples, inputs, (side, recipe.size), recipe.views, held)
        told = None if progress is None else (lambda line: progress("lenses", line))
        network = learn(network, lesson, recipe.pace, checkpoint=work / "lenses.safetensors", progress=told)
    chance = predict_examples(network, held, inputs)[LENS][:, 0]
    calibration = {
        **fit_calibration(chance, held.lens),
        "training_prevalence": float(examples.lens.mean()),
        "prevalence": recipe.prevalence,
        "usual_noise": _usual_noise(examples.stamps, recipe.bands),
        "saturation": _saturation(recipe),
    }
    bundle = _bundle(network, parameters, inputs, geometry, calibration, examples, recipe, name)
    if not len(kept):
        return bundle, None
    rng = np.random.default_rng(recipe.pace.seed + 1)
    test = injected_test(kept, recipe.bands, recipe.tested, rng, recipe.mix.radii, survey=recipe.survey)
    mixed = mixed_test(kept, recipe.bands, replace(recipe.mix, lenses=recipe.tested), rng, recipe.survey)
    evaluation = evaluate_lenses(bundle, test, mixed)
    bundle = _bundle(
        network, parameters, inputs, geometry, calibration, examples, recipe, name, evaluation.scores
    )
    return bundle, evaluation


def _geometry(stamps: Stamps) -> BundleGeometry:
    scales = np.unique(np.round(stamps.scale, 6))
    if len(scales) != 1:
        raise CatalogError(
            f"cutouts of pixel scales from {scales.min():g} to {scales.max():g} arcsec: a lens finder learns "
            "those of one fixed scale"
        )
    return BundleGeometry(stamps.images.shape[-1], float(scales[0]))


def _usual_noise(stamps: Stamps, bands: str) -> dict[str, float]:
    median = np.nanmedian(stamps.noise, axis=0)
    return {band: float(median[place]) for place, band in enumerate(bands)}


def _saturation(recipe: LensRecipe) -> dict[str, float]:
    """Return nanomaggies a pixel from which on cores are taken for saturated, by band."""
    if recipe.survey == "rubin":
        return {band: round(saturation(band), 2) for band in recipe.bands}
    return dict.fromkeys(recipe.bands, SATURATION)


def _inputs(stamps: Stamps, recipe: LensRecipe) -> FluxInputs:
    """Return inputs that are softened at the noise of a pixel."""
    per_area = np.nanmedian(stamps.noise / np.square(stamps.scale)[:, None], axis=0)
    softening = tuple(round(float(value), 4) for value in per_area)
    reddening = tuple(REDDENING[recipe.survey][band] for band in recipe.bands)
    return FluxInputs(recipe.bands, recipe.bands, softening, reddening, filters=recipe.survey)


def _parameters(recipe: LensRecipe, side: int) -> dict[str, Any]:
    return {
        "channels": 2 * len(recipe.bands),
        "heads": {LENS: "lens", RADIUS: {"kind": "pdf", "bins": len(RADIUS_EDGES) - 1}},
        "mean": 0.0,
        "spread": 2.0,
        "crop": side,
        "size": recipe.size,
        **recipe.network,
    }


def _bundle(
    network: Network,
    parameters: Mapping[str, Any],
    inputs: FluxInputs,
    geometry: BundleGeometry,
    calibration: Mapping[str, Any],
    examples: LensExamples,
    recipe: LensRecipe,
    name: str,
    scores: Mapping[str, float] | None = None,
) -> Bundle:
    edges = [f"{low:.3f}-{high:.3f}" for low, high in pairwise(RADIUS_EDGES)]
    return Bundle(
        task="lenses",
        name=name,
        network="equivariant",
        parameters=parameters,
        geometry=geometry,
        inputs=inputs,
        symmetries=1,
        outputs={LENS: ["lens"], RADIUS: edges},
        training={
            "data": _DATA if len(examples.light) > 1 else "images with labels",
            "objects": len(examples.stamps),
            "deflectors": int(examples.stamps.deflector.sum()),
            "images": _images(examples.stamps),
            "held_out": list(recipe.held_out),
            "recipe": {"mix": asdict(recipe.mix), "views": asdict(recipe.views), "pace": asdict(recipe.pace)},
        },
        scores=dict(scores or {}),
        terms=_TERMS,
        tensors={key: _half(value) for key, value in network.state_dict().items()},
        calibration=calibration,
    )


def _images(stamps: Stamps) -> int:
    return len(np.unique(stamps.source))


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Round weights to float16; the statistics of normalisation, few, stay float32."""
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
