"""How often Dask looks at its processes, and how much it keeps of what it sees.

Dask looks at a worker's stack a hundred times a second and keeps a call tree for every second: after some
hours hundreds of megabytes. Workers that are made here do not sample at all; on a scheduler that runs already
sampling may be of use to others, so that its workers keep it, but for the last minute alone.

Scheduler, nannies and workers also wake many times a second to look at the clock, at memory and at the host:
together a tenth of a core for two workers that have nothing to do.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from distributed import WorkerPlugin

__all__ = ["QUIET", "ShortProfile"]

#: Dask's configuration of processes that do not sample, and look about them as often as partitions ask for.
QUIET: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "200ms",
}
#: Call trees that a worker keeps, one a second.
KEPT = 60


class ShortProfile(WorkerPlugin):
    """Lets a worker keep the last `KEPT` call trees; every worker of a night gets it, later ones too."""

    name = "gzscale-short-profile"

    def setup(self, worker: Any) -> None:
        """Replace the worker's histories by short ones."""
        worker.profile_history = deque(worker.profile_history, maxlen=KEPT)
        worker.profile_keys_history = deque(worker.profile_keys_history, maxlen=KEPT)
