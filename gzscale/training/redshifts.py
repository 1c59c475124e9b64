"""The recipe of a redshift bundle, from labelled stamps to a calibrated network with its scores.

1. Galaxies are parted by a hash of their identifier: a tenth calibrates, a quarter tests, the rest is
   learnt; a galaxy never changes sides.
2. The network learns PDFs (`gzscale.training.redshift_fit`), of its measurements first.
3. The tenth gives the temperature and the distribution of PIT values that make the PDFs as wide as they
   should be.
4. The quarter gives the scores, beside those of two methods that know the colours alone, which learn and are
   calibrated on the same galaxies (`gzscale.training.colours`).

Killed and started again with the same working folder, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.inputs import REDDENING, FluxInputs
from gzscale.models.photometric import PhotometricNetwork
from gzscale.sky.rubin_camera import saturation
from gzscale.tasks.redshift_pdf import recalibrate
from gzscale.tasks.redshifts import OUTPUT
from gzscale.training.colours import METHODS, colour_features
from gzscale.training.ending import half_weights
from gzscale.training.labels import name_hashes, positions
from gzscale.training.loop import Epoch, learn
from gzscale.training.photoz_metrics import score_pdfs
from gzscale.training.redshift_fit import RedshiftLesson, RedshiftSettings, fit_calibration, predict_pdfs
from gzscale.training.stamps import StampSet
from gzscale.training.warm_start import warm_start

__all__ = ["RECIPES", "Recipe", "Split", "margin_of", "split_stamps", "train_redshifts"]

#: Shares of the galaxies that test and that calibrate.
TEST, CALIBRATE = 0.25, 0.1
#: Galaxies held back that are scored while the network learns.
WATCHED = 2048
_TERMS = {"weights": "BSD-3-Clause"}


def _network() -> dict[str, Any]:
    return {
        "side": 48,
        "crop": 48,
        "dropout": 0.1,
        "body": {"kind": "residual", "widths": [32, 64, 128], "blocks": [1, 1, 1]},
        "heads": {OUTPUT: {"kind": "pdf", "bins": 180, "hidden": 256}},
    }


@dataclass(frozen=True)
class Recipe:
    """What is made, and how.

    Attributes
    ----------
    survey
        Whose filters they are: a key of `RECIPES`.
    bands, required
        Bands that the network sees, and those that an object must have; the last of ``required`` is the
        reference of the colours-only methods.
    size, scale
        Geometry: pixels, and arcsec a pixel.
    limit
        End of the grid of redshifts; it has as many bins as the head (Pasquet et al. 2019: 180 to 0.4).
    reddening
        Extinction in magnitudes per E(B-V) of each band.
    saturation
        Nanomaggies of a pixel above which a band is not measured well.
    network
        Parameters of a `gzscale.models.photometric.PhotometricNetwork`.
    fit
        How it learns.
    """

    survey: str = "sdss"
    bands: str = "ugriz"
    required: str = "gr"
    size: int = 64
    scale: float = 0.396
    limit: float = 0.4
    reddening: dict[str, float] = field(default_factory=lambda: dict(REDDENING["sdss"]))
    saturation: dict[str, float] = field(default_factory=lambda: dict.fromkeys("ugriz", 100.0))
    network: dict[str, Any] = field(default_factory=_network)
    fit: RedshiftSettings = field(default_factory=RedshiftSettings)

    @property
    def bins(self) -> int:
        """Number of bins of the grid."""
        return int(self.network["heads"][OUTPUT]["bins"])

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, shape (bins + 1,)."""
        return np.linspace(0.0, self.limit, self.bins + 1)


def _rubin() -> Recipe:
    """Return the recipe for a year's coadds of six bands: r < 23, most of it below redshift 1.3.

    Bins are 0.0075 wide, a third of the scatter or less. Saturation is that of a visit, as the mask's.
    """
    network = _network() | {"bands": 6}
    network["heads"] = {OUTPUT: {"kind": "pdf", "bins": 200, "hidden": 256}}
    return replace(
        Recipe(),
        survey="rubin",
        bands="ugrizy",
        required="ir",
        scale=0.2,
        limit=1.5,
        reddening=dict(REDDENING["rubin"]),
        saturation={band: round(saturation(band), 1) for band in "ugrizy"},
        network=network,
        fit=replace(RedshiftSettings(), pace=replace(RedshiftSettings().pace, epochs=9)),
    )


#: Survey -> what its training starts from.
RECIPES = {"sdss": Recipe(), "rubin": _rubin()}


@dataclass(frozen=True)
class Split:
    """Rows that are learnt, that calibrate, and that test."""

    learn: NDArray[np.int64]
    calibrate: NDArray[np.int64]
    test: NDArray[np.int64]


def margin_of(recipe: Recipe) -> int:
    """Return the side in pixels of the stamps that the recipe keeps: the network's, and room for shifts."""
    return int(recipe.network["side"]) + 2 * recipe.fit.views.shift


def split_stamps(stamps: StampSet) -> Split:
    """Part galaxies by the hash of their identifier."""
    place = positions(stamps.labels.names)
    side = np.digitize(place, [TEST, TEST + CALIBRATE])
    return Split(*(np.flatnonzero(side == number) for number in (2, 1, 0)))


def train_redshifts(
    stamps: StampSet,
    recipe: Recipe,
    name: str,
    work: Path,
    progress: Callable[[str, Epoch], None] | None = None,
) -> Bundle:
    """Train a bundle.

    Parameters
    ----------
    stamps
        Read with the recipe's bands and sizes.
    recipe
        What is made, and how.
    name
        Of the model, with its version.
    work
        Folder for checkpoints.
    progress
        Called after each epoch with the name of the stage.

    Returns
    -------
    Bundle
        With the scores on the galaxies that test.
    """
    split, edges = split_stamps(stamps), recipe.edges
    inputs = _inputs(stamps, split.learn, recipe)
    lesson = RedshiftLesson(stamps, split.learn, split.calibrate[:WATCHED], inputs, edges, recipe.fit)
    network = _learn(lesson, recipe, work, progress)
    truth = stamps.labels.redshift
    held_back = predict_pdfs(network, stamps, split.calibrate, inputs)
    temperature, pit = fit_calibration(held_back, edges, truth[split.calibrate])
    found = recalibrate(predict_pdfs(network, stamps, split.test, inputs), temperature, pit)
    told = {"image": score_pdfs(found, edges, truth[split.test]), **colours_only(stamps, split, recipe)}
    scores = {
        f"{method}_{key}": round(value, 6) for method, all_ in told.items() for key, value in all_.items()
    }
    reference = recipe.bands.index(recipe.required[-1])
    calibration = {
        "limit": recipe.limit,
        "bins": recipe.bins,
        "temperature": temperature,
        "pit": pit,
        "bands": recipe.bands,
        "reference": recipe.required[-1],
        "flux": [
            float(f"{x:.4g}") for x in np.nanquantile(stamps.summed[split.learn, reference], (0.0005, 0.9995))
        ],
        "saturation": recipe.saturation,
    }
    return _bundle(network, stamps, split, inputs, recipe, name, calibration, scores)


def _learn(
    lesson: RedshiftLesson, recipe: Recipe, work: Path, progress: Callable[[str, Epoch], None] | None
) -> Network:
    def named(stage: str) -> Callable[[Epoch], None] | None:
        return None if progress is None else lambda line: progress(stage, line)

    settings = recipe.fit
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.pace.seed)
        network = PhotometricNetwork(**recipe.network)
        first, second = work / "measured.safetensors", work / "redshifts.safetensors"
        warm_start(network, lesson, settings.warm, settings.pace.seed, first, named("measurements"))
        return learn(network, lesson, settings.pace, checkpoint=second, progress=named("redshifts"))


def colours_only(stamps: StampSet, split: Split, recipe: Recipe) -> Mapping[str, Mapping[str, float]]:
    """Score the methods that know the colours alone, calibrated as the network is.

    Returns
    -------
    dict[str, dict[str, float]]
        Method -> see `gzscale.training.photoz_metrics.score_pdfs`.
    """
    reddening = [recipe.reddening[band] for band in recipe.bands]
    reference = recipe.bands.index(recipe.required[-1])
    features = colour_features(stamps.flux, stamps.observation.extinction, reddening, reference)
    truth, edges = stamps.labels.redshift, recipe.edges
    asked = np.concatenate([split.calibrate, split.test])
    scores = {}
    for name, method in METHODS.items():
        found = method(features[split.learn], truth[split.learn], features[asked], edges)
        held_back, tested = np.split(found, [len(split.calibrate)])
        calibrated = recalibrate(tested, *fit_calibration(held_back, edges, truth[split.calibrate]))
        scores[name] = score_pdfs(calibrated, edges, truth[split.test])
    return scores


def _inputs(stamps: StampSet, rows: NDArray[np.int64], recipe: Recipe) -> FluxInputs:
    """Soften at the usual noise of a pixel of the galaxies that are learnt."""
    noise = stamps.observation.noise[rows] / np.square(stamps.observation.scale[rows, None])
    softening = np.nanmedian(np.where(noise > 0, noise, np.nan), axis=0)
    softening = np.where(np.isfinite(softening), softening, np.nanmedian(softening))
    return FluxInputs(
        recipe.bands,
        recipe.required,
        tuple(float(f"{value:.3g}") for value in softening),
        tuple(recipe.reddening[band] for band in recipe.bands),
        recipe.scale,
        recipe.survey,
    )


def _bundle(
    network: Network,
    stamps: StampSet,
    split: Split,
    inputs: FluxInputs,
    recipe: Recipe,
    name: str,
    calibration: dict[str, Any],
    scores: dict[str, float],
) -> Bundle:
    names = stamps.labels.names
    taught = np.concatenate([split.learn, split.calibrate])
    centres = (recipe.edges[1:] + recipe.edges[:-1]) / 2
    return Bundle(
        task="redshifts",
        name=name,
        network="photometric",
        parameters=recipe.network,
        geometry=BundleGeometry(recipe.size, recipe.scale),
        inputs=inputs,
        symmetries=1,
        outputs={OUTPUT: [f"{centre:.5f}" for centre in centres]},
        training={
            "galaxies": {
                "learnt": len(split.learn),
                "calibrating": len(split.calibrate),
                "testing": len(split.test),
            },
            "refused": dict(stamps.labels.refused),
            "split": "by the first 64 bits of SHA-256 of the identifier: the lowest quarter tests",
            "recipe": {"fit": asdict(recipe.fit)},
        },
        scores=scores,
        terms=_TERMS,
        tensors=half_weights(network.state_dict()),
        calibration=calibration,
        seen=torch.from_numpy(np.sort(name_hashes([names[row] for row in taught]).view(np.int64))),
    )
