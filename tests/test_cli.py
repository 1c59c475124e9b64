"""The command line, as its users run it: one simulated field, a night, and every question about it."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow
OBJECTS = 40
#: Some five partitions.
PARTITIONS = "max_objects=20"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home of their own for Prefect and the cache of images."""
    folder = tmp_path_factory.mktemp("home")
    return {**os.environ, "HOME": str(folder), "PREFECT_HOME": str(folder / "prefect")}


@pytest.fixture(scope="module")
def run(home):
    def call(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "gzscale.cli", *map(str, words)],
            env=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr[-2000:]
        return done.stdout + done.stderr if code else done.stdout

    return call


@pytest.fixture(scope="module")
def sky(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky") / "sky"
    run("simulate", folder, "--objects", OBJECTS, "--seed", 3)
    return folder / "night.yaml"


@pytest.fixture(scope="module")
def output(run, sky, tmp_path_factory):
    folder = tmp_path_factory.mktemp("night") / "out"
    run("night", sky, "--output", folder, "--set", PARTITIONS, "--night", "first")
    return folder


def release_of(output):
    """Every file of the latest release, by its path, as a hash."""
    release = json.loads((output / "releases" / "LATEST").read_text())["release"]
    folder = output / "releases" / release
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_plan_touches_nothing(run, sky, tmp_path):
    text = run("plan", sky, "--output", tmp_path / "out")
    assert f"{OBJECTS} planned" in text
    assert "5 distinct" in text
    assert list(tmp_path.iterdir()) == []


def test_the_account_is_told_as_json(run, output):
    account = json.loads(run("status", output, "--json"))
    assert account["planned"] == OBJECTS
    assert account["planned"] == account["done"] + sum(account["quarantined"].values()) + account["failed"]
    assert account["failed"] == 0
    assert account["night"] == "first"
    assert json.loads(run("status", output, "--json", "--night", "first")) == account
    assert "MISSING" in run("status", output, "--night", "another", code=2)


def test_the_released_catalog_opens_as_it_is(output):
    import lsdb

    release = json.loads((output / "releases" / "LATEST").read_text())["release"]
    catalog = lsdb.open_catalog(output / "releases" / release / "morphology")
    done = json.loads((output / "reports" / "first" / "accounting.json").read_text())["done"]
    assert len(catalog) == done
    row = pq.read_table(output.parent.parent / _sky_catalog(output)).slice(0, 1).to_pylist()[0]
    found = catalog.cone_search(row["ra"], row["dec"], 1.0).compute()
    assert row["object_id"] in found["object_id"].tolist() or done < OBJECTS


def _sky_catalog(output):
    record = json.loads((output / "ledger" / "nights" / "first" / "night.json").read_text())["record"]
    return record["inputs"]["config"]["catalog"]["path"]


def test_a_second_run_has_nothing_to_do(run, sky, output):
    before = release_of(output)
    assert "nothing to do" in run("night", sky, "--output", output, "--set", PARTITIONS)
    assert release_of(output) == before


def test_everything_verifies_and_damage_is_found(run, output):
    assert ", 0 finding(s)" in run("verify", output)
    path = next(output.glob("predictions/**/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert str(path) in run("verify", output, code=1)
    path.write_bytes(data)


def test_one_object_s_story(run, output):
    rows = pq.read_table(next(output.glob("ledger/rows/**/*.parquet")))
    object_id = rows["object_id"][0].as_py()
    story = json.loads(run("explain", output, object_id, "--json"))
    assert story["object_id"] == object_id
    images = story["cutouts"]["galaxy"]["bands"]["r"]["images"]
    assert all(len(image["sha256"]) == 64 for image in images)
    assert "MISSING" in run("explain", output, 12345, code=2)


def test_the_report_is_written_again(run, output):
    page = output / "reports" / "first" / "report.html"
    page.unlink()
    assert run("report", output).strip() == str(page)
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_the_doctor_answers(run):
    text = run("doctor")
    assert "python" in text
    assert "embedded server" in text


def test_an_unknown_key_is_an_error_without_a_traceback(run, sky):
    text = run("night", sky, "--set", "survey.rooot=x", code=2)
    assert "survey.rooot" in text
    assert "Traceback" not in text


def test_an_output_that_cannot_be_written(run, sky, tmp_path):
    (tmp_path / "file").write_text("")
    text = run("night", sky, "--output", tmp_path / "file" / "out", code=2)
    assert f"{tmp_path / 'file' / 'out'}/" in text
    assert "a part of the path is a file, not a folder: choose another output" in text
    assert "Traceback" not in text


def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(run, home, sky, output, tmp_path):
    again = tmp_path / "out"
    command = [sys.executable, "-m", "gzscale.cli", "night", str(sky), "--output", str(again)]
    process = subprocess.Popen(
        [*command, "--set", PARTITIONS],
        env=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait_for(lambda: any(again.glob("ledger/cut/**/*.json")), process)
    # Its workers stand still: however long the second command takes to start, the night is in its middle.
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                child.suspend()
    assert "LOCKED" in run("night", sky, "--output", again, code=2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (again / "releases" / "LATEST").exists()
    account = json.loads(run("status", again, "--json"))
    assert account["pending"] > 0
    run("night", sky, "--output", again, "--set", PARTITIONS)
    assert release_of(again) == release_of(output)


def _wait_for(condition, process: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the night ended before it could be killed"
        assert time.monotonic() < deadline, "the night did not get that far"
        time.sleep(0.02)


def test_a_folder_of_pictures(run, tmp_path):
    from PIL import Image

    folder: Path = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (424, 424), (40, 30, 20)).save(folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    text = run("predict", "morphology", folder, "-o", tmp_path / "votes.csv", "--scheme", "kaggle")
    assert "2 predicted" in text
    lines = (tmp_path / "votes.csv").read_text().splitlines()
    assert lines[0].startswith("GalaxyID,Class1.1,Class1.2")
    assert len(lines) == 3
