import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from gzscale.errors import LockedError
from gzscale.training.processes import count_processes, is_first, joined, share_bytes, sole_writer


def test_without_torchrun_there_is_one_process():
    with joined():
        assert (count_processes(), is_first()) == (1, True)
        assert share_bytes(b"x") == b"x"


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    with (
        sole_writer(tmp_path / "work"),
        pytest.raises(LockedError, match="another training"),
        sole_writer(tmp_path / "work"),
    ):
        pass
    with sole_writer(tmp_path / "work"):
        pass


_POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from gzscale.training.processes import end_with_parent

def work(_):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        list(pool.map(work, range(1)))
"""


def test_a_pool_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(_POOL)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(200):
            if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.1)
    if not child.is_running():
        return
    child.kill()
    pytest.fail("the process outlived its parent by 20 s")
