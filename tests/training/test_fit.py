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
from gzscale.training.fit import OUTPUT, Examples, Settings, fit, predict, rmse

PARAMETERS = {
    "widths": [2, 4],
    "blocks": [1, 1],
    "heads": {OUTPUT: "tree"},
    "dropout": 0.1,
    "crop": 64,
    "size": 32,
}
QUICK = Settings(
    epochs=6, batch=8, rate=0.05, head_rate=1e-2, size=32, memory=0.9, augmentation=Augmentation(blur=0)
)


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
    found = predict(fitted, examples.pictures, QUICK)
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


def test_it_ends_when_galaxies_held_back_get_no_better():
    examples, _ = galaxies(32)
    wrong = Examples(examples.pictures, examples.joint[::-1].copy(), examples.votes)
    lines = []
    fit(network(), examples, replace(QUICK, epochs=40, patience=3), held_back=wrong, progress=lines.append)
    assert len(lines) < 40
    assert all(math.isfinite(line.score) for line in lines)
    best = min(range(len(lines)), key=lambda i: lines[i].score)
    assert len(lines) == best + 4


def test_an_unknown_loss():
    with pytest.raises(ConfigError, match="dirichlet"):
        Settings(loss="guess")


_TWO = """
import sys, torch
sys.path[:0] = {paths!r}
import test_fit
from dataclasses import replace
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
examples, _ = test_fit.galaxies(16)
network = test_fit.network({{**test_fit.PARAMETERS, "dropout": 0.0}})
fitted = test_fit.fit(network, examples, replace(test_fit.QUICK, epochs=2))
weight = fitted.state_dict()["stages.0.first.conv.weight"]
both = [torch.zeros_like(weight) for _ in range(2)]
torch.distributed.all_gather(both, weight)
assert torch.allclose(both[0], both[1], atol=1e-6), "the processes disagree"
assert not torch.allclose(weight, test_fit.network().state_dict()["stages.0.first.conv.weight"])
print("agreed", torch.distributed.get_world_size())
torch.distributed.destroy_process_group()
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
