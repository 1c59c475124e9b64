"""The whole recipe, small: from a store and a table to a bundle that measures and says how sure it is."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from toy_stamps import write_store

from gzscale.cli import main
from gzscale.errors import BundleError, CatalogError
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation
from gzscale.tasks.redshift_pdf import recalibrate, summarise
from gzscale.tasks.redshifts import RedshiftsTask, grid
from gzscale.tasks.seen import look
from gzscale.training.loop import Epoch
from gzscale.training.photoz_metrics import kolmogorov_smirnov, pit_values, residuals, sigma_mad
from gzscale.training.redshift_command import evaluate_redshift_bundle
from gzscale.training.redshift_fit import fit_calibration
from gzscale.training.redshift_labels import read_redshifts
from gzscale.training.redshifts import Recipe, margin_of, split_stamps, train_redshifts
from gzscale.training.stamps import read_stamps

SETTINGS = {
    "network": json.dumps(
        {"side": 32, "crop": 32, "width": 32, "body": {"widths": [4, 8], "blocks": [1, 1]},
         "heads": {"pdf": {"kind": "pdf", "bins": 40}}}
    ),
    "fit.pace.epochs": "2",
    "fit.pace.batch": "32",
    "fit.warm.pace.epochs": "30",
    "fit.warm.pace.batch": "64",
    "fit.warm.views": "1",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle that the command line has trained, and what it printed."""
    folder = tmp_path_factory.mktemp("redshifts")
    write_store(folder, 700)
    output = folder / "own.safetensors"
    command = [
        "train",
        "redshifts",
        "--labels",
        str(folder / "labels.parquet"),
        "--images",
        str(folder),
        "-o",
        str(output),
    ]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder, output, done.output


def test_it_learns_what_the_stamps_tell(trained):
    _, output, text = trained
    bundle = load_bundle(output)
    assert bundle.task == "redshifts"
    assert bundle.scores["image_sigma_mad"] < 0.05
    assert bundle.scores["image_galaxies"] > 120
    assert {"neighbours_crps", "perceptron_crps"} <= set(bundle.scores)
    assert "700 galaxies with a redshift and a stamp; not used: none" in text
    assert all(word in text for word in ("image", "neighbours", "perceptron", "sigma_mad", "pit_ks"))
    taught = sum(bundle.training["galaxies"][side] for side in ("learnt", "calibrating"))
    assert len(bundle.seen) == taught
    assert output.with_name("own.safetensors.curve.csv").read_text().count("\n") == 33


def test_the_engine_and_the_task_say_what_was_scored(trained):
    folder, output, _ = trained
    bundle = load_bundle(output)
    redshift, images = write_store(folder / "new", 200, seed=9, first=5000)
    noise = np.tile(np.array([0.02, 0.01, 0.015, 0.02, 0.06], np.float32), (200, 1))
    labels = read_redshifts(folder / "new" / "labels.parquet", 0.4)
    observed = Observation(images, "ugriz", np.full(200, 0.396), noise, labels.extinction)
    outputs = Engine(bundle, "cpu").run(observed)
    values, finite = RedshiftsTask().table(outputs, bundle.calibration, look(observed))
    assert finite.all()
    assert sigma_mad(residuals(values["z_median"].filled(np.nan), redshift)) < 0.06
    # Without u the answers differ, and still mean something.
    blind = replace(observed, images=images[:, 1:], bands="griz", noise=noise[:, 1:])
    without = summarise(Engine(bundle, "cpu").run(blind)["pdf"], grid(bundle.calibration))
    assert np.isfinite(without.mean).all()


def test_evaluation_leaves_out_what_was_learnt_and_prints_both(trained):
    folder, output, _ = trained
    write_store(folder / "more", 120, seed=5, first=9000)
    command = [
        "evaluate",
        str(output),
        "--labels",
        str(folder / "more" / "labels.parquet"),
        "--images",
        str(folder / "more"),
    ]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert all(word in done.output for word in ("image", "neighbours", "perceptron", "outliers"))
    story, lines = evaluate_redshift_bundle(
        load_bundle(output), str(folder / "labels.parquet"), str(folder), "sky"
    )
    assert story["scores"]["image"]["galaxies"] == 700 - story["learnt"]
    assert any("left out" in line for line in lines)


def test_killed_and_started_again_gives_the_same_bundle(tmp_path):
    write_store(tmp_path, 300)
    recipe = Recipe()
    network = json.loads(SETTINGS["network"])
    pace = replace(recipe.fit.pace, epochs=2, batch=64)
    warm = replace(recipe.fit.warm, views=1, pace=replace(recipe.fit.warm.pace, epochs=2, batch=64))
    recipe = replace(recipe, network=network, fit=replace(recipe.fit, pace=pace, warm=warm))
    labels = read_redshifts(tmp_path / "labels.parquet", 0.4)
    stamps = read_stamps(labels, str(tmp_path), "sky", "ugriz", "gr", 64, margin_of(recipe))

    class KilledError(Exception):
        pass

    def kill(stage: str, line: Epoch) -> None:
        if stage == "redshifts" and line.epoch == 1:
            raise KilledError

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gzscale.training.loop.CHECKPOINT_EVERY", 0.0)
        whole = train_redshifts(stamps, recipe, "x", tmp_path / "a")
        with pytest.raises(KilledError):
            train_redshifts(stamps, recipe, "x", tmp_path / "b", kill)
        again = train_redshifts(stamps, recipe, "x", tmp_path / "b")
    assert whole.calibration == again.calibration
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_too_few_galaxies_and_a_bundle_of_another_task(trained, tmp_path):
    write_store(tmp_path, 60)
    command = [
        "train",
        "redshifts",
        "--labels",
        str(tmp_path / "labels.parquet"),
        "--images",
        str(tmp_path),
        "-o",
        str(tmp_path / "x"),
    ]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "at least 500 are needed" in done.output
    _, output, _ = trained
    with pytest.raises(CatalogError, match="at least 50"):
        evaluate_redshift_bundle(load_bundle(output), str(tmp_path / "labels.parquet"), str(tmp_path), "sky")
    other = replace(load_bundle(output), task="morphology")
    with pytest.raises(BundleError, match="morphology"):
        evaluate_redshift_bundle(other, "none", "none", "sky")


def test_a_galaxy_never_changes_sides(trained):
    folder, _, _ = trained
    labels = read_redshifts(folder / "labels.parquet", 0.4)
    whole = read_stamps(labels, str(folder), "sky", "ugriz", "gr", 64, 36)
    half = read_stamps(labels.take(np.arange(0, 700, 2)), str(folder), "sky", "ugriz", "gr", 64, 36)
    sides = [_sides(stamps) for stamps in (whole, half)]
    assert all(sides[0][number] == side for number, side in sides[1].items())
    shares = [list(sides[0].values()).count(side) / 700 for side in range(3)]
    np.testing.assert_allclose(shares, [0.65, 0.1, 0.25], atol=0.06)


def _sides(stamps):
    split, numbers = split_stamps(stamps), stamps.labels.object_id
    parts = (split.learn, split.calibrate, split.test)
    return {number: side for side, rows in enumerate(parts) for number in numbers[rows].tolist()}


def test_calibration_finds_a_temperature_and_makes_pit_uniform():
    rng = np.random.default_rng(3)
    edges = np.linspace(0, 0.4, 81)
    middle = (edges[1:] + edges[:-1]) / 2
    mean = rng.uniform(0.1, 0.3, 8000)
    truth = rng.normal(mean + 0.003, 0.02)
    narrow = np.exp(-(((middle - mean[:, None]) / 0.01) ** 2) / 2)
    narrow /= narrow.sum(axis=1, keepdims=True)
    temperature, pit = fit_calibration(narrow[:4000], edges, truth[:4000])
    assert temperature == pytest.approx(math.exp(0.7), rel=0.01)  # four would be right: the bound
    again = recalibrate(narrow[4000:], temperature, pit)
    assert kolmogorov_smirnov(pit_values(narrow[4000:], edges, truth[4000:])) > 0.1
    assert kolmogorov_smirnov(pit_values(again, edges, truth[4000:])) < 0.04
