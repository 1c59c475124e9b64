"""Training and evaluation as users start them: the command, the flow, torchrun, a kill in the middle."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner
from PIL import Image

from gzscale.cli import main
from gzscale.errors import ConfigError
from gzscale.models.bundle import load_bundle
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_conditional, to_joint
from gzscale.training.command import evaluate_bundle, train_bundle

COUNT = 60
QUICK = [
    "members=2",
    "sketches=32",
    "network.widths=[2,3]",
    "network.blocks=[1,1]",
    "network.crop=48",
    "network.size=32",
    "sketch_fit.epochs=1",
    "fit.epochs=2",
    "fit.batch=16",
    "fit.augmentation.blur=0",
]
SETTINGS = [word for setting in QUICK for word in ("--set", setting)]
GZSCALE = str(Path(sys.executable).with_name("gzscale"))
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Pictures of blobs and votes at random, as Kaggle's files; one label has no picture."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "images").mkdir()
    rng = np.random.default_rng(3)
    conditional = np.empty((COUNT + 1, len(KAGGLE_NAMES)))
    for question in QUESTIONS:
        size = question.stop - question.start
        conditional[:, question.answers] = rng.dirichlet(np.ones(size), COUNT + 1)
    y, x = np.mgrid[:424, :424] - 211.5
    with (folder / "votes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["GalaxyID", *KAGGLE_NAMES])
        for number, row in enumerate(to_joint(conditional)):
            writer.writerow([number + 1000, *(f"{value:.6f}" for value in row)])
            if number < COUNT:
                blob = 220 * np.exp(-np.hypot(x, y * rng.uniform(1, 3)) / rng.uniform(20, 60))
                colours = np.stack([blob, 0.8 * blob, 0.6 * blob], axis=2).astype(np.uint8)
                Image.fromarray(colours).save(folder / "images" / f"{number + 1000}.jpg")
    return folder


def arguments(survey):
    return ["--labels", str(survey / "votes.csv"), "--images", str(survey / "images")]


@pytest.fixture(scope="module")
def trained(survey, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "own.safetensors"
    command = ["train", "morphology", *arguments(survey), "-o", str(output), "--name", "blobs-1", *SETTINGS]
    return output, CliRunner().invoke(main, command, catch_exceptions=False)


def test_train_writes_a_bundle_its_curve_and_what_it_reaches(trained):
    output, result = trained
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == (
        f"{COUNT} labelled galaxies with an image; not used: 1 NO_IMAGE; "
        f"of {COUNT} the table says no votes: 44 are assumed"
    )
    assert [line.split()[0] for line in lines[2:5]] == ["mean", "pca_forest", "network"]
    assert lines[-1] == str(output)
    bundle = load_bundle(output)
    assert (bundle.name, bundle.training["galaxies"]) == ("blobs-1", COUNT)
    assert f"{bundle.scores['network_rmse']:.4f}" in lines[4]
    with Path(f"{output}.curve.csv").open() as file:
        curve = list(csv.DictReader(file))
    stages = {(row["stage"], row["epoch"]) for row in curve}
    assert stages == {("sketches", "1")} | {(f"member {i} of 2", str(e)) for i in (1, 2) for e in (1, 2)}
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name, f"{output.name}.curve.csv"]


def test_evaluate_says_the_same_of_the_same_galaxies(trained, survey):
    output, _ = trained
    command = ["evaluate", str(output), *arguments(survey)]
    said = CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False)
    story = json.loads(said.stdout)
    assert story["learnt"] == COUNT
    assert story["refused"] == {"NO_IMAGE": 1}
    scores = load_bundle(output).scores
    for name in ("mean_rmse", "pca_forest_rmse"):
        assert story["scores"][name] == scores[name]
    # The weights of the bundle are rounded to float16.
    assert story["scores"]["network_rmse"] == pytest.approx(scores["network_rmse"], abs=1e-3)
    told = CliRunner().invoke(main, command, catch_exceptions=False)
    assert f"{story['scores']['network_rmse']:.4f}" in told.stdout
    again, lines = evaluate_bundle(
        str(output), str(survey / "votes.csv"), str(survey / "images"), "weighted_fraction", None
    )
    assert again["scores"] == story["scores"]
    assert "\n".join(lines) == told.stdout.rstrip("\n")


def test_evaluate_says_how_many_answers_of_clean_samples_are_predicted(trained, survey, tmp_path):
    output, _ = trained
    table = pd.read_csv(survey / "votes.csv")
    joint = table[list(KAGGLE_NAMES)].to_numpy()
    whole = to_conditional(joint)
    released = {"asset_id": table.GalaxyID, "total_classifications": 44}
    for number, answer in enumerate(ANSWERS):
        released[f"{answer}_weighted_fraction"] = np.nan_to_num(whole[:, number])
        released[f"{answer}_flag"] = (joint[:, number] > 0.5).astype(int)
    pd.DataFrame(released).to_csv(tmp_path / "released.csv", index=False)
    story, lines = evaluate_bundle(
        str(output), str(tmp_path / "released.csv"), str(survey / "images"), "weighted_fraction", None
    )
    answers, agreed = story["clean"]["answers"], story["clean"]["agreed"]
    assert answers == int((joint[:COUNT] > 0.5).sum())
    assert 0 < agreed < answers
    assert any(
        f"{answers} answers are flagged" in line and f"{100 * agreed / answers:.1f} %" in line
        for line in lines
    )


def test_what_cannot_be_trained_is_refused_before_anything_is_read(tmp_path):
    missing = (str(tmp_path / "votes.csv"), str(tmp_path), "weighted_fraction", None)
    for setting, words in (
        ("members=1", "at least 2"),
        ("network.foo=1", "does not take"),
        ("x", "KEY=VALUE"),
    ):
        with pytest.raises(ConfigError, match=words):
            list(train_bundle(*missing, str(tmp_path / "b"), "x", [setting]))
    assert list(tmp_path.iterdir()) == []


def test_a_second_training_of_the_same_output_is_refused(survey, tmp_path):
    command = (str(survey / "votes.csv"), str(survey / "images"), "weighted_fraction", None)
    first = train_bundle(*command, str(tmp_path / "b"), "x", QUICK)
    assert "60 labelled" in next(first)
    result = CliRunner().invoke(
        main, ["train", "morphology", *arguments(survey), "-o", str(tmp_path / "b"), *SETTINGS]
    )
    assert result.exit_code != 0
    assert "another training" in f"{result.output}{result.exception}"
    first.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_started_again_it_writes_the_same_bundle(trained, survey, tmp_path):
    output = tmp_path / "own.safetensors"
    command = [GZSCALE, "train", "morphology", *arguments(survey), "-o", str(output), "--name", "blobs-1"]
    process = subprocess.Popen([*command, *SETTINGS], env=ONE_THREAD, stdout=subprocess.DEVNULL)
    work = Path(f"{output}.work")
    deadline = time.monotonic() + 200
    while not (work / "sketches.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    # Into the first seconds of the members, which processes of their own train.
    time.sleep(3)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert one.status() == psutil.STATUS_ZOMBIE
    subprocess.run([*command, *SETTINGS], env=ONE_THREAD, check=True, capture_output=True, timeout=250)
    killed, whole = load_bundle(output), load_bundle(trained[0])
    assert killed.scores["network_rmse"] == pytest.approx(whole.scores["network_rmse"], abs=2e-3)
    assert not work.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_of_torchrun_train_one_bundle(survey, tmp_path):
    output = tmp_path / "own.safetensors"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "--no-python", GZSCALE, "train", "morphology", *arguments(survey), "-o", str(output)]
    done = subprocess.run(
        [*command, *SETTINGS, "--set", "fit.loss=dirichlet"],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The first process says all, once.
    assert done.stdout.count("60 labelled galaxies") == 1
    assert done.stdout.count(str(output)) == 1
    assert load_bundle(output).scores["galaxies"] == COUNT
    with Path(f"{output}.curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    assert not Path(f"{output}.work").exists()
    refused = subprocess.run(
        [*command, *SETTINGS, "--search", "2"], env=ONE_THREAD, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "without torchrun" in refused.stderr + refused.stdout


_FLOW = """
import json, sys
from flows.train import MorphologyLessons, train
if __name__ == "__main__":
    lessons = MorphologyLessons(task="morphology", labels=sys.argv[1], images=sys.argv[2])
    print(json.dumps(train(lessons, sys.argv[3], name="blobs-2", settings=sys.argv[4:])))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_flow_trains_the_same_bundle_and_returns_its_scores(trained, survey, tmp_path):
    script, output = tmp_path / "flow.py", tmp_path / "flow.safetensors"
    script.write_text(_FLOW)
    done = subprocess.run(
        [sys.executable, str(script), str(survey / "votes.csv"), str(survey / "images"), str(output), *QUICK],
        env={**ONE_THREAD, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    bundle = load_bundle(output)
    assert json.loads(done.stdout.splitlines()[-1]) == dict(bundle.scores)
    assert bundle.name == "blobs-2"
    assert bundle.scores["network_rmse"] == pytest.approx(
        load_bundle(trained[0]).scores["network_rmse"], abs=2e-3
    )


def test_make_train_without_paths_says_what_it_needs():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["make", "--no-print-directory", "train", "LABELS=votes.csv"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "make train LABELS=votes.csv IMAGES=images" in done.stderr
