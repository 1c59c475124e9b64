import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gzscale.errors import ConfigError, DamageError
from gzscale.models.network import build_network
from gzscale.models.votes import QUESTIONS, asked, to_joint
from gzscale.training.augment import Augmentation
from gzscale.training.fit import OUTPUT, Examples, Settings, _Votes, fit, predict, rmse

PARAMETERS = {
    "widths": [2, 4],
    "blocks": [1, 1],
    "heads": {OUTPUT: "tree"},
    "dropout": 0.1,
    "crop": 64,
    "size": 32,
}
QUICK = Settings(epochs=6, batch=8, rate=0.05, head_rate=1e-2, memory=0.9, augmentation=Augmentation(blur=0))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def galaxies(count=64):
    """Round blobs, which all call smooth, and rings, which all call odd disks."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:96, :96] - 47.5
    radius = np.hypot(x, y)
    ring = rng.random(count) < 0.5
    shapes = np.where(ring[:, None, None], np.exp(-(((radius - 20) / 5) ** 2)), np.exp(-radius / 12))
    pictures = np.repeat((shapes[:, None] * 200).astype(np.uint8), 3, axis=1)
    conditional = np.empty((count, 37))
    for question in QUESTIONS:
        conditional[:, question.answers] = 1 / (question.stop - question.start)
    conditional[:, 0], conditional[:, 1] = np.where(ring, 0.05, 0.9), np.where(ring, 0.9, 0.05)
    conditional[:, 2] = 0.05
    joint = to_joint(conditional).astype(np.float32)
    return Examples(pictures, joint, 40 * asked(joint)), ring


def network(parameters=PARAMETERS, kind="equivariant"):
    torch.manual_seed(0)
    return build_network(kind, parameters)


def weights(fitted):
    return {name: value.clone() for name, value in fitted.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("loss", ["multinomial", "dirichlet", "squared"])
def test_learns_what_can_be_learnt(loss):
    examples, ring = galaxies()
    fitted = fit(network(), examples, replace(QUICK, loss=loss, epochs=16))
    assert not fitted.training
    found = predict(fitted, examples)
    assert np.array_equal(found[:, 1] > found[:, 0], ring)
    mean = np.broadcast_to(examples.joint.mean(axis=0), examples.joint.shape)
    assert rmse(found, examples.joint) < 0.5 * rmse(mean, examples.joint)


def test_an_ordinary_network_is_fitted_too():
    parameters = {"widths": [8], "blocks": [1], "heads": {OUTPUT: "tree"}, "crop": 64, "size": 32}
    examples, _ = galaxies(16)
    before = weights(network(parameters, "residual"))
    assert not same(before, weights(fit(network(parameters, "residual"), examples, replace(QUICK, epochs=1))))


def test_same_seed_same_weights_and_another_seed_others():
    examples, _ = galaxies(16)
    two = replace(QUICK, epochs=2)
    first, second = (weights(fit(network(), examples, two)) for _ in range(2))
    assert same(first, second)
    assert not same(first, weights(fit(network(), examples, replace(two, seed=1))))


class _Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 3])
def test_killed_and_started_again_gives_the_same_weights(tmp_path, monkeypatch, after):
    monkeypatch.setattr("gzscale.training.loop.CHECKPOINT_EVERY", 0.0)
    examples, _ = galaxies(16)
    undisturbed = weights(fit(network(), examples, QUICK))

    def kill(line):
        # The checkpoint of this epoch is not written yet.
        if line.epoch == after + 1:
            raise _Killed

    path = tmp_path / "c.safetensors"
    with pytest.raises(_Killed):
        fit(network(), examples, QUICK, checkpoint=path, progress=kill)
    epochs = []
    again = fit(network(), examples, QUICK, checkpoint=path, progress=lambda line: epochs.append(line.epoch))
    assert epochs == list(range(after + 1, 6))
    assert same(weights(again), undisturbed)
    assert same(weights(fit(network(), examples, QUICK, checkpoint=path)), undisturbed)


def test_a_checkpoint_of_another_fit_is_not_used_and_a_damaged_one_is_an_error(tmp_path):
    examples, _ = galaxies(16)
    path = tmp_path / "c.safetensors"
    one = replace(QUICK, epochs=1)
    fit(network(), examples, one, checkpoint=path)
    epochs = []
    fit(network(), examples, replace(one, seed=2), checkpoint=path, progress=lambda line: epochs.append(line))
    assert len(epochs) == 1
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamageError, match="remove it"):
        fit(network(), examples, one, checkpoint=path)


def test_it_ends_when_galaxies_held_back_get_no_better(tmp_path):
    examples, _ = galaxies(32)
    wrong = Examples(examples.pictures, examples.joint[::-1].copy(), examples.votes)
    lines = []
    settings = replace(QUICK, epochs=40, patience=3)
    path = tmp_path / "c.safetensors"
    fitted = fit(network(), examples, settings, held_back=wrong, checkpoint=path, progress=lines.append)
    assert len(lines) < 40
    assert all(math.isfinite(line.score) for line in lines)
    best = min(range(len(lines)), key=lambda i: lines[i].score)
    assert len(lines) == best + 4
    # The weights are those of the best epoch, also where the fit is only read from its checkpoint.
    assert rmse(predict(fitted, wrong), wrong.joint) == lines[best].score
    more = []
    again = fit(network(), examples, settings, held_back=wrong, checkpoint=path, progress=more.append)
    assert more == []
    assert same(weights(again), weights(fitted))


def test_patience_needs_galaxies_held_back():
    with pytest.raises(ConfigError, match="held back"):
        fit(network(), galaxies(16)[0], replace(QUICK, patience=2))


@pytest.mark.parametrize("changed", ["picture", "votes", "held back", "crop"])
def test_a_checkpoint_is_of_all_that_was_learnt(tmp_path, changed):
    examples, _ = galaxies(80)
    known, other = examples.take(np.arange(80) < 70), examples.take(np.arange(80) >= 70)
    path, one = tmp_path / "c.safetensors", replace(QUICK, epochs=1)
    fit(network(), known, one, held_back=other, checkpoint=path)
    parameters = PARAMETERS
    if changed == "picture":
        examples.pictures[69, 0, 0, 0] += 1
    elif changed == "votes":
        known.votes[69, 0] += 1
    elif changed == "held back":
        other.joint[0, 0] += 0.01
    else:
        parameters = {**PARAMETERS, "crop": 32}
    lines = []
    fit(network(parameters), known, one, held_back=other, checkpoint=path, progress=lines.append)
    assert len(lines) == 1


def test_taken_examples_share_the_pictures_and_keep_their_own():
    examples, _ = galaxies(12)
    examples.pictures[:, 0, 0, 0] = np.arange(12)
    odd = examples.take(np.arange(12) % 2 == 1)
    last = odd.take(np.arange(6) >= 4)
    assert last.pictures is examples.pictures
    assert last.shown(np.arange(2))[:, 0, 0, 0].tolist() == [9, 11]
    assert np.concatenate(list(odd.blocks()))[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 9, 11]
    assert np.array_equal(last.joint, examples.joint[[9, 11]])


def test_views_are_what_the_network_looks_at():
    """Without any change of light or place, a view is the picture that the network predicts from."""
    examples, _ = galaxies(4)
    plain = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)
    for parameters in (PARAMETERS, {**PARAMETERS, "crop": 32, "size": 32}, {"blocks": [1], "widths": [2]}):
        made = network({**parameters, "heads": {OUTPUT: "tree"}})
        lesson = _Votes(made, examples, replace(QUICK, augmentation=plain), None)
        generator = torch.Generator().manual_seed(0)
        views = lesson.views(np.arange(4), generator, torch.device("cpu"))
        seen = made.prepare(torch.from_numpy(examples.pictures).float() / 255) * made.spread + made.mean
        assert views.shape == seen.shape
        # The galaxies are round, and a view is turned.
        assert (views - seen).abs().mean() < 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"patience": -1},
        {"rate": 0.0},
        {"head_rate": math.nan},
        {"decay": -0.1},
        {"memory": 1.0},
        {"noise": -1.0},
    ],
)
def test_settings_that_cannot_be_used(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name}="):
        replace(QUICK, **({"augmentation": Augmentation(**wrong)} if name == "noise" else wrong))


def test_an_unknown_loss():
    with pytest.raises(ConfigError, match="dirichlet"):
        Settings(loss="guess")


_TWO = """
import sys, torch
sys.path[:0] = {paths!r}
import test_fit
from dataclasses import replace
from gzscale.training.fit import _Votes
from gzscale.training.loop import Pace, learn
from gzscale.training.processes import joined, share_bytes
torch.set_num_threads(1)
with joined():
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    assert share_bytes(b"first" if rank == 0 else None) == b"first"
    assert share_bytes(None if rank == 0 else b"second") is None
    examples, _ = test_fit.galaxies(32)
    known, other = examples.take(test_fit.np.arange(32) < 24), examples.take(test_fit.np.arange(32) >= 24)
    network = test_fit.network()
    lesson = _Votes(network, known, replace(test_fit.QUICK, loss="dirichlet"), other)
    lines = []
    pace = Pace(4, 8, 0.05, 1e-2, patience=3)
    fitted = learn(network, lesson, pace, progress=lines.append)
    learnt = [*fitted.state_dict().values(), lesson.extra["logarithm"].detach()]
    learnt.append(torch.tensor([line.score for line in lines]))
    for tensor in learnt:
        both = [torch.zeros_like(tensor) for _ in range(size)]
        torch.distributed.all_gather(both, tensor)
        assert torch.equal(both[0], both[1]), "the processes disagree"
    assert not torch.equal(lesson.extra["logarithm"].detach(), torch.full((11,), 2.0))
    assert not torch.allclose(
        fitted.state_dict()["stages.0.first.conv.weight"],
        test_fit.network().state_dict()["stages.0.first.conv.weight"],
    )
    print("agreed", size)
"""


def test_two_processes_learn_one_network(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(_TWO.format(paths=[os.path.dirname(__file__)]))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    done = subprocess.run(
        [*command, "--standalone", str(script)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("agreed") == 2
