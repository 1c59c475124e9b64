"""What a worker runs of a partition."""

import numpy as np
import psutil
import pytest

from gzscale.night.station import _malloc_trim, run_stage


@pytest.mark.skipif(_malloc_trim() is None, reason="this C library has no malloc_trim")
def test_memory_that_a_stage_freed_is_given_back():
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
    assert during[0] - before > 200e6, "malloc has given it back by itself"
    assert process.memory_info().rss - before < 60e6
