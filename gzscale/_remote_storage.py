"""What the stores behind a network have in common, and the web server's: clients, retries, reading.

Every request to a remote store is retried a bounded number of times with full
jitter [1]_ when the failure can pass (timeouts, lost connections, cut bodies, 408,
409, 429, 500, 502, 503, 504). Neither botocore nor s3fs retries below: they would
multiply the attempts. (aiohttp repeats a request once where a connection that it
had kept open turns out to be dead.)

References
----------
.. [1] M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

from gzscale._failures import (
    describe,
    finds_no_credentials,
    is_denied,
    is_missing,
    passes,
    refuses_credentials,
    remedy,
)
from gzscale._local_storage import Entry, Storage
from gzscale._web import Download, request
from gzscale.errors import CredentialsError, MissingError, StorageError

__all__ = ["ATTEMPTS", "HttpStorage", "RemoteStorage"]

_T = TypeVar("_T")

#: Attempts of a remote call, the first one included: a gateway that is started anew is back within 15 s.
ATTEMPTS = 8
#: Attempts without credentials: mostly there are none, and to be told so should not take half a minute.
ATTEMPTS_UNKNOWN = 6
#: Longest pause before the first retry [s]; doubled for each further one. The shortest is half of it: all
#: together are 16 to 32 s, however the dice fall.
FIRST_PAUSE = 0.25
#: Longest wait for a connection, and for the next bytes of an answer [s].
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60
#: Seconds within which refused credentials are not looked up again.
LOOK_UP_PAUSE = 10.0


class RemoteStorage(Storage):
    """What is common to the stores behind a network; crosses processes by pickle and by fork."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    @property
    def _fs(self) -> Any:
        """The file system of this process: a forked child must not use its parent's sockets."""
        mine = self._client  # Another thread may forget it.
        if mine is None or mine[0] != os.getpid():
            environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
            with _clients_lock:
                mine = (os.getpid(), _client(self.root.partition(":")[0], os.getpid(), environment))
            self._client = mine
        return mine[1]

    def _retry(self, key: str, call: Callable[[], _T]) -> _T:
        """Call until it succeeds, fails for good, or `ATTEMPTS` are used up."""
        for attempt in range(1, ATTEMPTS + 1):
            client = None
            try:
                client = self._fs
                return call()
            except StorageError:
                raise
            except Exception as error:
                if is_missing(error):
                    raise MissingError(f"{self.url(key)}: nothing is stored there") from error
                # A service that gives them to many at once does not give them to all.
                none = finds_no_credentials(error)
                refused = refuses_credentials(error) and not none
                if refused and client is not None and attempt < ATTEMPTS and self._look_up(client):
                    continue
                if none and client is not None:
                    self._look_up(client, at_once=True)
                most = ATTEMPTS_UNKNOWN if none else ATTEMPTS
                if refused or not (none or passes(error)) or attempt >= most:
                    raise self._failure(key, error, f"attempt {attempt} of {most}") from error
            time.sleep(random.uniform(0.5, 1) * FIRST_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _failure(self, key: str, error: Exception, tried: str) -> StorageError:
        """Say what a request has failed of for good."""
        told = f"{self.url(key)}: {describe(error)} ({tried}); {remedy(error)}"
        if refuses_credentials(error):
            return CredentialsError(told)
        return StorageError(told, errno.EACCES if is_denied(error) else None)

    def _look_up(self, refused: Any, at_once: bool = False) -> bool:
        """Take a client with the credentials of now, and say whether it is another than the one refused.

        A client keeps those that it found in a file, though the file was renewed since, or none.
        """
        self._client = None
        if self._fs is refused:
            _forget_clients(0.0 if at_once else LOOK_UP_PAUSE)
            self._client = None
        return self._fs is not refused


class HttpStorage(RemoteStorage):
    """A tree on a web server, read only."""

    def get(self, key: str) -> bytes:
        """Return the bytes stored under ``key``."""
        return self._retry(key, lambda: self._request("GET", key)[1])

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``, also from a server that knows no ranges."""
        if stop <= start:
            return b""
        return self._retry(key, lambda: self._request("GET", key, (start, stop))[1])

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the bytes stored under ``key`` as they come, about 1 MiB at a time."""
        with contextlib.closing(Download(self._fs, self.url(key))) as download:
            while piece := self._retry(key, lambda: fsspec.asyn.sync(self._fs.loop, download.piece)):
                yield piece

    def stat(self, key: str) -> Entry | None:
        """Ask for size and ETag (or date) with ``HEAD``, or None where there is nothing."""
        try:
            headers = self._retry(key, lambda: self._request("HEAD", key)[0])
        except MissingError:
            return None
        size = -1 if "Content-Encoding" in headers else int(headers.get("Content-Length", -1))
        tag = headers.get("ETag") or headers.get("Last-Modified") or str(size)
        return Entry(key, size, tag.removeprefix("W/").strip('"'))

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Refuse."""
        raise self._read_only(key)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Refuse."""
        raise self._read_only(key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Refuse."""
        raise self._read_only(key)

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Refuse."""
        raise self._read_only(key)

    def put_file(self, key: str, path: Path) -> None:
        """Refuse."""
        raise self._read_only(key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Refuse."""
        raise StorageError(f"{self.url(prefix)}: an HTTP tree cannot be listed; give the files' names")

    def delete(self, key: str) -> None:
        """Refuse."""
        raise self._read_only(key)

    def delete_tree(self, prefix: str) -> None:
        """Refuse."""
        raise self._read_only(prefix)

    def clear_unfinished(self, prefix: str = "") -> int:
        """Refuse."""
        raise self._read_only(prefix)

    def _read_only(self, key: str) -> StorageError:
        return StorageError(f"{self.url(key)}: an HTTP tree is read only; write to a folder or to s3://")

    def _request(self, method: str, key: str, span: tuple[int, int] | None = None) -> tuple[Any, bytes]:
        return fsspec.asyn.sync(self._fs.loop, request, self._fs, method, self.url(key), span)


_clients_lock = threading.Lock()
_forgot = float("-inf")


def _forget_clients(pause: float) -> None:
    """Have clients made anew, once for all threads that are refused within so many seconds."""
    global _forgot
    with _clients_lock:
        if time.monotonic() - _forgot > pause:
            _client.cache_clear()
            _forgot = time.monotonic()


@functools.lru_cache(maxsize=8)
def _client(protocol: str, process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    """Make the one client of a process for a protocol, an endpoint and its credentials."""
    if protocol != "s3":
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        return fsspec.filesystem(
            "http", skip_instance_cache=True, client_kwargs={"timeout": timeout, "trust_env": True}
        )
    fs = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "max_pool_connections": 32,
        },
    )
    fs.retries = 1
    return fs
