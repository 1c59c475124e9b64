"""Scores a lens finder on injections and on objects that are none, beside colour and an arc filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.errors import BundleError, CatalogError
from gzscale.models.bundle import Bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation
from gzscale.sky.inject import add_light, electrons_of
from gzscale.sky.stamps import Stamps
from gzscale.tasks.lenses import (
    LENS,
    RADIUS,
    LensesTask,
    calibrated_chance,
    middle_seeing,
    radius_quantiles,
    shift_prevalence,
    tempered,
)
from gzscale.tasks.seen import look
from gzscale.training.arc_filter import arc_filter
from gzscale.training.lens_examples import Mix, make_examples
from gzscale.training.lens_metrics import Reliability, binomial_interval, finder_scores, reliability
from gzscale.training.lens_visible import draw_visible

__all__ = ["LensEvaluation", "LensTest", "evaluate_lenses", "injected_test", "mixed_test"]

#: Einstein radius in arcsec from which on a lens should be found in SDSS's seeing.
LARGE = 1.2
#: Edges of the reliability diagram at a low prevalence: most objects are below its smallest probability.
_RARE_EDGES = np.array([0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0])


@dataclass(frozen=True)
class LensTest:
    """What a finder is tested on.

    Attributes
    ----------
    observation
        Cutouts with flux, n of them.
    lens
        Shape (n,).
    radius
        Einstein radius in arcsec, NaN where there is no lens or none is known, shape (n,).
    """

    observation: Observation
    lens: NDArray[np.bool_]
    radius: NDArray[np.float64]


@dataclass(frozen=True)
class LensEvaluation:
    """How well a finder does.

    Attributes
    ----------
    scores
        ``network_auroc``, ``arc_filter_auroc``, ... : see `gzscale.training.lens_metrics.finder_scores`; with
        ``_large`` for lenses above 1.2 arcsec, and ``_low`` and ``_high`` for the 95 % interval of the
        shares that are found; ``reliability``, ``reliability_stated``: mean deviation, and with ``_noise``
        what it would be of honest chances; ``refused``: others that have no score and are left out.
    chance
        Calibrated, at the training prevalence, 0 where the task gives no score, shape (n,).
    score
        At the stated prevalence, shape (n,).
    arc_filter
        The other means' score, shape (n,).
    diagrams
        At the training prevalence, and at the stated one; objects are weighted to it.
    """

    scores: dict[str, float]
    chance: NDArray[np.float64]
    score: NDArray[np.float64]
    arc_filter: NDArray[np.float64]
    diagrams: tuple[Reliability, Reliability]


def injected_test(
    stamps: Stamps,
    bands: str,
    count: int,
    rng: np.random.Generator,
    radii: tuple[float, float] = (0.7, 4.0),
    others: Stamps | None = None,
    survey: str = "sdss",
) -> LensTest:
    """Make a test of all objects as they are, and of visible lenses with radii by luminosity in deflectors.

    Parameters
    ----------
    stamps
        Cutouts.
    bands
        Their bands.
    count
        Lenses.
    rng
        The source of chance.
    radii
        Least and largest Einstein radius in arcsec.
    others
        More cutouts without a lens, as they are.
    survey
        Whose bands and camera they are.
    """
    rows = np.flatnonzero(stamps.deflector)
    drawn = draw_visible(stamps, rows, count, bands, rng, radii, "luminosity", survey)
    lensed = add_light(stamps.images[drawn.row], drawn.arcs.images, electrons_of(bands, survey=survey), rng)
    plain = stamps if others is None else Stamps.joined([stamps, others])
    base = Stamps.joined([stamps.take(drawn.row), plain])
    images = np.concatenate([lensed, plain.images.astype(np.float32)])
    observation = Observation.of(images, bands, base.scale, base.noise, seeing=base.told_seeing)
    radius = np.concatenate([drawn.lenses.einstein_radius, np.full(len(plain), np.nan)])
    return LensTest(observation, np.arange(len(base)) < count, radius)


def mixed_test(
    stamps: Stamps, bands: str, mix: Mix, rng: np.random.Generator, survey: str = "sdss"
) -> LensTest:
    """Make a test of examples mixed as those learnt: what calibrated chances are calibrated for.

    Parameters
    ----------
    stamps, bands, rng, survey
        See `injected_test`.
    mix
        How many of what.
    """
    examples = make_examples(stamps, bands, mix, rng, survey)
    images = examples.images(np.arange(len(examples)), torch.Generator().manual_seed(0)).numpy()
    base = examples.base
    seen = Observation.of(
        images, bands, stamps.scale[base], stamps.noise[base], seeing=stamps.told_seeing[base]
    )
    return LensTest(seen, examples.lens, examples.radius.astype(np.float64))


def evaluate_lenses(bundle: Bundle, test: LensTest, mixed: LensTest | None = None) -> LensEvaluation:
    """Score a bundle and the arc filter on the same objects.

    Parameters
    ----------
    bundle
        The bundle.
    test
        Lenses and others.
    mixed
        What the reliability of chances is measured on: examples mixed as those learnt. The test itself where
        there are none.

    Raises
    ------
    BundleError
        If the bundle is of another task, or needs other bands or cutouts.
    CatalogError
        If there are no lenses, or no others with a score.
    """
    if bundle.task != "lenses":
        raise BundleError(f"bundle {bundle.name!r} is for the task {bundle.task!r}, not 'lenses'")
    outputs = Engine(bundle).run(test.observation)
    calibration = bundle.calibration
    columns, _ = LensesTask().table(outputs, calibration, look(test.observation))
    refused = np.ma.getmaskarray(columns["lens_score"])
    chance = np.where(refused, 0.0, _calibrated(outputs, calibration, test.observation))
    learnt, stated = float(calibration["training_prevalence"]), float(calibration["prevalence"])
    score = shift_prevalence(chance, learnt, stated)
    lens, other = test.lens, ~test.lens & ~refused
    if not lens.any() or not other.any():
        raise CatalogError(
            f"{lens.sum()} lenses and {other.sum()} others with a score: both are needed to score a finder"
        )
    filtered = _arc_filter(test.observation)
    scores: dict[str, float] = {
        "lenses": float(lens.sum()),
        "others": float(other.sum()),
        "refused": float((~lens & refused).sum()),
    }
    large = test.radius[lens] > LARGE
    for name, values in (("network", chance), ("arc_filter", filtered)):
        scores |= _named(name, "", finder_scores(values[lens], values[other]))
        if large.any():
            scores |= _named(name, "_large", finder_scores(values[lens][large], values[other]))
    scores |= _intervals(scores, int(lens.sum()), int(large.sum()))
    scores |= _radius_scores(tempered(outputs[RADIUS][lens], calibration), test.radius[lens])
    diagrams = _diagrams(bundle, mixed, learnt, stated) if mixed else _weighed(chance, lens, learnt, stated)
    for name, diagram in zip(("reliability", "reliability_stated"), diagrams, strict=True):
        scores |= {name: diagram.deviation, f"{name}_noise": diagram.noise}
    return LensEvaluation(
        {name: round(value, 5) for name, value in scores.items()}, chance, score, filtered, diagrams
    )


def _diagrams(
    bundle: Bundle, mixed: LensTest, learnt: float, stated: float
) -> tuple[Reliability, Reliability]:
    outputs = Engine(bundle).run(mixed.observation)
    return _weighed(_calibrated(outputs, bundle.calibration, mixed.observation), mixed.lens, learnt, stated)


def _calibrated(
    outputs: Mapping[str, NDArray], calibration: Mapping[str, Any], seen: Observation
) -> NDArray[np.float64]:
    return calibrated_chance(outputs[LENS][:, 0], calibration, middle_seeing(seen.bands, seen.seeing))


def _weighed(
    chance: NDArray[np.float64], lens: NDArray[np.bool_], learnt: float, stated: float
) -> tuple[Reliability, Reliability]:
    """Return reliability with lenses and others weighed to each of two prevalences."""
    score = shift_prevalence(chance, learnt, stated)
    return reliability(chance, lens, learnt), reliability(score, lens, stated, _RARE_EDGES)


def _named(name: str, ending: str, scores: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{key}{ending}": value for key, value in scores.items()}


def _intervals(scores: Mapping[str, float], lenses: int, large: int) -> dict[str, float]:
    """Return the intervals of the network's shares of lenses found, from the number of lenses."""
    found: dict[str, float] = {}
    for ending, count in (("", lenses), ("_large", large)):
        for key in ("network_tpr0", "network_tpr_1e-3"):
            name = f"{key}{ending}"
            if name in scores:
                low, high = binomial_interval(round(scores[name] * count), count)
                found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def _arc_filter(seen: Observation) -> NDArray[np.float64]:
    if not {"g", "i"} <= set(seen.bands):
        return np.zeros(len(seen))
    return arc_filter(seen.images, seen.bands, seen.scale, seen.noise)


def _radius_scores(share: NDArray[np.floating], radius: NDArray[np.float64]) -> dict[str, Any]:
    """Return the median relative error of the Einstein radius, its scatter, and how honest its error is."""
    known = np.isfinite(radius)
    if not known.any():
        return {}
    low, middle, high = radius_quantiles(share[known].astype(np.float64), (0.16, 0.5, 0.84)).T
    relative = (middle - radius[known]) / radius[known]
    inside = (low < radius[known]) & (radius[known] < high)
    scatter = 1.4826 * np.median(np.abs(relative - np.median(relative)))
    return {
        "radius_bias": float(np.median(relative)),
        "radius_scatter": float(scatter),
        "radius_inside": float(inside.mean()),
    }
