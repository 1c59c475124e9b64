"""Prefect's embedded server ends with the process that started it, however that one ends."""

from __future__ import annotations

import atexit
import contextlib
import subprocess

import psutil

__all__ = ["end_server_with_us"]

#: Waits for a line; where the pipe ends without one, the process at its other end was killed.
_WATCH = 'read -r line && exit 0; kill "$1" 2>/dev/null'
_watched: set[int] = set()


def end_server_with_us() -> None:
    """Have a shell wait for the end of this process, and end the server if nobody else did.

    Prefect ends its embedded server when the interpreter exits. A process that is killed
    with SIGKILL, or by the kernel for its memory, leaves it behind.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.pid not in _watched and "prefect.server" in " ".join(child.cmdline()):
                _watch(child.pid)


def _watch(pid: int) -> None:
    shell = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "sh", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _watched.add(pid)
    atexit.register(_dismiss, shell)


def _dismiss(shell: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        shell.communicate(b"done\n", timeout=5)
