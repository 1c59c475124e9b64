"""What ``gzscale train redshifts`` and ``gzscale evaluate`` do: from paths to a bundle and lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gzscale.errors import BundleError, CatalogError
from gzscale.models.bundle import Bundle
from gzscale.models.inputs import FluxInputs
from gzscale.tasks.redshift_pdf import recalibrate
from gzscale.tasks.redshifts import grid
from gzscale.training.colours import METHODS, colour_features
from gzscale.training.command import Curve, changed
from gzscale.training.ending import beside, finish, require_place
from gzscale.training.labels import LEAST_LABELS, folds, name_hashes
from gzscale.training.photoz_metrics import score_pdfs
from gzscale.training.redshift_fit import predict_pdfs
from gzscale.training.redshift_labels import read_redshifts
from gzscale.training.redshifts import RECIPES, margin_of, train_redshifts
from gzscale.training.stamps import StampSet, read_stamps

__all__ = ["Evaluation", "evaluate_redshift_bundle", "evaluate_redshifts", "train_redshift_bundle"]

#: What is printed of each method's scores.
_SHOWN = ("sigma_mad", "bias", "outliers", "pit_ks", "pit_cvm", "crps", "inside_68", "inside_95")


@dataclass(frozen=True)
class Evaluation:
    """How well a bundle does.

    Attributes
    ----------
    scores
        Method (``image``, and those that know the colours alone) -> its scores, see
        `gzscale.training.photoz_metrics.score_pdfs`.
    learnt
        Galaxies that the bundle had learnt: they are left out.
    """

    scores: Mapping[str, Mapping[str, float]]
    learnt: int


def train_redshift_bundle(
    labels: str,
    images: str,
    geometry: str,
    output: str,
    name: str,
    settings: Sequence[str] = (),
    survey: str = "sdss",
) -> Iterator[str]:
    """Train a redshift bundle and write it, with its learning curve beside it.

    Parameters
    ----------
    labels
        See `gzscale.training.redshift_labels.read_redshifts`.
    images, geometry
        A cutout store, and which of its cutouts: see `gzscale.training.stamps.read_stamps`.
    output
        Path or URL of the bundle. Checkpoints lie in ``<output>.work`` until it is written, the learning
        curve in ``<output>.curve.csv``; those of a URL here, by its last part.
    name
        Name of the model.
    settings
        ``key=value`` for any key of `gzscale.training.redshifts.Recipe`, dotted.
    survey
        Whose recipe is taken: see `gzscale.training.redshifts.RECIPES`.

    Yields
    ------
    str
        Lines for the user.

    Raises
    ------
    CatalogError
        If there are too few galaxies.
    BundleError
        If the cutouts are of another scale than the recipe's.
    """
    require_place(output)
    recipe = changed(RECIPES[survey], settings)
    known = read_redshifts(labels, recipe.limit)
    stamps = read_stamps(
        known, images, geometry, recipe.bands, recipe.required, recipe.size, margin_of(recipe)
    )
    yield _account(stamps)
    _require_enough(stamps, "training", 10 * LEAST_LABELS)
    _require_scale(stamps, recipe.scale)
    work = beside(output, "work")
    work.mkdir(parents=True, exist_ok=True)
    bundle = train_redshifts(
        stamps, recipe, name, work, Curve(beside(output, "curve.csv"), "CRPS").begun().add
    )
    finish(bundle, output, work)
    methods = ("image", *METHODS)
    yield from _table(
        {
            method: {
                key.removeprefix(f"{method}_"): value
                for key, value in bundle.scores.items()
                if key.startswith(f"{method}_")
            }
            for method in methods
        }
    )
    yield output


def evaluate_redshift_bundle(
    bundle: Bundle, labels: str, images: str, geometry: str
) -> tuple[dict[str, Any], list[str]]:
    """Score a bundle; return the scores and lines for the user. See `train_redshift_bundle`."""
    inputs = _inputs_of(bundle)
    known = read_redshifts(labels, grid(bundle.calibration)[-1])
    side = int(bundle.parameters["side"])
    stamps = read_stamps(known, images, geometry, inputs.bands, inputs.required, bundle.geometry.size, side)
    found = evaluate_redshifts(bundle, stamps)
    story = {"scores": found.scores, "learnt": found.learnt, "refused": dict(stamps.labels.refused)}
    lines = [_account(stamps)]
    if found.learnt:
        lines.append(f"{found.learnt} of them were learnt, and are left out")
    return story, [*lines, *_table(found.scores)]


def evaluate_redshifts(bundle: Bundle, stamps: StampSet) -> Evaluation:
    """Score a bundle on galaxies that it has not learnt, beside what their colours alone tell.

    The methods that know the colours alone learn these same galaxies, in five folds: each galaxy is
    predicted by what has learnt the others.

    Raises
    ------
    BundleError
        If the bundle is of another task.
    CatalogError
        If there are fewer than 50 galaxies.
    """
    inputs, edges = _inputs_of(bundle), grid(bundle.calibration)
    hashes = name_hashes(stamps.labels.names).view(np.int64)
    learnt = np.isin(hashes, bundle.seen.numpy()) if bundle.seen is not None else np.zeros(len(stamps), bool)
    rows = np.flatnonzero(~learnt)
    _require_enough(stamps, "evaluation", LEAST_LABELS, len(rows))
    truth = stamps.labels.redshift[rows]
    raw = predict_pdfs(bundle.build(), stamps, rows, inputs)
    found = recalibrate(raw, float(bundle.calibration["temperature"]), bundle.calibration["pit"])
    scores = {"image": score_pdfs(found, edges, truth)}
    reference = inputs.bands.index(str(bundle.calibration["reference"]))
    features = colour_features(
        stamps.flux[rows], stamps.observation.extinction[rows], inputs.reddening, reference
    )
    fold = folds([stamps.labels.names[row] for row in rows])
    for method, predict in METHODS.items():
        guessed = np.empty_like(found)
        for number in np.unique(fold):
            known, asked = fold != number, fold == number
            guessed[asked] = predict(features[known], truth[known], features[asked], edges)
        scores[method] = score_pdfs(guessed, edges, truth)
    return Evaluation(scores, int(learnt.sum()))


def _inputs_of(bundle: Bundle) -> FluxInputs:
    if bundle.task != "redshifts" or not isinstance(bundle.inputs, FluxInputs):
        raise BundleError(f"bundle {bundle.name!r} is for the task {bundle.task!r}, not 'redshifts'")
    return bundle.inputs


def _require_scale(stamps: StampSet, scale: float) -> None:
    found = stamps.observation.scale
    if not np.allclose(found, scale, rtol=1e-6):
        raise BundleError(
            f"cutouts of {found.min():g} to {found.max():g} arcsec a pixel; {scale:g} are needed: take "
            "another geometry, give --survey, or --set scale"
        )


def _require_enough(stamps: StampSet, what: str, least: int, count: int | None = None) -> None:
    number = len(stamps) if count is None else count
    if number < least:
        raise CatalogError(f"{what}: {_account(stamps)}; {number} can be used, at least {least} are needed")


def _account(stamps: StampSet) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(stamps.labels.refused.items()))
    return f"{len(stamps)} galaxies with a redshift and a stamp; not used: {refused or 'none'}"


def _table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the scores of each method in a column, with their bootstrap errors."""
    lines = [f"{'':<12}" + "".join(f"{method:>22}" for method in scores)]
    for key in _SHOWN:
        cells = []
        for told in scores.values():
            error = f" ± {told[f'{key}_error']:.5f}" if f"{key}_error" in told else ""
            cells.append(f"{told[key]:.5f}{error}")
        lines.append(f"{key:<12}" + "".join(f"{cell:>22}" for cell in cells))
    return lines
