"""What ``gzscale train lenses`` and ``gzscale evaluate`` of a lens finder do: from paths to lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from gzscale.models.bundle import Bundle
from gzscale.models.observation import Observation
from gzscale.sky.stamps import Stamps, read_stamps
from gzscale.training.bologna import is_challenge
from gzscale.training.command import Curve, changed
from gzscale.training.ending import beside, finish, require_place
from gzscale.training.lens_evaluate import (
    LensEvaluation,
    LensTest,
    evaluate_lenses,
    injected_test,
    mixed_test,
)
from gzscale.training.lens_examples import Mix
from gzscale.training.lens_labels import read_labelled_lenses
from gzscale.training.lens_plots import draw_evaluation
from gzscale.training.lens_recipe import RECIPES
from gzscale.training.lenses import train_labelled, train_lenses

__all__ = ["evaluate_lens_bundle", "train_lens_bundle"]

#: Measures that are printed, in this order, of the network and of the arc filter.
_MEASURES = ("auroc", "tpr0", "tpr10", "tpr_1e-3", "tpr_1e-4", "precision")


def train_lens_bundle(
    images: Sequence[str],
    labels: str | None,
    output: str,
    name: str,
    settings: Sequence[str] = (),
    geometry: str = "sky",
    survey: str = "sdss",
) -> Iterator[str]:
    """Train a lens finder and write it, with its learning curve beside it.

    Parameters
    ----------
    images
        Cutout stores into which lenses are put; or, with labels, one store or a folder of the Bologna
        challenge.
    labels
        Table of labels: ``object_id`` and ``lens``; None for injections.
    output
        Path of the bundle. The checkpoint lies in ``<output>.work`` until it is written, the learning curve
        in ``<output>.curve.csv``.
    name
        Name of the model.
    settings
        ``key=value`` for any key of `gzscale.training.lens_recipe.LensRecipe`, dotted.
    geometry
        Name of the stores' geometry.
    survey
        Whose recipe is taken: see `gzscale.training.lens_recipe.RECIPES`.

    Yields
    ------
    str
        Lines for the user.
    """
    require_place(output)
    labelled = labels is not None or is_challenge(images[0])
    # Labels are few: a single network, which learns nearly all of them, where no committee is asked for.
    recipe = changed(replace(RECIPES[survey], members=1) if labelled else RECIPES[survey], settings)
    work, curve = beside(output, "work"), Curve(beside(output, "curve.csv"), "cross_entropy")
    evaluation = None
    if labelled:
        stamps, lens, bands = read_labelled_lenses(images[0], labels, recipe.bands, geometry, recipe.survey)
        yield f"{len(lens)} images with labels, {int(lens.sum())} of them lenses, in the bands {bands}"
        bundle = train_labelled(stamps, lens, replace(recipe, bands=bands), name, work, curve.begun().add)
    else:
        learnt, kept = read_stamps(images, recipe.bands, geometry, recipe.held_out, recipe.survey)
        yield f"to learn from: {_told(learnt)}; kept apart: {_told(kept)}"
        bundle, evaluation = train_lenses(learnt, kept, recipe, name, work, curve.begun().add)
    finish(bundle, output, work)
    if "reliability_unseen" in bundle.scores:
        found, noise = (bundle.scores[f"reliability_unseen{ending}"] for ending in ("", "_noise"))
        yield (
            "reliability on images that a network has not learnt, calibrated on the others: mean deviation "
            f"{found:.4f} ({noise:.4f} of it from counting alone)"
        )
    if evaluation is not None:
        yield from _table(evaluation)
    yield output


def evaluate_lens_bundle(
    made: Bundle,
    images: Sequence[str],
    labels: str | None,
    geometry: str = "sky",
    picture: str | None = None,
    others: Sequence[str] = (),
    lenses: int = 1000,
    seed: int = 1,
) -> tuple[dict[str, Any], list[str]]:
    """Score a lens finder beside the arc filter; return the scores and lines for the user.

    Parameters
    ----------
    made
        The bundle.
    images, labels, geometry
        See `train_lens_bundle`: with labels these count, without, lenses are put into the deflectors among
        the cutouts, and all cutouts as they are count as others.
    picture
        Path of a picture to write: rates and reliability; none if absent.
    others
        More cutout stores, of which all objects count as others and none is given a lens.
    lenses
        Lenses to put in.
    seed
        Of the draws.
    """
    if labels is not None or is_challenge(images[0]):
        stamps, lens, bands = read_labelled_lenses(images[0], labels, made.bands, geometry, made.filters)
        seen = Observation.of(stamps.images, bands, stamps.scale, stamps.noise, seeing=stamps.told_seeing)
        test, mixed = LensTest(seen, lens, np.full(len(lens), np.nan)), None
    else:
        survey, mix = made.filters, replace(_mix_of(made), lenses=lenses)
        stamps, _ = read_stamps(images, made.bands, geometry, survey=survey)
        rng = np.random.default_rng(seed)
        more = read_stamps(others, made.bands, geometry, survey=survey)[0] if others else None
        test = injected_test(stamps, made.bands, lenses, rng, mix.radii, more, survey)
        mixed = mixed_test(stamps, made.bands, mix, rng, survey)
    found = evaluate_lenses(made, test, mixed)
    if picture is not None:
        draw_evaluation(found, test, picture)
    return {"scores": found.scores}, list(_table(found))


def _mix_of(made: Bundle) -> Mix:
    """Return the mixture that a bundle has learnt, of which its chances are honest."""
    told = made.training.get("recipe", {}).get("mix")
    if told is None:
        return RECIPES[made.filters].mix
    known = {item.name for item in fields(Mix)}
    values: dict[str, Any] = {name: value for name, value in told.items() if name in known}
    if "radii" in values:
        values["radii"] = tuple(values["radii"])
    return Mix(**values)


def _told(stamps: Stamps) -> str:
    return (
        f"{len(stamps)} cutouts of {len(np.unique(stamps.source))} images, "
        f"{int(stamps.deflector.sum())} of them bright red galaxies"
    )


def _table(found: LensEvaluation) -> Iterator[str]:
    scores = found.scores
    yield (
        f"{scores['lenses']:.0f} lenses, {scores['others']:.0f} others; {scores['refused']:.0f} more have no "
        "score and are left out"
    )
    yield f"{'':<24}" + "".join(f"{name:>11}" for name in _MEASURES)
    for name in ("network", "arc_filter"):
        for ending, words in (("", ""), ("_large", " > 1.2 arcsec")):
            if f"{name}_auroc{ending}" in scores:
                yield f"{name + words:<24}" + _line(scores, name, ending)
    for ending, words in (("", "all"), ("_large", "> 1.2 arcsec")):
        name = f"network_tpr_1e-3{ending}"
        if f"{name}_low" in scores:
            low, high = scores[f"{name}_low"], scores[f"{name}_high"]
            yield f"TPR at 1e-3, {words}: {scores[name]:.3f}, between {low:.3f} and {high:.3f} (95 %)"
    yield (
        f"reliability: mean deviation {scores['reliability']:.4f} at the training prevalence "
        f"({scores['reliability_noise']:.4f} of it from counting alone), "
        f"{scores['reliability_stated']:.6f} at the stated prevalence"
    )
    if "radius_bias" in scores:
        yield (
            f"Einstein radius: relative bias {scores['radius_bias']:+.3f}, "
            f"scatter {scores['radius_scatter']:.3f}, "
            f"{100 * scores['radius_inside']:.0f} % within the stated error"
        )


def _line(scores: Mapping[str, float], name: str, ending: str) -> str:
    return "".join(f"{scores[f'{name}_{key}{ending}']:>11.4f}" for key in _MEASURES)
