"""The folder of a night's shared images: made, held, cleared away, also after a night that was killed."""

import os
import signal
import subprocess
import sys

import pytest

from gzscale.night import scratch
from gzscale.night.scratch import Room, clear, join
from gzscale.surveys.decoded import LOCKS

ROOM = Room("n1", 10**9, 5)


@pytest.fixture(autouse=True)
def on_disk(monkeypatch):
    monkeypatch.setattr(scratch, "_kind_of_disk", lambda folder: "ext4")
    yield
    scratch._let_go()


def home(path):
    return path / f"gzscale-decoded-{os.getuid()}"


def test_a_folder_is_made_for_this_user_alone_and_cleared(tmp_path):
    images = join(tmp_path, ROOM)
    assert (images.cap, images.reserve) == (10**9, 5)
    assert images.folder == home(tmp_path) / "n1"
    assert (images.folder / LOCKS).is_dir()
    assert home(tmp_path).stat().st_mode & 0o777 == 0o700
    assert join(tmp_path, ROOM) is images
    clear(tmp_path, "n1")
    assert not images.folder.exists()
    # Another worker's night may go on: the folder comes back.
    assert join(tmp_path, ROOM).folder.is_dir()


def test_nothing_is_allowed(tmp_path):
    assert join(tmp_path, Room("n1", 0, 0)) is None
    assert not home(tmp_path).exists()


_HOLD = """
import sys
from pathlib import Path
from gzscale.night import scratch
scratch._kind_of_disk = lambda folder: "ext4"
images = scratch.join(Path(sys.argv[1]), scratch.Room("other", 10**9, 0))
(images.folder / "x.image").write_bytes(b"x")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_night_s_folder_is_removed_by_the_next_and_one_that_goes_on_is_not(tmp_path):
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert join(tmp_path, ROOM) is not None
        assert (home(tmp_path) / "other" / "x.image").exists()
        os.kill(process.pid, signal.SIGKILL)
    scratch._let_go()
    assert join(tmp_path, ROOM) is not None
    assert not (home(tmp_path) / "other").exists()


def test_a_folder_that_others_may_write_is_not_used(tmp_path):
    home(tmp_path).mkdir()
    home(tmp_path).chmod(0o777)
    assert join(tmp_path, ROOM) is None


def test_memory_is_not_taken_for_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_kind_of_disk", lambda folder: "tmpfs")
    assert join(tmp_path, ROOM) is None


def test_the_kind_of_disk_is_that_of_the_mount(monkeypatch):
    monkeypatch.undo()
    assert scratch._kind_of_disk("/proc") == "proc"
