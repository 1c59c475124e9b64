import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from gzscale.errors import BundleError, CatalogError, ConfigError
from gzscale.models.bundle import BundleGeometry, load_bundle, write_bundle
from gzscale.models.votes import QUESTIONS, to_joint
from gzscale.tasks.morphology import OUTPUT, MorphologyTask
from gzscale.training import members
from gzscale.training.augment import Augmentation
from gzscale.training.command import change
from gzscale.training.evaluate import evaluate_morphology
from gzscale.training.fit import Settings
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import Labels, folds
from gzscale.training.morphology import train_morphology
from gzscale.training.recipe import NETWORK, Recipe

SMALL = {**NETWORK, "widths": [2, 3], "blocks": [1, 1], "crop": 48, "size": 32}
QUICK = Settings(epochs=2, batch=16, augmentation=Augmentation(blur=0))
RECIPE = Recipe(
    members=2,
    sketches=64,
    sketch_fit=QUICK,
    fit=QUICK,
    network=SMALL,
    terms={"licence": "CC-BY-4.0", "cite": []},
)


@pytest.fixture(scope="module")
def labelled():
    return galaxies(60)


def galaxies(count):
    rng = np.random.default_rng(1)
    conditional = np.empty((count, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), count)
    single, double = np.zeros(count, np.float32), np.full(count, np.nan)
    names = tuple(str(number) for number in range(count))
    joint = to_joint(conditional).astype(np.float32)
    labels = Labels(names, joint, single + 40, double, double, single, Counter())
    labels = dataclasses.replace(labels, named_by="asset_id", kind="debiased")
    return LabelledSet(labels, rng.integers(0, 80, (count, 3, 96, 96), np.uint8))


@pytest.fixture(scope="module")
def trained(labelled, tmp_path_factory):
    return train_morphology(labelled, RECIPE, "trial-1", tmp_path_factory.mktemp("work"))


def test_the_bundle_says_what_it_is(trained, tmp_path):
    path = tmp_path / "b.safetensors"
    path.write_bytes(write_bundle(trained))
    loaded = load_bundle(path)
    assert loaded.network == "committee"
    assert loaded.training["galaxies"] == 60
    assert loaded.training["recipe"]["fit"]["epochs"] == 2
    assert loaded.scores == trained.scores
    assert loaded.scores["galaxies"] == 60
    assert np.array_equal(loaded.seen.numpy(), trained.seen.numpy())
    assert np.array_equal(loaded.seen_fold.numpy(), trained.seen_fold.numpy())
    assert len(loaded.calibration["vote_spread"]) == 11
    assert write_bundle(loaded) == path.read_bytes()


def test_the_bundle_says_where_it_comes_from(trained, labelled):
    assert trained.training["images"] == "not stated"
    assert trained.training["votes"] == "debiased"
    assert trained.training["named_by"] == "asset_id"
    assert trained.training["labels_sha256"] == labelled.labels.digest()
    assert trained.terms == {"licence": "CC-BY-4.0", "cite": []}
    assert "search" not in trained.training


def test_the_scores_are_those_of_galaxies_not_learnt(trained, labelled):
    found = evaluate_morphology(trained, labelled)
    assert found.learnt == 60
    assert found.warning is None
    for level in ("68", "95"):  # intervals out of fold too
        assert found.scores[f"inside_{level}"] == pytest.approx(trained.scores[f"inside_{level}"], abs=0.01)
    assert set(found.intervals) == set(range(1, 12))
    for name in ("mean_rmse", "pca_forest_rmse"):
        assert found.scores[name] == trained.scores[name]
    # The weights of the bundle are rounded to float16.
    assert found.scores["network_rmse"] == pytest.approx(trained.scores["network_rmse"], abs=1e-3)
    fold = folds(labelled.labels.names, 2)
    from gzscale.models.engine import Engine

    pictures = labelled.pictures[fold == 1].transpose(0, 2, 3, 1)
    (alone,) = Engine(trained.member(1)).run_pictures([np.ascontiguousarray(pictures)])
    np.testing.assert_allclose(found.predicted[fold == 1], alone[OUTPUT], atol=1e-6)


def test_galaxies_that_none_has_learnt_are_the_committee_s(trained, labelled):
    others = renamed(labelled, pictures=labelled.pictures[:, :, ::-1].copy())
    found = evaluate_morphology(trained, others)
    assert found.learnt == 0
    assert not np.allclose(found.predicted, evaluate_morphology(trained, labelled).predicted, atol=1e-4)


def renamed(labelled, **changes):
    names = tuple(f"new{i}" for i in range(len(labelled)))
    labels = dataclasses.replace(labelled.labels, names=names, named_by="GalaxyID")
    return dataclasses.replace(labelled, labels=labels, **changes)


def test_galaxies_that_were_learnt_under_another_name_are_recognised(trained, labelled):
    found = evaluate_morphology(trained, renamed(labelled))
    assert found.learnt == 60
    assert "named by asset_id, these by GalaxyID" in found.warning
    np.testing.assert_array_equal(found.predicted, evaluate_morphology(trained, labelled).predicted)


def test_a_bundle_that_looks_at_another_field_is_not_scored(trained, labelled):
    for geometry, words in (
        (BundleGeometry(64, "0.08 * size"), "needs cutouts of 64"),
        (BundleGeometry(96, 0.396), "pictures show"),
    ):
        with pytest.raises(BundleError, match=words):
            evaluate_morphology(dataclasses.replace(trained, geometry=geometry), labelled)


def test_one_network_is_not_scored_on_what_it_has_learnt(trained, labelled):
    single = dataclasses.replace(trained.member(0), seen=trained.seen)
    with pytest.raises(BundleError, match="has learnt 60 of these 60"):
        evaluate_morphology(single, labelled)
    with pytest.raises(BundleError, match="no member 2"):
        trained.member(2)


def test_killed_between_members_and_started_again(trained, labelled, tmp_path, monkeypatch):
    # One process at a time, so that the kill comes at a known place.
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def kill(stage, line):
        if stage == "member 2 of 2" and line.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_morphology(labelled, RECIPE, "trial-1", tmp_path, kill)
    stages = []
    again = train_morphology(labelled, RECIPE, "trial-1", tmp_path, lambda stage, _: stages.append(stage))
    torch.set_num_threads(threads)
    assert set(stages) == {"member 2 of 2"}
    assert again.scores["network_rmse"] == pytest.approx(trained.scores["network_rmse"], abs=2e-3)


def test_too_few_labels(labelled, tmp_path):
    few = LabelledSet(labelled.labels.take(np.arange(49)), labelled.pictures[:49])
    with pytest.raises(CatalogError, match="49 labelled"):
        train_morphology(few, RECIPE, "x", tmp_path)


def test_an_image_unlike_all_others_is_flagged(trained, labelled):
    from gzscale.models.engine import Engine

    pictures = np.ascontiguousarray(labelled.pictures.transpose(0, 2, 3, 1))
    strange = np.zeros((1, 96, 96, 3), np.uint8)
    strange[:, 20:76, 20:76] = 255
    (outputs,) = Engine(trained).run_pictures([np.concatenate([pictures, strange])])
    values, finite = MorphologyTask().table(outputs, trained.calibration)
    assert finite.all()
    assert values["unlike_training"][-1]
    assert values["unlike_training"][:-1].mean() < 0.1


def test_settings_are_changed_by_their_names():
    recipe = change(change(RECIPE, "fit.epochs", "7"), "fit.augmentation.zoom", "0")
    assert (recipe.fit.epochs, recipe.fit.augmentation.zoom) == (7, 0.0)
    assert change(RECIPE, "network.dropout", "0.4").network["dropout"] == 0.4
    assert change(RECIPE, "terms.licence", "MIT").terms == {"licence": "MIT", "cite": []}
    assert change(RECIPE, "fit.loss", "squared").fit.loss == "squared"
    for key, value, words in (
        ("fit.epoch", "7", "no such setting"),
        ("fit.epochs", "many", "expected int"),
        ("fit.loss", "guess", "dirichlet"),
        ("fit.batch", "0", "at least 1"),
        ("fit.augmentation.noise", "-1", "0 or more"),
        ("network", "5", "expected dict"),
        ("fit", "5", "needs a part"),
        ("members.two", "5", "has no parts"),
    ):
        with pytest.raises(ConfigError, match=words):
            change(RECIPE, key, value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("members", "1", "at least 2"),
        ("sketches", "-1", "0 or more"),
        ("faint", "1.5", "a share"),
        ("sketch_fit.patience", "3", "no sketches are held back"),
        ("network.foo", "1", "does not take"),
        ("network.crop", "200", "at most 96"),
        ("network.crop", "47", "an even number"),
        ("network.size", "36", "a multiple of 8"),
        ("network.channels", "5", "pictures have 3"),
        ("network.widths", "[]", "0 widths"),
        ("network.widths", "many", "network"),
        ("network.spread", "0", "above 0"),
        ("network.mean", "grey", "expected a number"),
        ("network.dropout", "2", "dropout"),
        ("network.heads", "{}", "expected a tree head"),
    ],
)
def test_a_recipe_that_cannot_be_trained(key, value, words):
    RECIPE.check()
    with pytest.raises(ConfigError, match=words):
        change(RECIPE, key, value).check()


def test_patience_without_a_galaxy_to_go_by_is_refused(labelled, tmp_path, monkeypatch):
    """A member would have gone by the fold that it is scored on."""
    monkeypatch.setattr(members, "WATCHED_SHARE", 0.0)
    patient = dataclasses.replace(RECIPE, fit=dataclasses.replace(QUICK, patience=2))
    with pytest.raises(ConfigError, match=r"of 60 galaxies none is left for member 0 to go by"):
        train_morphology(labelled, patient, "trial-1", tmp_path)


def test_patience_goes_by_galaxies_of_no_fold_that_is_scored(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    asked = []

    def watch(network, known, settings, *, held_back=None, **others):
        asked.append((known.rows, held_back.rows))
        return network.eval()

    monkeypatch.setattr(members, "fit", watch)
    patient = dataclasses.replace(RECIPE, members=3, fit=dataclasses.replace(QUICK, patience=2))
    members.learn_members(labelled, patient, "x", tmp_path)
    fold = folds(labelled.labels.names, 3)
    for number, (known, held_back) in enumerate(asked):
        assert 0 < len(held_back) < 0.25 * len(known)
        assert not set(known) & set(held_back)
        assert {*known, *held_back} == set(np.flatnonzero(fold != number))
    asked.clear()
    members.learn_members(labelled, dataclasses.replace(patient, fit=QUICK), "x", tmp_path)
    for number, (known, held_back) in enumerate(asked):
        assert np.array_equal(known, np.flatnonzero(fold != number))
        assert np.array_equal(held_back, np.flatnonzero(fold == number))
