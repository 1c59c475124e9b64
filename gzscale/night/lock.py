"""One night at a time on an output: a lock that survives nobody.

The lock is a small record that is created only where there is none. Its holder
renews it; a lock whose process is gone (same machine), or which was not renewed
for `EXPIRY` seconds (another machine), is taken over, by exactly one of those
who try.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from gzscale.errors import LockedError, MissingError, StorageError
from gzscale.night.fingerprint import canonical_json
from gzscale.storage import Storage

__all__ = ["hold_lock"]

KEY = "ledger/LOCK"
#: Seconds between two renewals.
RENEWAL = 20.0
#: Seconds without renewal after which a lock of another machine is void.
EXPIRY = 120.0


@contextmanager
def hold_lock(storage: Storage, night: str) -> Iterator[None]:
    """Hold the output's lock while a night runs.

    Parameters
    ----------
    storage
        The night's output.
    night
        Name of the run, for the message that the other one gets.

    Raises
    ------
    LockedError
        If another night is running on this output.
    """
    token = _token(night)
    _acquire(storage, token)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(storage, token, stop), name="lock", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        with contextlib.suppress(StorageError):  # The night's own error is the one to tell.
            held = _read(storage)
            if held is not None and _same(held, token):
                storage.delete(KEY)


def _token(night: str) -> dict[str, Any]:
    process = psutil.Process()
    return {
        "night": night,
        "host": socket.gethostname(),
        "boot": int(psutil.boot_time()),
        "pid": os.getpid(),
        "process_started": process.create_time(),
        "renewed": time.time(),
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other[key] for key in ("night", "host", "pid", "process_started"))


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        return dict(json.loads(storage.get(KEY)))
    except (MissingError, ValueError):
        return None


def _acquire(storage: Storage, token: dict[str, Any]) -> None:
    for _ in range(3):
        if storage.put_new(KEY, canonical_json(token)):
            return
        entry = storage.stat(KEY)
        held = _read(storage)
        if entry is None or held is None:
            if entry is not None:
                storage.delete(KEY)
            continue
        if _alive(held):
            age = time.time() - float(held["renewed"])
            raise LockedError(
                f"{storage.url()}: night {held['night']} is running on this output "
                f"(process {held['pid']} on {held['host']}, seen {age:.0f} s ago); wait for it, "
                f"or stop it, or choose another --output"
            )
        if storage.replace(KEY, canonical_json(token), entry.tag):
            return
    raise LockedError(f"{storage.url(KEY)}: others take this lock at the same time; try again")


def _alive(held: dict[str, Any]) -> bool:
    """Tell whether the lock's holder is at work: by its process here, by its renewals elsewhere."""
    if held["host"] == socket.gethostname() and held["boot"] == int(psutil.boot_time()):
        try:
            process = psutil.Process(held["pid"])
            return bool(
                process.create_time() == held["process_started"] and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False
    return time.time() - float(held["renewed"]) < EXPIRY


def _renew(storage: Storage, token: dict[str, Any], stop: threading.Event) -> None:
    """Renew the lock until told to stop; a lock that another night has taken is left alone."""
    while not stop.wait(RENEWAL):
        try:
            entry, held = storage.stat(KEY), _read(storage)
            if entry is None or held is None or not _same(held, token):
                return
            storage.replace(KEY, canonical_json({**token, "renewed": time.time()}), entry.tag)
        except StorageError:
            # A renewal that fails is tried again at the next turn; the lock holds for six of them.
            continue
