"""What a worker runs of a partition."""

import subprocess
import sys

import pytest

from gzscale.memory import _malloc_trim

# In a process of its own: that of other tests may have room enough for all pieces.
_STAGE = """
import numpy as np, psutil
from gzscale.night.station import run_stage

process = psutil.Process()
before, during, last = process.memory_info().rss, [], []

def stage():
    # Pieces small enough for the heap, and one after them that keeps the heap from shrinking.
    pieces = [np.ones(8_000) for _ in range(4_000)]
    last.append(np.ones(8_000))
    pieces.clear()
    during.append(process.memory_info().rss)
    return "done"

assert run_stage(stage) == "done"
print(during[0] - before, process.memory_info().rss - before)
"""


@pytest.mark.skipif(_malloc_trim() is None, reason="this C library has no malloc_trim")
def test_memory_that_a_stage_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", _STAGE], capture_output=True, text=True, check=True)
    during, after = map(int, done.stdout.split())
    assert during > 200e6, "malloc has given it back by itself"
    assert after < 60e6
