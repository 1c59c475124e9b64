"""Lens finders: examples, the lesson, calibration, recipe, command and labels, all small."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from click.testing import CliRunner
from small_lenses import SETTINGS as SMALL
from test_inject import SCALE, SEEING, red_galaxies, write_store

from gzscale.cli import main
from gzscale.errors import CatalogError
from gzscale.models.bundle import load_bundle
from gzscale.models.inputs import SDSS_REDDENING, FluxInputs
from gzscale.models.network import build_network
from gzscale.sky.stamps import read_stamps
from gzscale.tasks.lenses import LENS, RADIUS, RADIUS_EDGES, radius_bin
from gzscale.training.arc_filter import arc_filter
from gzscale.training.lens_command import evaluate_lens_bundle
from gzscale.training.lens_evaluate import injected_test
from gzscale.training.lens_examples import Mix, _natural_weights, make_examples
from gzscale.training.lens_fit import LensLesson, LensViews
from gzscale.training.lens_labels import read_labelled_lenses, read_lens_labels
from gzscale.training.lens_visible import draw_visible

INPUTS = FluxInputs("gri", "gri", (0.1, 0.17, 0.3), tuple(SDSS_REDDENING[band] for band in "gri"))
SETTINGS = (*SMALL, "tested=8")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), red_galaxies(30))


@pytest.fixture(scope="module")
def stamps(store):
    return read_stamps([str(store)], "gri")[0]


@pytest.fixture(scope="module")
def examples(stamps):
    return make_examples(stamps, "gri", Mix(lenses=24), np.random.default_rng(1))


def test_half_of_the_examples_are_lenses(examples):
    assert len(examples) == 48
    assert examples.lens.sum() == 24
    assert np.isfinite(examples.radius[examples.lens]).all()
    assert np.isnan(examples.radius[~examples.lens]).all()
    assert (examples.added[examples.lens] >= 0).all()
    # Of the others some have a mimic, some are bare.
    assert 0 < (examples.added[~examples.lens] >= 0).sum() < 24


def test_half_of_the_examples_of_every_image_are_lenses(stamps):
    # Of the second image only one galaxy is a deflector, the third has none.
    deflector = stamps.deflector & (np.arange(len(stamps)) < 11)
    source = np.repeat(["a", "b", "c"], 10)
    several = replace(stamps, source=source, deflector=deflector)
    found = make_examples(several, "gri", Mix(lenses=24), np.random.default_rng(1))
    image = source[found.base]
    for name in ("a", "b"):
        assert found.lens[image == name].mean() == 0.5
    assert (image != "c").all()


def test_there_need_not_be_mimics(stamps):
    found = make_examples(stamps, "gri", Mix(lenses=20, mimics=0.0), np.random.default_rng(1))
    assert len(found.light) == 20
    assert (found.added[~found.lens] == -1).all()


def test_a_share_of_the_mimics_are_crowds(stamps):
    mix = Mix(lenses=20, mimics=1.0, deflectors=0.0, crowds=0.25)
    found = make_examples(stamps, "gri", mix, np.random.default_rng(1))
    plain = make_examples(stamps, "gri", replace(mix, crowds=0.0), np.random.default_rng(1))
    assert len(found.light) == len(plain.light) == 40
    np.testing.assert_array_equal(found.light[:20], plain.light[:20])
    # A crowd's light lies all over the cutout, an arc's or a mimic's near the galaxy.
    rim = np.ones(found.light.shape[-2:], bool)
    rim[12:-12, 12:-12] = False
    light = found.light.astype(np.float32)
    share = light[..., rim].sum(axis=(1, 2)) / light.sum(axis=(1, 2, 3))
    assert (share[-5:] > 0.4).all()
    assert np.median(share[:-5]) < 0.2


def test_a_few_stars_lie_over_lenses_and_others_alike(stamps):
    mix = Mix(lenses=200, mimics=0.5, deflectors=0.5, crowds=0.1)
    plain = make_examples(stamps, "gri", mix, np.random.default_rng(1))
    found = make_examples(stamps, "gri", replace(mix, stars=0.25), np.random.default_rng(1))
    for name in ("base", "lens", "radius"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))

    def light(examples):
        drawn = np.concatenate([examples.light, np.zeros_like(examples.light[:1])]).astype(np.float32)
        return drawn[examples.added]

    more = light(found) - light(plain)
    starry = (more != 0).any(axis=(1, 2, 3))
    assert starry.sum() == pytest.approx(100, abs=1)
    assert more.sum(axis=(1, 2, 3))[starry].min() > 0
    assert found.lens[starry].mean() == pytest.approx(0.5, abs=0.15)
    bare = plain.added < 0
    assert starry[bare].mean() == pytest.approx(0.25, abs=0.1)
    assert starry[~bare & ~found.lens].mean() == pytest.approx(0.25, abs=0.1)
    # Each light is that of one example.
    assert len(np.unique(found.added[found.added >= 0])) == (found.added >= 0).sum() == len(found.light)


def test_weighted_radii_are_as_frequent_as_luminosities_have_them():
    rng = np.random.default_rng(1)
    radius = np.r_[rng.uniform(0.7, 4, 3000), 0.7 + rng.exponential(0.3, 2000)].astype(np.float32)
    weight = _natural_weights(radius, 3000).astype(np.float64)
    assert weight.sum() == pytest.approx(len(radius), rel=1e-5)
    edges = RADIUS_EDGES[[3, 7, 11, 15, 21]]
    found = np.histogram(radius, edges, weights=weight)[0] / weight.sum()
    np.testing.assert_allclose(found, np.histogram(radius[3000:], edges)[0] / 2000, atol=1e-6)
    assert (_natural_weights(radius, 0) == 1).all()


def test_images_are_base_and_light(examples):
    rows = np.arange(len(examples))
    images = examples.images(rows, torch.Generator().manual_seed(1)).numpy()
    base = examples.stamps.images[examples.base].astype(np.float32)
    bare = examples.added < 0
    np.testing.assert_array_equal(images[bare], base[bare])
    added = (images - base)[~bare].sum(axis=(2, 3))
    drawn = examples.light[examples.added[~bare]].astype(np.float32).clip(0).sum(axis=(2, 3))
    assert np.median(np.abs(added / drawn - 1)) < 0.05
    again = examples.images(rows, torch.Generator().manual_seed(2)).numpy()
    assert (again[~bare] != images[~bare]).any()


def test_every_visible_lens_is_what_it_says(stamps):
    rows = np.flatnonzero(stamps.deflector)
    drawn = draw_visible(stamps, rows, 12, "gri", np.random.default_rng(2), (0.8, 3.0), "uniform")
    assert len(drawn.row) == 12
    assert drawn.arcs.visible("gri").all()
    assert set(drawn.row) <= set(rows)


def test_nothing_visible_is_an_error(stamps, monkeypatch):
    monkeypatch.setattr("gzscale.training.lens_visible._TRIES", 2)
    with pytest.raises(CatalogError, match="can be seen"):
        draw_visible(stamps, np.arange(3), 5, "gri", np.random.default_rng(2), (0.8, 0.8001), "luminosity")


def test_loss_is_cross_entropy(examples):
    lesson = LensLesson(examples, INPUTS, (48, 32), LensViews(radius_weight=0.5))
    chosen = np.arange(len(examples))
    chance = np.linspace(0.1, 0.9, len(examples))
    share = np.random.default_rng(1).dirichlet(np.ones(len(RADIUS_EDGES) - 1), len(examples))
    outputs = {LENS: torch.from_numpy(chance[:, None]).float(), RADIUS: torch.from_numpy(share).float()}
    lens = examples.lens
    expected = -np.mean(np.log(np.where(lens, chance, 1 - chance)))
    bins = radius_bin(examples.radius[lens])
    weight = examples.radius_weight[lens]
    expected -= 0.5 * np.mean(weight * np.log(share[lens][np.arange(lens.sum()), bins]))
    assert float(lesson.loss(outputs, chosen)) == pytest.approx(expected, rel=1e-5)


def test_views_are_shifted_by_whole_pixels(examples):
    lesson = LensLesson(examples, INPUTS, (48, 48), LensViews(shift=0, brightness=0.0, colour=0.0))
    still = LensLesson(examples, INPUTS, (48, 48), LensViews(shift=3, brightness=0.0, colour=0.0))
    bare = np.flatnonzero(examples.added < 0)[:4]
    device = torch.device("cpu")
    first = lesson.views(bare, torch.Generator().manual_seed(1), device)
    moved = still.views(bare, torch.Generator().manual_seed(1), device)
    assert first.shape == moved.shape == (4, 6, 48, 48)
    assert not torch.equal(first, moved)
    wide = LensLesson(examples, INPUTS, (54, 54), LensViews(shift=0, brightness=0.0, colour=0.0))
    whole = wide.views(bare, torch.Generator().manual_seed(1), device)
    for one, all_of_it in zip(moved, whole, strict=True):
        parts = all_of_it.unfold(1, 48, 1).unfold(2, 48, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any(torch.equal(one, part) for part in parts)


def test_arc_filter_prefers_blue_arcs_on_red_galaxies(stamps):
    test = injected_test(stamps, "gri", 20, np.random.default_rng(3), (1.5, 3.5))
    score = arc_filter(test.observation.images, "gri", test.observation.scale, test.observation.noise)
    assert np.median(score[test.lens]) > 2 * np.median(score[~test.lens])
    blue = red_galaxies(3, "gri")
    blue[:, 0] *= 8
    assert (arc_filter(blue, "gri", np.full(3, SCALE), np.full((3, 3), 0.03)) == 0).all()
    dark = np.full((1, 3, 64, 64), np.nan)
    assert arc_filter(dark, "gri", np.full(1, SCALE), np.full((1, 3), 0.03))[0] == 0


def train(*arguments):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return CliRunner().invoke(main, ["train", "lenses", *settings, *map(str, arguments)])


def test_command_trains_and_evaluates(store, tmp_path):
    other = write_store(tmp_path / "other", red_galaxies(24, seed=5), first_id=500)
    path = tmp_path / "lenses.safetensors"
    # Two networks, each in a process of its own where there are two cores.
    run = train("--images", store, "--images", other, "-o", path, "--set", "members=2")
    assert run.exit_code == 0, run.output
    bundle = load_bundle(path)
    assert bundle.network == "committee"
    assert bundle.task == "lenses"
    assert bundle.bands == "gri"
    assert bundle.geometry.size == 64
    assert "injections" in bundle.training["data"]
    expected = {"slope", "offset", "training_prevalence", "prevalence", "usual_noise", "saturation"}
    assert set(bundle.calibration) == expected | {"radius_temperature"}
    assert bundle.calibration["saturation"] == dict.fromkeys("gri", 100.0)
    assert bundle.calibration["training_prevalence"] == 0.5
    lines = (tmp_path / "lenses.safetensors.curve.csv").read_text().splitlines()
    assert lines[0].startswith("stage,")
    assert sorted(line.split(",")[0] for line in lines[1:]) == ["member 1 of 2", "member 2 of 2"]
    assert not (tmp_path / "lenses.safetensors.work").exists()
    picture = tmp_path / "scores.png"
    arguments = ["evaluate", path, "--images", store, "--json", "--picture", picture]
    run = CliRunner().invoke(main, [str(item) for item in arguments])
    assert run.exit_code == 0, run.output
    assert picture.stat().st_size > 5000
    scores = json.loads(run.output)["scores"]
    assert {"network_auroc", "arc_filter_auroc", "network_tpr_1e-3", "reliability"} <= set(scores)
    assert scores["network_tpr0_low"] <= scores["network_tpr0"] <= scores["network_tpr0_high"]
    # More others, of which those with a saturated core have no score.
    bright = red_galaxies(24, seed=5)
    bright[:4, :, 32, 32] = 150
    more = write_store(tmp_path / "more", bright, first_id=900)
    told = evaluate_lens_bundle(bundle, [str(store)], None, others=[str(more)], lenses=30)[0]["scores"]
    assert (told["others"], told["refused"]) == (scores["others"] + 20, 4)


def test_labels_of_a_survey_replace_injections(store, tmp_path):
    ids = 100 + np.arange(30)
    table = pa.table({"OBJID": ids, "Lens": (ids % 2 == 0).astype(int)})
    pa.csv.write_csv(table, tmp_path / "labels.csv")
    assert read_lens_labels(str(tmp_path / "labels.csv"))[100] is True
    path = tmp_path / "new" / "own.safetensors"
    run = train("--images", store, "--labels", tmp_path / "labels.csv", "-o", path)
    assert run.exit_code == 0, run.output
    assert load_bundle(path).training["data"] == "images with labels"
    arguments = ["evaluate", path, "--images", store, "--labels", tmp_path / "labels.csv"]
    run = CliRunner().invoke(main, [str(item) for item in arguments])
    assert run.exit_code == 0, run.output
    assert "15 lenses, 15 others" in run.output


def test_labels_that_cannot_be_used_are_named(store, tmp_path):
    def labels(**columns):
        pa.csv.write_csv(pa.table(columns), tmp_path / "t.csv")
        return str(tmp_path / "t.csv")

    with pytest.raises(CatalogError, match="is 2"):
        read_lens_labels(labels(object_id=[1, 2], lens=[1, 2]))
    with pytest.raises(CatalogError, match="is_lens"):
        read_lens_labels(labels(object_id=[1, 2], grade=[1, 0]))
    with pytest.raises(CatalogError, match="none of its 1 objects"):
        read_labelled_lenses(str(store), labels(object_id=[7], lens=[1]), "gri")
    with pytest.raises(CatalogError, match="--labels"):
        read_labelled_lenses(str(store), None, "gri")


def test_lens_head_learns_what_arcs_look_like(examples):
    """A few steps on a few examples bring the loss down."""
    torch.manual_seed(1)
    parameters = {
        "channels": 6,
        "widths": [2, 4],
        "blocks": [1, 1],
        "heads": {LENS: "lens", RADIUS: {"kind": "pdf", "bins": len(RADIUS_EDGES) - 1}},
        "mean": 0.0,
        "spread": 2.0,
        "dropout": 0.0,
    }
    network = build_network("equivariant", parameters).train()
    lesson = LensLesson(examples, INPUTS, (48, 32), LensViews())
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(1)
    chosen = np.arange(len(examples))
    losses = []
    for _ in range(25):
        views = lesson.views(chosen, generator, torch.device("cpu"))
        loss = lesson.loss(network(views), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])


def test_seeing_of_the_store_is_used(stamps):
    assert stamps.seeing.mean() == pytest.approx(SEEING, rel=0.1)
