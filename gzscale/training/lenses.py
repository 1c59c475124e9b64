"""The recipe of a lens finder, from cutouts to a bundle that states calibrated chances.

1. Of the cutouts, those of some images are kept apart: neither networks nor calibration see them.
2. From the others come the examples: bright red galaxies with lensed arcs, with mimics and bare, and all
   kinds of objects as they are.
3. Several networks learn them, each without a part of the images (`gzscale.training.lens_members`); their
   chances are calibrated on what each has not learnt.
4. Their committee is scored on injections into the images that were kept apart, with all their
   objects as they are for others.

Killed and started again with the same working folder, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import CatalogError, ConfigError
from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.inputs import REDDENING, FluxInputs
from gzscale.sky.rubin_camera import saturation
from gzscale.sky.stamps import Stamps
from gzscale.tasks.lenses import LENS, RADIUS, RADIUS_EDGES, SATURATION, calibrated_chance
from gzscale.training.ending import committee_of, half_weights
from gzscale.training.lens_calibration import Unseen, fit_calibration, fit_temperature
from gzscale.training.lens_evaluate import (
    LensEvaluation,
    evaluate_lenses,
    injected_test,
    mixed_test,
)
from gzscale.training.lens_examples import light_side, side_of
from gzscale.training.lens_members import Lessons, Member, learn_members, sides
from gzscale.training.lens_metrics import reliability
from gzscale.training.lens_recipe import LensRecipe
from gzscale.training.loop import Progress

__all__ = ["train_labelled", "train_lenses"]

_DATA = "simulations and injections: lensed arcs and mimics drawn into cutouts; no real lens"
_TERMS = {
    "licence": "BSD-3-Clause (weights)",
    "cite": [
        "Collett 2015, ApJ 811, 20 (lens population)",
        "Kormann, Schneider & Bartelmann 1994, A&A 284, 285 (isothermal ellipsoid)",
    ],
}


def train_lenses(
    learnt: Stamps,
    kept: Stamps,
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Progress | None = None,
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
    return _train(learnt, None, kept, recipe, name, work, progress)


def train_labelled(
    stamps: Stamps,
    lens: NDArray[np.bool_],
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Progress | None = None,
) -> Bundle:
    """Train a lens finder on images that somebody has labelled.

    Parameters
    ----------
    stamps
        The images.
    lens
        Which are lenses, shape (n,).
    recipe, name, work, progress
        See `train_lenses`; nothing is injected.

    Raises
    ------
    CatalogError
        If lenses or others are missing in what a network learns, or in what is held back from it.
    """
    return _train(stamps, lens, stamps.take(np.array([], int)), recipe, name, work, progress)[0]


def _train(
    learnt: Stamps,
    lens: NDArray[np.bool_] | None,
    kept: Stamps,
    recipe: LensRecipe,
    name: str,
    work: Path,
    progress: Progress | None,
) -> tuple[Bundle, LensEvaluation | None]:
    recipe.check()
    work.mkdir(parents=True, exist_ok=True)
    side = side_of(learnt, recipe.extent)
    parameters = _parameters(recipe, side)
    if lens is None:
        _require_light(learnt, side, recipe.views.shift)
    # All that a single network learns; every member of several learns something of each part.
    known = learnt if recipe.members > 1 else learnt.take(sides(learnt, 1)[0][0])
    lessons = Lessons(learnt, lens, _inputs(known, recipe), parameters)
    geometry = _geometry(learnt)
    members = learn_members(lessons, recipe, work, progress)
    calibration = _calibration(members, known, recipe)
    story = {**_story(known, lens is None, recipe), "calibrated_on": _calibrated_on(members)}
    bundle = _bundle(members, lessons, geometry, calibration, story, name)
    unseen = _unseen_scores(members)
    if not len(kept):
        return replace(bundle, scores=unseen), None
    # Not the draws of a member.
    rng = np.random.default_rng(recipe.pace.seed + recipe.members)
    test = injected_test(kept, recipe.bands, recipe.tested, rng, recipe.mix.radii, survey=recipe.survey)
    mixed = mixed_test(kept, recipe.bands, replace(recipe.mix, lenses=recipe.tested), rng, recipe.survey)
    evaluation = evaluate_lenses(bundle, test, mixed)
    return replace(bundle, scores={**evaluation.scores, **unseen}), evaluation


def _require_light(stamps: Stamps, side: int, shift: int) -> None:
    """Refuse views that reach beyond what is kept of added light: its edge would tell what is added."""
    reach = min(side + 2 * shift, stamps.images.shape[-1])
    if reach > light_side(stamps):
        raise ConfigError(
            f"extent and views.shift: views of {side} pixels shifted by {shift} show more than the "
            f"{light_side(stamps)} pixels within which light is added; choose smaller ones"
        )


def _unseen_scores(members: Sequence[Member]) -> dict[str, float]:
    """Return how honest a member's chances are on what it has not learnt, calibrated on the others'."""
    told = [member.unseen for member in members if len(member.unseen)]
    # What one alone says of the sky nothing calibrates.
    if len(told) < 2 or sum(not unseen.simulated.all() for unseen in told) == 1:
        return {}
    chance = []
    for own in told:
        fitted = fit_calibration(Unseen.joined([other for other in told if other is not own]))
        chance.append(calibrated_chance(own.chance, fitted, own.seeing))
    every = Unseen.joined(told)
    # Chances are stated for the sky.
    counted = every.simulated if every.simulated.all() else ~every.simulated
    lens = every.lens[counted]
    found = reliability(np.concatenate(chance)[counted], lens, float(lens.mean()))
    scores = {"reliability_unseen": found.deviation, "reliability_unseen_noise": found.noise}
    return {name: round(value, 5) for name, value in scores.items()}


def _calibration(members: Sequence[Member], learnt: Stamps, recipe: LensRecipe) -> dict[str, Any]:
    unseen = Unseen.joined([member.unseen for member in members])
    if not len(unseen):
        raise CatalogError(
            "no lens can be seen in what is held back to calibrate chances on: give more cutouts"
        )
    return {
        **fit_calibration(unseen),
        "radius_temperature": fit_temperature(unseen),
        "training_prevalence": float(unseen.lens.mean()),
        "prevalence": recipe.prevalence,
        "usual_noise": _usual_noise(learnt, recipe.bands),
        "saturation": _saturation(recipe),
    }


def _calibrated_on(members: Sequence[Member]) -> dict[str, int]:
    """Return how many examples calibrate, of samples and of the sky: chances are stated for the latter."""
    simulated = Unseen.joined([member.unseen for member in members]).simulated
    return {"samples": int(simulated.sum()), "sky": int((~simulated).sum())}


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
    members: Sequence[Member],
    lessons: Lessons,
    geometry: BundleGeometry,
    calibration: Mapping[str, Any],
    story: Mapping[str, Any],
    name: str,
) -> Bundle:
    edges = [f"{low:.3f}-{high:.3f}" for low, high in pairwise(RADIUS_EDGES)]
    kind, parameters, network = "equivariant", lessons.parameters, members[0].network
    if len(members) > 1:
        parameters = {"kind": kind, "members": len(members), "parameters": parameters}
        network = committee_of(kind, [member.network for member in members], lessons.parameters)
        kind = "committee"
    return Bundle(
        task="lenses",
        name=name,
        network=kind,
        parameters=parameters,
        geometry=geometry,
        inputs=lessons.inputs,
        symmetries=1,
        outputs={LENS: ["lens"], RADIUS: edges},
        training=story,
        scores={},
        terms=_TERMS,
        tensors=half_weights(network.state_dict()),
        calibration=calibration,
    )


def _story(known: Stamps, injected: bool, recipe: LensRecipe) -> dict[str, Any]:
    """Return what the header says of the training."""
    return {
        "data": _DATA if injected else "images with labels",
        "objects": len(known),
        "deflectors": int(known.deflector.sum()),
        "images": len(np.unique(known.source)),
        "held_out": list(recipe.held_out),
        "recipe": asdict(recipe),
    }
