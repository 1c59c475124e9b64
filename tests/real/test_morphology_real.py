"""Colours against SDSS's own JPEG, and the shipped bundle on galaxies that it never saw."""

import bz2
import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from gzscale.folder import predict_folder
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import from_flux
from gzscale.models.shipped import shipped
from gzscale.models.votes import QUESTIONS
from gzscale.tasks.morphology import OUTPUT, MorphologyTask
from gzscale.training.evaluate import evaluate_morphology
from gzscale.training.label_tables import read_labels
from gzscale.training.labelled import LabelledSet, read_labelled
from gzscale.training.labels import folds
from gzscale.training.learnt import learnt_folds

pytestmark = pytest.mark.real


@pytest.fixture
def zoo(real_data):
    return real_data / "galaxy-zoo-2"


def frame(real_data, band):
    path = f"sdss/eboss/photoObj/frames/301/3918/3/frame-{band}-003918-3-0213.fits.bz2"
    data = bz2.decompress((real_data / path).read_bytes())
    with fits.open(io.BytesIO(data)) as units:
        return units[0].data.astype(np.float32), WCS(units[0].header)


def on_grid_of(reference, pixels, wcs):
    """Resample linearly onto another frame's pixels; an affine map between the two is exact to 0.01 pixel."""
    ny, nx = pixels.shape
    gx, gy = (axis.ravel() for axis in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 7)))
    px, py = wcs.world_to_pixel_values(*reference.pixel_to_world_values(gx, gy))
    terms = np.stack([np.ones_like(gx), gx, gy], axis=1)
    x, y = (np.linalg.lstsq(terms, axis, rcond=None)[0] for axis in (px, py))
    my, mx = np.mgrid[:ny, :nx]
    column, row = x[0] + x[1] * mx + x[2] * my, y[0] + y[1] * mx + y[2] * my
    left = np.clip(np.floor(column).astype(int), 0, nx - 2)
    below = np.clip(np.floor(row).astype(int), 0, ny - 2)
    u, v = np.clip(column - left, 0, 1), np.clip(row - below, 0, 1)
    lower = pixels[below, left] * (1 - u) + pixels[below, left + 1] * u
    upper = pixels[below + 1, left] * (1 - u) + pixels[below + 1, left + 1] * u
    return (lower * (1 - v) + upper * v).astype(np.float32)


def test_colours_are_those_of_sdss_own_jpeg(real_data):
    """Median absolute difference in levels of 255: 4 to the JPEG, 2 once ours is compressed like it."""
    reference = frame(real_data, "r")[1]
    flux = np.stack([on_grid_of(reference, *frame(real_data, band)) for band in "irg"])
    shown = from_flux(torch.from_numpy(flux[None]), torch.tensor([0.396]), "irg")[0].numpy()
    ours = np.clip(np.floor(shown.transpose(1, 2, 0)[::-1] * 256), 0, 255).astype(np.uint8)
    with Image.open(real_data / "sdss/extras/frame-irg-003918-3-0213.jpg") as image:
        theirs = np.asarray(image).astype(int)
        buffer = io.BytesIO()
        Image.fromarray(ours).save(buffer, "JPEG", qtables=image.quantization, subsampling="4:2:0")
    compressed = np.asarray(Image.open(buffer)).astype(int)
    raw = np.median(np.abs(ours.astype(int) - theirs))
    like = np.median(np.abs(compressed - theirs))
    bright = theirs.max(axis=2) > 40
    at_bright = np.median(np.abs(compressed - theirs)[bright])
    print(f"median absolute difference: {raw} raw, {like} compressed alike, {at_bright} where bright")
    assert raw <= 4
    assert like <= 2
    assert at_bright <= 4
    assert np.median(np.abs(compressed[::-1] - theirs)) > like  # the orientation matters


def test_shipped_bundle_on_galaxies_that_its_members_never_saw(zoo):
    labelled = read_labelled(read_labels(zoo / "votes.csv"), zoo / "images")
    bundle = load_bundle(shipped("morphology"))
    found = evaluate_morphology(bundle, labelled)
    print(found.scores)
    assert found.learnt == len(labelled) == 687
    assert found.scores["network_rmse"] == pytest.approx(bundle.scores["network_rmse"], abs=1e-3)
    assert found.scores["network_rmse"] < 0.6 * found.scores["pca_forest_rmse"]
    assert found.warning is None
    for kind in ("inside", "resolved"):
        assert found.scores[f"{kind}_68"] == pytest.approx(0.68, abs=0.03)
        assert found.scores[f"{kind}_95"] == pytest.approx(0.95, abs=0.02)
    for number, part in found.intervals.items():
        # Answers of a galaxy hang together: the error is that of so many galaxies, not answers.
        galaxies = part["resolved"] / (QUESTIONS[number - 1].stop - QUESTIONS[number - 1].start)
        for level in (0.68, 0.95):
            error = np.sqrt(level * (1 - level) / galaxies)
            assert part[f"resolved_{round(100 * level)}"] == pytest.approx(level, abs=0.02 + 2.5 * error)


def test_galaxies_that_the_shipped_bundle_has_learnt_are_known_by_any_name(zoo):
    """The same galaxies by their catalog identifiers, and by nothing but their pictures."""
    labelled = read_labelled(read_labels(zoo / "votes.csv"), zoo / "images")
    bundle = load_bundle(shipped("morphology"))
    expected = folds(labelled.labels.names, 5)
    np.testing.assert_array_equal(learnt_folds(bundle, labelled), expected)
    catalog = dataclasses.replace(labelled.labels, names=labelled.labels.object_names, object_names=())
    darker = labelled.pictures // 2
    np.testing.assert_array_equal(learnt_folds(bundle, LabelledSet(catalog, darker)), expected)
    unknown = dataclasses.replace(catalog, names=tuple(f"x{name}" for name in catalog.names))
    assert (learnt_folds(bundle, LabelledSet(unknown, darker)) == -1).all()
    by_picture = learnt_folds(bundle, LabelledSet(unknown, labelled.pictures))
    np.testing.assert_array_equal(by_picture, expected)


def test_pictures_of_no_galaxy_are_unlike_the_training_set(zoo):
    labelled = read_labelled(read_labels(zoo / "votes.csv"), zoo / "images")
    bundle = load_bundle(shipped("morphology"))
    galaxies = np.ascontiguousarray(labelled.pictures[::3].transpose(0, 2, 3, 1))
    rng = np.random.default_rng(0)
    noise = rng.normal(8, 5, (20, 96, 96, 3)).clip(0, 255).astype(np.uint8)
    trails = galaxies[:20].copy()
    trails[:, 45:47] = 255
    kinds = {"galaxies": galaxies, "noise": noise, "negatives": 255 - galaxies[:20], "trails": trails}
    flagged = {}
    for name, pictures in kinds.items():
        (outputs,) = Engine(bundle).run_pictures([pictures])
        flagged[name] = float(
            MorphologyTask().table(outputs, bundle.calibration)[0]["unlike_training"].mean()
        )
    print(flagged)
    assert flagged["galaxies"] <= 0.04
    assert min(flagged[name] for name in ("noise", "negatives", "trails")) > 0.95


def test_votes_stay_when_the_image_is_turned_or_shifted(zoo):
    labelled = read_labelled(read_labels(zoo / "votes.csv"), zoo / "images")
    engine = Engine(load_bundle(shipped("morphology")))
    pictures = np.ascontiguousarray(labelled.pictures[::4].transpose(0, 2, 3, 1))

    def votes(images):
        (outputs,) = engine.run_pictures([np.ascontiguousarray(images)])
        return outputs[OUTPUT]

    def apart(other):
        return float(np.sqrt(np.mean(np.square(other - straight))))

    straight = votes(pictures)
    turned = [
        apart(votes(np.rot90(view, turns, (1, 2))))
        for view in (pictures, pictures[:, :, ::-1])
        for turns in range(4)
    ]
    shifted = [apart(votes(np.roll(pictures, 2 * step, axis))) for axis in (1, 2) for step in (-1, 1)]
    print(f"turned: {max(turned):.5f}; shifted by 2 pixels: {max(shifted):.4f}")
    assert max(turned) < 0.01
    assert max(shifted) < 0.02


def test_both_label_tables_say_the_same(zoo):
    made = read_labels(zoo / "fractions37_weighted.csv")
    votes = read_labels(zoo / "votes.csv")
    assert made.names == votes.names
    np.testing.assert_allclose(made.joint, votes.joint, atol=1e-5)


def test_folder_of_pictures(zoo, tmp_path):
    paths = sorted((zoo / "images").glob("*.jpg"))[:12]
    result = predict_folder("morphology", paths, tmp_path / "t.csv", scheme="kaggle")
    table = pd.read_csv(tmp_path / "t.csv", dtype={"GalaxyID": str})
    assert result.done == result.found == 12
    assert sorted(table["GalaxyID"]) == sorted(path.stem for path in paths)
