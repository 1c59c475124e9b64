import contextlib
import dataclasses

import pytest
from test_training_morphology import RECIPE, galaxies

from gzscale.errors import ConfigError, StorageError
from gzscale.models.bundle import write_bundle
from gzscale.training import search
from gzscale.training.search import _open_study, search_settings
from gzscale.training.search_space import own_settings, suggest, with_settings
from gzscale.training.start import complete, train_sketches

PRESET = "kind: local\nworkers: 1\n"
#: A cluster that cannot be opened: nothing is left to try.
NOWHERE = "tcp://nowhere:1"


@pytest.fixture
def cluster(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(PRESET)
    return str(path)


@pytest.fixture(scope="module")
def labelled():
    return galaxies(60)


def scores(lines):
    return [float(line.split("RMSE ")[1].split()[0]) for line in lines if line.startswith("trial")]


@pytest.mark.slow
def test_the_best_trial_is_chosen_and_a_search_goes_on_where_it_was(labelled, tmp_path, cluster):
    journal = tmp_path / "search.journal"
    _, first = search_settings(labelled, RECIPE, 2, journal, cluster)
    assert len(first) == 3
    # A kill in the middle of the third trial leaves it under way in the journal.
    _open_study(labelled, RECIPE, journal).ask()
    recipe, lines = search_settings(labelled, RECIPE, 3, journal, cluster)
    assert lines[:2] == first[:2]
    assert len(scores(lines)) == 3
    assert f"RMSE {min(scores(lines)):.4f}" in lines[-1]
    assert recipe.search["trials"] == 3
    assert recipe.search["best_rmse"] == pytest.approx(min(scores(lines)), abs=1e-4)
    again, same = search_settings(labelled, RECIPE, 3, journal, NOWHERE)
    assert (again, same) == (recipe, lines)
    # What is printed sets the same on the command line.
    from gzscale.training.command import changed

    pairs = lines[-1].split(" --set ")[1:]
    assert dataclasses.replace(changed(RECIPE, pairs), search=recipe.search) == recipe


def test_what_was_tried_with_another_recipe_does_not_count(labelled, tmp_path):
    journal = tmp_path / "search.journal"
    study = _open_study(labelled, RECIPE, journal)
    study.tell(study.ask(), 0.1)
    other = dataclasses.replace(RECIPE, members=3)
    assert [trial.value for trial in _open_study(labelled, RECIPE, journal).trials] == [0.1]
    assert [trial.value for trial in _open_study(labelled, other, journal).trials] == [None]


def test_no_trial_can_be_done(labelled, tmp_path, cluster):
    small = dataclasses.replace(RECIPE, network={**RECIPE.network, "size": 4})
    with pytest.raises(ConfigError, match=r"none of 2 trials could be done.*a multiple of"):
        search_settings(labelled, small, 2, tmp_path / "search.journal", cluster)


@pytest.mark.slow
def test_workers_need_not_reach_the_start(labelled, tmp_path, cluster, monkeypatch):
    path = tmp_path / "start.safetensors"
    path.write_bytes(write_bundle(train_sketches(RECIPE, "start", tmp_path / "work")))
    recipe = dataclasses.replace(RECIPE, start=str(path), sketches=0)
    opened, kept = search.open_cluster, path.read_bytes()

    @contextlib.contextmanager
    def without_it(name):
        path.unlink()
        with opened(name) as found:
            yield found
        path.write_bytes(kept)

    monkeypatch.setattr(search, "open_cluster", without_it)
    found, lines = search_settings(labelled, recipe, 1, tmp_path / "search.journal", cluster)
    assert len(scores(lines)) == 1
    assert found.start == str(path)
    assert set(found.search["best"]) == {"dropout", "rate", "decay", "batch"}


def test_the_first_trial_may_lie_outside_what_is_usually_proposed(labelled, tmp_path):
    recipe = dataclasses.replace(
        RECIPE,
        fit=dataclasses.replace(RECIPE.fit, batch=24, rate=0.2),
        network={**RECIPE.network, "dropout": 0.6},
    )
    trial = _open_study(labelled, recipe, tmp_path / "journal").ask()
    assert with_settings(recipe, suggest(trial, recipe)).fit == recipe.fit


def test_widths_keep_the_recipe_s_proportions():
    def widths(**changes):
        return with_settings(RECIPE, {**own_settings(RECIPE), **changes}).network["widths"]

    assert widths() == RECIPE.network["widths"] == [2, 3]
    assert widths(width=4) == [4, 6]
    assert widths(stages=3) == [2, 3, 6]
    assert widths(stages=1, width=5) == [5]


def test_a_recipe_that_leaves_out_what_the_network_has_by_itself():
    plain = {name: RECIPE.network[name] for name in ("heads", "crop", "size")}
    recipe = dataclasses.replace(RECIPE, network=plain)
    own = own_settings(recipe)
    assert with_settings(recipe, own).network["widths"] == complete(plain)["widths"]
    assert own["width"] == complete(plain)["widths"][0]


@pytest.mark.parametrize(
    ("fit", "network", "words"),
    [
        ({"decay": 0.0}, {}, r"fit\.decay=0: .*above 0"),
        ({}, {"widths": [2, 4], "blocks": [1, 2]}, r"blocks=\[1, 2\].*as many blocks"),
    ],
)
def test_a_recipe_that_would_never_be_proposed(labelled, tmp_path, fit, network, words):
    recipe = dataclasses.replace(
        RECIPE, fit=dataclasses.replace(RECIPE.fit, **fit), network={**RECIPE.network, **network}
    )
    with pytest.raises(ConfigError, match=words):
        search_settings(labelled, recipe, 1, tmp_path / "journal", NOWHERE)


@pytest.mark.slow
def test_a_full_disk_costs_no_trial(labelled, tmp_path, cluster, monkeypatch):
    journal = tmp_path / "search.journal"

    def full(*_):
        raise StorageError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(search, "try_recipe", full)
        with pytest.raises(StorageError, match="trial 0: no room"):
            search_settings(labelled, RECIPE, 1, journal, cluster)
    found, lines = search_settings(labelled, RECIPE, 1, journal, cluster)
    assert len(scores(lines)) == 1
    # It was the recipe itself that found no room.
    assert found.search["best"] == own_settings(RECIPE)
