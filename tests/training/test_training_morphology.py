import numpy as np
import pytest
import torch
from PIL import Image

from gzscale.errors import MissingError
from gzscale.models.bundle import load_bundle, write_bundle
from gzscale.models.votes import QUESTIONS, to_joint
from gzscale.training import morphology
from gzscale.training.fit import Settings
from gzscale.training.labels import Labels, held_out
from gzscale.training.morphology import evaluate_morphology, train_morphology

QUICK = Settings(epochs=1, batch=8, sizes=(48,))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = {"widths": [16, 32], "blocks": [1, 1], "heads": {"vote_fractions": "tree"}}
    monkeypatch.setattr(morphology, "NETWORK", small)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def zoo(tmp_path):
    rng = np.random.default_rng(1)
    names = tuple(str(number) for number in range(24))
    for name in names:
        Image.fromarray(rng.integers(0, 80, (424, 424, 3), np.uint8)).save(tmp_path / f"{name}.jpg")
    conditional = np.empty((24, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), 24)
    return Labels(names, to_joint(conditional).astype(np.float32)), tmp_path


def test_trains_the_same_bundle_twice_and_says_what_it_did(zoo, tmp_path):
    labels, images = zoo
    bundle = train_morphology(labels, images, QUICK, "trial")
    again = train_morphology(labels, images, QUICK, "trial")
    assert write_bundle(bundle) == write_bundle(again)
    (tmp_path / "b.safetensors").write_bytes(write_bundle(bundle))
    loaded = load_bundle(tmp_path / "b.safetensors")
    hidden = held_out(labels.names)
    assert loaded.training["galaxies"] + loaded.training["held_out"] == 24
    assert loaded.scores["galaxies"] == hidden.sum() > 0
    assert loaded.scores == evaluate_morphology(loaded, labels, images, hidden)


def test_scores_are_those_of_the_chosen_galaxies(zoo):
    labels, images = zoo
    bundle = train_morphology(labels, images, QUICK, "trial")
    chosen = np.zeros(24, bool)
    chosen[3:9] = True
    scores = evaluate_morphology(bundle, labels, images, chosen)
    mean = labels.joint[~chosen].mean(axis=0)
    assert scores["galaxies"] == 6
    assert scores["rmse_of_mean"] == pytest.approx(
        np.sqrt(np.mean((labels.joint[chosen] - mean) ** 2)), abs=1e-5
    )


def test_a_missing_picture_is_named(zoo):
    labels, images = zoo
    (images / "7.jpg").unlink()
    with pytest.raises(MissingError, match=r"7\.jpg"):
        train_morphology(labels, images, QUICK, "trial")
