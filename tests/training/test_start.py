"""What morphology's members start from: a bundle of a network that has learnt sketches."""

import dataclasses
import errno

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_training_morphology import galaxies

from gzscale.cli import main
from gzscale.errors import BundleError, ConfigError, StorageError
from gzscale.models.bundle import load_bundle, write_bundle
from gzscale.models.network import build_network
from gzscale.models.shipped import shipped
from gzscale.training import search
from gzscale.training.command import train_bundle
from gzscale.training.fit import Settings, fit, predict, rmse
from gzscale.training.members import examples_of
from gzscale.training.recipe import NETWORK, Recipe
from gzscale.training.search import try_recipe
from gzscale.training.search_space import own_settings, with_settings
from gzscale.training.start import starting_weights, train_sketches

SMALL = {**NETWORK, "widths": [2, 3], "blocks": [1, 1], "crop": 48, "size": 32}
RECIPE = Recipe(sketches=64, sketch_fit=Settings(epochs=1, batch=16), network=SMALL)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    path = folder / "start.safetensors"
    path.write_bytes(write_bundle(train_sketches(RECIPE, "sketches-test", folder / "work")))
    return path


def test_members_start_with_its_weights(start, tmp_path):
    recipe = dataclasses.replace(RECIPE, start=str(start), sketches=0)
    found, kept = starting_weights(recipe, tmp_path, None), load_bundle(start).tensors
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name].float()) for name in kept)
    assert not list(tmp_path.iterdir())


def test_sketches_are_learnt_from_there_on(start, tmp_path):
    recipe = dataclasses.replace(RECIPE, start=str(start))
    found, kept = starting_weights(recipe, tmp_path, None), load_bundle(start).tensors
    apart = [float((found[name] - kept[name].float()).abs().max()) for name in kept if "weight" in name]
    assert 0 < max(apart) < 1


def test_another_network_cannot_start_from_it(start, tmp_path):
    for change in ({"widths": [2, 4]}, {"crop": 64}, {"kernel": 5}):
        recipe = Recipe(start=str(start), sketches=0, network={**SMALL, **change})
        with pytest.raises(ConfigError, match=next(iter(change))):
            starting_weights(recipe, tmp_path, None)
    same = Recipe(
        start=str(start), sketches=0, network={**SMALL, "dropout": 0.3, "kernel": 3, "widths": (2, 3)}
    )
    starting_weights(same, tmp_path, None)
    # Before any label is read.
    with pytest.raises(ConfigError, match="leaving start out"):
        list(
            train_bundle("no.csv", "none", "debiased", None, "x", "x", ["network.crop=48", f"start={start}"])
        )


def test_a_bundle_that_has_learnt_galaxies_is_no_start(start, tmp_path):
    with pytest.raises(ConfigError, match="not 'sketches'"):
        starting_weights(Recipe(start=str(shipped("morphology"))), tmp_path, None)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(start.read_bytes()[:-1])
    with pytest.raises(BundleError):
        starting_weights(Recipe(start=str(damaged)), tmp_path, None)


def test_it_is_no_bundle_of_a_task(start, tmp_path):
    Image.new("RGB", (424, 424)).save(tmp_path / "1.jpg")
    words = ["predict", "morphology", str(tmp_path), "-o", str(tmp_path / "x.csv"), "--bundle", str(start)]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert "is for the task 'sketches', not 'morphology'" in told.output


def test_a_search_keeps_the_start_and_its_network():
    recipe = Recipe(start="s.safetensors", sketches=0)
    own = own_settings(recipe)
    assert set(own) == {"dropout", "rate", "decay", "batch"}
    found = with_settings(recipe, {**own, "dropout": 0.4, "rate": 0.01})
    assert (found.start, found.sketches) == (recipe.start, 0)
    assert found.network == {**recipe.network, "dropout": 0.4}
    assert (found.fit.rate, found.fit.batch) == (0.01, recipe.fit.batch)


def test_a_trial_begins_as_the_training_would(start, tmp_path):
    learnt = dataclasses.replace(RECIPE, members=2, start=str(start), sketches=0)
    examples = examples_of(galaxies(24))
    still = dataclasses.replace(learnt, fit=Settings(epochs=1, batch=16, rate=1e-9, head_rate=1e-9))
    # Weights that say the same of every galaxy: drawn at random they would not.
    kept = {name: tensor.float() for name, tensor in load_bundle(start).tensors.items()}
    bias = next(name for name in kept if "vote_fractions" in name and name.endswith("bias"))
    kept[bias] = torch.where(torch.arange(37) % 2 == 0, 9.0, -9.0)
    network = build_network("equivariant", SMALL)
    network.load_state_dict(kept)
    expected = rmse(predict(network.eval(), examples), examples.joint)
    assert try_recipe(still, kept, examples, examples) == pytest.approx(expected, abs=0.01)
    assert abs(try_recipe(still, None, examples, examples) - expected) > 0.05


def test_the_first_trial_is_the_recipe_itself():
    recipe = Recipe(sketch_fit=Settings(epochs=3, rate=0.011, decay=0.07))
    assert with_settings(recipe, own_settings(recipe)).sketch_fit == recipe.sketch_fit
    faster = with_settings(recipe, {**own_settings(recipe), "rate": 3 * recipe.fit.rate})
    assert faster.sketch_fit.rate == pytest.approx(0.033)


def test_a_trial_learns_a_part_of_what_the_training_would(monkeypatch):
    seen = []
    learn = search.learn_from
    monkeypatch.setattr(search, "learn_from", lambda *given: seen.append(given) or learn(*given))
    recipe = dataclasses.replace(
        RECIPE, sketch_fit=Settings(epochs=3, batch=16), fit=Settings(epochs=8, batch=16)
    )
    fits = []
    monkeypatch.setattr(search, "fit", lambda *given: fits.append(given) or fit(*given))
    examples = examples_of(galaxies(24))
    try_recipe(recipe, None, examples, examples)
    ((_, tried, _),) = seen
    assert (tried.sketches, tried.sketch_fit.epochs) == (16, 1)
    ((_, _, settings),) = fits
    assert settings.epochs == 2


def test_what_was_tried_from_other_weights_does_not_count(start, tmp_path):
    labelled = galaxies(60)
    recipe = Recipe(members=2, start=str(tmp_path / "s"), sketches=0, network=SMALL)
    (tmp_path / "s").write_bytes(start.read_bytes())
    study = search._open_study(labelled, recipe, tmp_path / "journal")
    study.tell(study.ask(), 0.1)
    assert len(search._open_study(labelled, recipe, tmp_path / "journal").trials) == 1
    other = train_sketches(dataclasses.replace(RECIPE, sketches=32), "other", tmp_path / "work")
    (tmp_path / "s").write_bytes(write_bundle(other))
    trials = search._open_study(labelled, recipe, tmp_path / "journal").trials
    assert [trial.value for trial in trials] == [None]


def test_a_disk_without_room_for_sketches(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        with pytest.raises(StorageError, match=r"no room for 0\.4 MB of 64 sketches.*No space left"):
            starting_weights(RECIPE, tmp_path, None)
    assert not list(tmp_path.rglob("*.npy"))
    starting_weights(RECIPE, tmp_path, None)


def test_the_command_draws_itsown_settings(tmp_path):
    output = tmp_path / "s.safetensors"
    sets = [
        "sketches=32",
        "sketch_fit.epochs=1",
        *(f"network.{key}={SMALL[key]}" for key in ("widths", "blocks", "crop", "size")),
    ]
    words = ["train", "sketches", "-o", str(output), *(word for one in sets for word in ("--set", one))]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert load_bundle(output).task == "sketches"
    assert (tmp_path / "s.safetensors.curve.csv").read_text().count("sketches") == 1
    nothing = CliRunner().invoke(
        main, ["train", "sketches", "-o", str(tmp_path / "n"), "--set", "sketches=0"]
    )
    assert "nothing to learn" in nothing.output
    assert not list(tmp_path.glob("n*"))
    refused = CliRunner().invoke(main, [*words, "--labels", "votes.csv"])
    assert refused.exit_code == 2
    with pytest.raises(ConfigError, match="nothing to learn"):
        train_sketches(dataclasses.replace(RECIPE, sketches=0), "x", tmp_path)
