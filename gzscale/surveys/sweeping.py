"""Which files of a cache of images go first: when each was used last, and what is removed for others."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["UNFINISHED", "mark_used", "sweep"]

#: Ends the name of a file that is not complete.
UNFINISHED = ".part"
#: Unfinished transfers that nobody has touched for this long are removed [s].
STALE = 86_400


def mark_used(path: Path) -> None:
    """Note that a file is used now, where that may be noted: it may be another user's."""
    # The time of its last change stays: whoever reads the file looks whether somebody writes into it.
    changed = path.stat().st_mtime_ns
    with contextlib.suppress(PermissionError):
        os.utime(path, ns=(time.time_ns(), changed))


def sweep(folder: Path, cap: int, keep: Path) -> None:
    """Remove the files that were not used for longest until all are within some bytes.

    Parameters
    ----------
    folder
        Holds the files, in folders of its own. Whoever calls holds a lock on it.
    cap
        Bytes that it may hold.
    keep
        Stays, whatever else goes.
    """
    files = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if name.endswith(UNFINISHED):
                    if time.time() - status.st_mtime > STALE:
                        path.unlink()
                    continue
                files.append((status.st_atime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in files) - cap
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            excess -= size
