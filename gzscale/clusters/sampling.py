"""How much workers keep of the stacks that Dask samples: else their memory grows with a night's length.

Dask looks at a worker's stack a hundred times a second and keeps a call tree for every second: after some
hours hundreds of megabytes. Workers that are made here do not sample at all; on a scheduler that runs already
sampling may be of use to others, so that its workers keep it, but for the last minute alone.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from distributed import WorkerPlugin

__all__ = ["QUIET", "ShortProfile"]

#: Dask's configuration of workers that do not sample.
QUIET = {"distributed.worker.profile.enabled": False}
#: Call trees that a worker keeps, one a second.
KEPT = 60


class ShortProfile(WorkerPlugin):
    """Lets a worker keep the last `KEPT` call trees; every worker of a night gets it, later ones too."""

    name = "gzscale-short-profile"

    def setup(self, worker: Any) -> None:
        """Replace the worker's histories by short ones."""
        worker.profile_history = deque(worker.profile_history, maxlen=KEPT)
        worker.profile_keys_history = deque(worker.profile_keys_history, maxlen=KEPT)
