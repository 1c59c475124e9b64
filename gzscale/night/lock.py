"""One night at a time on an output: a lock that survives nobody.

The lock is a small record that is created only where there is none. Its holder
renews it; a lock whose process is gone (same table of processes), or which was not
renewed for `EXPIRY` seconds (any other), is taken over, by exactly one of those who
try. A holder that finds its lock taken, cannot renew it in time, or may not, is told.
A lock that is let go of is a record that names no night: it is replaced on the tag that
was read, as not every store deletes on one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from gzscale.errors import CredentialsError, LockedError, MissingError, StorageError
from gzscale.night.fingerprint import canonical_json
from gzscale.storage import Storage

__all__ = ["Hold", "hold_lock"]

KEY = "ledger/LOCK"
#: Seconds between two renewals.
RENEWAL = 20.0
#: Seconds without renewal after which a lock of another machine is void.
EXPIRY = 120.0
#: Seconds without renewal after which its holder stops: before another may take it.
SURRENDER = 90.0
#: Renewals in a row that storage refuses the credentials for before they are held to be void.
REFUSALS = 2
#: How often a lock is let go of, and the seconds between.
RELEASES, RELEASE_PAUSE = 3, 1.0

_PROC = Path("/proc")
#: What identifies the locks that this process holds: another one that names this process was not let go of.
_live: set[str] = set()


class Hold:
    """A lock that is held, until it is found to be lost.

    Parameters
    ----------
    storage
        The night's output.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._renewed = time.monotonic()
        self._taken = ""
        self._trouble: StorageError | None = None
        self._refusals = 0

    def check(self) -> None:
        """Raise if the lock may be another's by now.

        Raises
        ------
        LockedError
            If another night has taken it, or it could not be renewed for `SURRENDER` seconds.
        CredentialsError
            If storage has refused the credentials at the last `REFUSALS` renewals.
        """
        if self._taken:
            raise LockedError(
                f"{self._storage.url()}: {self._taken} has taken this output's lock, so that this night "
                "stops; one of the two machines was out of reach, or its clock is wrong"
            )
        age, trouble = time.monotonic() - self._renewed, self._trouble
        if isinstance(trouble, CredentialsError) and self._refusals >= REFUSALS:
            # Without them nothing can be stored or released: the rest of the night would be in vain.
            raise CredentialsError(
                f"this night's lock is not renewed any more, for storage refuses the credentials: {trouble}"
            ) from trouble
        if age > SURRENDER:
            why = f"storage does not answer ({trouble})" if trouble else "storage does not answer"
            raise LockedError(
                f"{self._storage.url(KEY)}: not renewed for {age:.0f} s, since {why}; this "
                "night stops before another takes the lock; run it again, it goes on from here"
            )

    def renewed(self) -> None:
        """Note that the lock was renewed."""
        self._renewed, self._trouble, self._refusals = time.monotonic(), None, 0

    def failed(self, error: StorageError) -> None:
        """Note that it could not be renewed this time."""
        # First the number: whoever checks in between takes it for the trouble before.
        self._refusals = self._refusals + 1 if isinstance(error, CredentialsError) else 0
        self._trouble = error

    def taken(self, by: str) -> None:
        """Note that somebody else has it."""
        self._taken = by


@contextmanager
def hold_lock(storage: Storage, night: str) -> Iterator[Hold]:
    """Hold the output's lock while a night runs.

    Parameters
    ----------
    storage
        The night's output.
    night
        Name of the run, for the message that the other one gets.

    Yields
    ------
    Hold
        Its ``check`` raises once the lock is lost.

    Raises
    ------
    LockedError
        If another night is running on this output.
    """
    token = _token(night)
    _live.add(token["hold"])
    try:
        _acquire(storage, token)
        with _renewed(storage, token) as hold:
            yield hold
    finally:
        _live.discard(token["hold"])


@contextmanager
def _renewed(storage: Storage, token: dict[str, Any]) -> Iterator[Hold]:
    """Renew a lock that was acquired, and let go of it at the end."""
    stop = threading.Event()
    hold = Hold(storage)
    renewal = threading.Thread(target=_renew, args=(storage, token, stop, hold), name="lock", daemon=True)
    renewal.start()
    try:
        yield hold
    finally:
        stop.set()
        renewal.join()
        _release(storage, token)


def _release(storage: Storage, token: dict[str, Any]) -> None:
    """Let go of a lock that is still this one; where storage does not answer, it is void without its hold.

    Another night may take it as soon as it is free, also before the answer is here: what is repeated then
    must not touch that one's.
    """
    for last in [False] * (RELEASES - 1) + [True]:
        with contextlib.suppress(StorageError):  # The night's own error is the one to tell.
            entry, held = storage.stat(KEY), _read(storage)
            if entry is None or held is None or not _same(held, token):
                return
            if storage.replace(KEY, canonical_json({"released": token["hold"]}), entry.tag):
                return
        if not last:
            time.sleep(RELEASE_PAUSE)


def _token(night: str) -> dict[str, Any]:
    return {
        "night": night,
        "hold": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "processes": process_table(),
        "pid": os.getpid(),
        "process_began": process_began(os.getpid()),
        "renewed": time.time(),
    }


def process_began(pid: int) -> float | None:
    """Return when a process began, on a clock that nobody sets where the system has one.

    Linux tells ticks since its boot; seconds since 1970 it makes of them, with what the clock says now.

    Returns
    -------
    float or None
        0 for a process that has ended and was not waited for; None where it cannot be told.
    """
    try:
        if _PROC.joinpath("self", "stat").exists():
            # The command, in parentheses, may hold blanks: what follows is the state, and 19 fields later it.
            fields = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
            return 0 if fields[0] in "ZX" else int(fields[19])
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (OSError, psutil.Error):
        return None


def process_table() -> str:
    """Name the table that this process's number is from: two containers of one machine have two.

    The kernel's boot and the namespace of process numbers, where the system tells them.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {int(psutil.boot_time())}"


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one.get("hold") == other["hold"])


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return what a lock says, or None where it is none, or was let go of."""
    try:
        held = dict(json.loads(content))
        texts = {key: str(held[key]) for key in ("night", "host")}
        return held | texts | {"pid": int(held["pid"]), "renewed": float(held["renewed"])}
    except (ValueError, TypeError, KeyError):
        return None


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        return _parsed(storage.get(KEY))
    except MissingError:
        return None


def _acquire(storage: Storage, token: dict[str, Any]) -> None:
    for _ in range(3):
        if storage.put_new(KEY, canonical_json(token)):
            return
        entry = storage.stat(KEY)
        try:
            held = _parsed(storage.get(KEY))
        except MissingError:
            continue
        if entry is None:
            continue
        if held is not None and _alive(held):
            age = time.time() - held["renewed"]
            raise LockedError(
                f"{storage.url()}: night {held['night']} is running on this output "
                f"(process {held['pid']} on {held['host']}, seen {age:.0f} s ago); wait for it, "
                f"or stop it, or choose another --output"
            )
        # What was read is void, free, or no lock; another's that took its place meanwhile has another tag.
        if storage.replace(KEY, canonical_json(token), entry.tag):
            return
    raise LockedError(f"{storage.url(KEY)}: others take this lock at the same time; try again")


def _alive(held: dict[str, Any]) -> bool:
    """Tell whether the lock's holder is at work: by its process here, by its renewals elsewhere."""
    if held.get("processes") == process_table():
        running = _is_running(held["pid"], held.get("process_began"))
        if running and held["pid"] == os.getpid():
            return held.get("hold") in _live
        if running is not None:
            return running
    return bool(time.time() - held["renewed"] < EXPIRY)


def _is_running(pid: int, began: float | None) -> bool | None:
    """Tell whether a process of this table that began then is there yet; None where it cannot be told."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # Another user's.
        pass
    now = process_began(pid)
    return None if now is None or began is None else now == began


def _renew(storage: Storage, token: dict[str, Any], stop: threading.Event, hold: Hold) -> None:
    """Renew the lock until told to stop; a lock that another night has taken is left alone."""
    while not stop.wait(RENEWAL):
        try:
            entry, held = storage.stat(KEY), _read(storage)
            if entry is None or held is None or not _same(held, token):
                hold.taken(f"night {held['night']} on {held['host']}" if held else "somebody")
                return
            if storage.replace(KEY, canonical_json({**token, "renewed": time.time()}), entry.tag):
                hold.renewed()
        except StorageError as error:
            # A renewal that fails is tried again at the next turn; the lock holds for six of them.
            hold.failed(error)
