"""Committees of lens finders: who learns which images, and what the members' chances are calibrated on."""

from dataclasses import replace

import numpy as np
import pytest
from small_lenses import SETTINGS
from test_inject import red_galaxies, write_store

from gzscale.errors import CatalogError, ConfigError
from gzscale.models.bundle import load_bundle, write_bundle
from gzscale.models.engine import Engine
from gzscale.models.network import build_network
from gzscale.sky.stamps import read_stamps
from gzscale.tasks.lenses import LENS, calibrated_chance
from gzscale.training import lens_members, lenses
from gzscale.training.command import changed
from gzscale.training.lens_calibration import Unseen, fit_calibration
from gzscale.training.lens_evaluate import mixed_test
from gzscale.training.lens_members import Lessons, learn_members, sides
from gzscale.training.lens_metrics import reliability
from gzscale.training.lens_recipe import LensRecipe

#: Two that learn fast, and so come to differ.
FAST = ("members=2", "pace.head_rate=0.3", "pace.epochs=3", "pace.memory=0.5")
RECIPE = changed(LensRecipe(), (*SETTINGS, *FAST))


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    store = write_store(tmp_path_factory.mktemp("store"), red_galaxies(24))
    found = read_stamps([str(store)], "gri")[0]
    return replace(found, source=np.array([f"image-{row % 6}" for row in range(24)]))


def test_each_image_is_kept_from_one_member(stamps):
    shares = sides(stamps, 3)
    assert len(shares) == 3
    assert (np.sum([back for _, back in shares], axis=0) == 1).all()
    for learnt, back in shares:
        assert (learnt != back).all()
        assert len(np.unique(stamps.source[back])) == 2
        assert not set(stamps.source[learnt]) & set(stamps.source[back])


def test_an_image_of_two_stores_is_kept_from_the_same_member(stamps):
    two = replace(stamps, location=np.repeat([0, 1], 12))
    for _, back in sides(two, 3):
        first, second = (set(two.source[back & (two.location == store)]) for store in (0, 1))
        assert first == second


def test_objects_of_few_images_are_dealt_out(stamps):
    one = replace(stamps, source=np.full(24, "image"))
    shares = sides(one, 3)
    assert (np.sum([back for _, back in shares], axis=0) == 1).all()
    assert all(0 < back.sum() < 24 for _, back in shares)
    (learnt, back), *none = sides(one, 1)
    assert not none
    assert np.array_equal(back, one.object_id % 9 == 0)
    assert (learnt != back).all()


def test_a_committee_is_the_mean_of_members_calibrated_on_what_each_has_not_learnt(
    stamps, tmp_path, monkeypatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(lens_members, "_FEWEST", 8)
    monkeypatch.setattr("gzscale.training.lens_examples._BLOCK", 48)
    made, shown = [], []
    make, learn = lens_members.make_examples, learn_members
    monkeypatch.setattr(
        lens_members, "make_examples", lambda some, *rest: shown.append(set(some.source)) or make(some, *rest)
    )
    monkeypatch.setattr(lenses, "learn_members", lambda *rest: made.extend(learn(*rest)) or made)
    bundle, _ = lenses.train_lenses(stamps, stamps.take(np.array([], int)), RECIPE, "c-1", tmp_path)
    # Each draws what it learns, what its learning curve shows, and what it is calibrated on.
    assert [len(some) for some in shown] == [3] * 6
    assert shown[0] == shown[4] == shown[5]
    assert shown[3] == shown[1] == shown[2]
    assert not shown[0] & shown[3]
    one, other = (member.unseen for member in made)
    found = fit_calibration(Unseen.joined([one, other]))
    assert {key: bundle.calibration[key] for key in found} == found
    assert bundle.training["calibrated_on"] == {"samples": 0, "sky": len(one) + len(other)}
    # The store says nothing of its images' seeing.
    assert not one.simulated.any()
    assert np.isnan(one.seeing).all()
    chances = [
        calibrated_chance(a.chance, fit_calibration(b), a.seeing) for a, b in ((one, other), (other, one))
    ]
    honest = reliability(np.concatenate(chances), np.concatenate([one.lens, other.lens]), 0.5)
    assert bundle.scores["reliability_unseen"] == pytest.approx(honest.deviation, abs=1e-5)
    path = tmp_path / "b.safetensors"
    path.write_bytes(write_bundle(bundle))
    loaded = load_bundle(path)
    assert loaded.network == "committee"
    seen = mixed_test(stamps, "gri", RECIPE.mix, np.random.default_rng(1)).observation
    each = [Engine(loaded.member(number)).run(seen)[LENS] for number in range(2)]
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(Engine(loaded).run(seen)[LENS], mean, atol=1e-3)
    assert np.abs(each[0] - mean).max() > 5e-3
    assert Engine(loaded).evidence(seen, LENS).shape[0] == len(seen)


def test_a_fold_in_which_no_lens_can_be_seen_is_left_to_the_others(stamps, monkeypatch):
    make, calls = lens_members.make_examples, []

    def blind(some, *rest):
        calls.append(len(some))
        if len(calls) == 2:
            raise CatalogError("0 of 8 lenses can be seen")
        return make(some, *rest)

    monkeypatch.setattr(lens_members, "make_examples", blind)
    lessons = Lessons(stamps, None, None, {})
    assert lens_members._examples(0, lessons, RECIPE, 1)[1] is None
    calls.clear()
    with pytest.raises(CatalogError, match="can be seen"):
        lens_members._examples(0, lessons, replace(RECIPE, members=1), 1)


@pytest.fixture
def lessons(stamps):
    """Half of the objects are a sample's, of all images."""
    parameters = lenses._parameters(RECIPE, lenses.side_of(stamps, RECIPE.extent))
    mixed = replace(stamps, simulated=stamps.object_id // 6 % 2 == 0)
    return Lessons(mixed, None, lenses._inputs(mixed, RECIPE), parameters)


def test_a_member_is_calibrated_on_as_much_of_the_sky_as_of_samples(lessons, monkeypatch):
    monkeypatch.setattr(lens_members, "_FEWEST", 8)
    network = build_network("equivariant", lessons.parameters).eval()
    unseen = lens_members._say_unseen(network, 0, lessons, RECIPE)
    # Half of what is learnt of each, half of that lenses.
    assert unseen.simulated.sum() == (~unseen.simulated).sum() == 24
    assert unseen.lens[unseen.simulated].sum() == unseen.lens[~unseen.simulated].sum() == 12
    again = lens_members._say_unseen(network, 0, lessons, RECIPE)
    np.testing.assert_array_equal(unseen.chance, again.chance)


def test_a_kind_in_which_no_lens_can_be_seen_calibrates_nothing(lessons, monkeypatch):
    monkeypatch.setattr(lens_members, "_FEWEST", 8)
    network = build_network("equivariant", lessons.parameters).eval()
    sky = replace(lessons.stamps, deflector=lessons.stamps.deflector & lessons.stamps.simulated)
    unseen = lens_members._say_unseen(network, 0, replace(lessons, stamps=sky), RECIPE)
    assert unseen.simulated.all()
    assert len(unseen) == 24

    def blind(*rest):
        raise CatalogError("0 of 8 lenses can be seen")

    monkeypatch.setattr(lens_members, "make_examples", blind)
    assert len(lens_members._say_unseen(network, 0, lessons, RECIPE)) == 0


def test_what_one_member_alone_says_of_the_sky_is_not_scored(lessons, monkeypatch):
    monkeypatch.setattr(lens_members, "_FEWEST", 8)
    network = build_network("equivariant", lessons.parameters).eval()
    first, second = (
        lens_members.Member(network, lens_members._say_unseen(network, number, lessons, RECIPE))
        for number in range(2)
    )
    samples = replace(second, unseen=second.unseen.take(second.unseen.simulated))
    assert set(lenses._unseen_scores([first, second])) == {"reliability_unseen", "reliability_unseen_noise"}
    assert lenses._unseen_scores([first, samples]) == {}
    assert lenses._calibrated_on([first, samples]) == {"samples": 48, "sky": 24}


def test_views_beyond_the_light_that_is_kept_are_refused(stamps, tmp_path):
    empty = stamps.take(np.array([], int))
    for settings in (["extent=24"], ["views.shift=5"]):
        with pytest.raises(ConfigError, match="within which light is added"):
            lenses.train_lenses(stamps, empty, changed(RECIPE, settings), "c", tmp_path)


def test_a_fold_without_what_is_needed_is_told(stamps, tmp_path):
    empty = stamps.take(np.array([], int))
    with pytest.raises(ConfigError, match="1 or more"):
        lenses.train_lenses(stamps, empty, replace(RECIPE, members=0), "c", tmp_path)
    with pytest.raises(ConfigError, match="calibrated on"):
        changed(RECIPE, ["pace.patience=2"]).check()
    none = replace(stamps, deflector=stamps.deflector & (stamps.object_id % 9 != 0))
    with pytest.raises(CatalogError, match="held back to calibrate"):
        lenses.train_lenses(none, empty, replace(RECIPE, members=1), "c", tmp_path)
    lone = replace(stamps, deflector=stamps.deflector & (stamps.source == "image-0"))
    with pytest.raises(CatalogError, match="for network 1 of 2 to learn"):
        lenses.train_lenses(lone, empty, RECIPE, "c", tmp_path)
    lens = stamps.source == "image-0"
    with pytest.raises(CatalogError, match=r"12 images .*, 0 of them lenses"):
        lenses.train_labelled(stamps, lens, RECIPE, "c", tmp_path)
