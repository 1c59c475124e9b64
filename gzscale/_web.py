"""Requests to a web server, in whole or in pieces, whatever the server knows of ranges."""

from __future__ import annotations

import zlib
from typing import Any

from gzscale.errors import StorageError

__all__ = ["Download", "request"]

#: Bytes of a download that are in memory at one time; an attempt that brings fewer has failed.
PIECE_BYTES = 1 << 20
#: How often a download starts anew on a server that cannot go on from its middle.
MAX_RESTARTS = 5


async def request(fs: Any, method: str, url: str, span: tuple[int, int] | None) -> tuple[Any, bytes]:
    """Send one request; of the answer, keep the bytes of ``span`` alone.

    Parameters
    ----------
    fs
        fsspec's HTTP file system, whose session is used.
    method
        ``GET`` or ``HEAD``.
    url
        The whole address.
    span
        First byte and the one behind the last; everything by default.

    Returns
    -------
    tuple
        The answer's headers and body.

    Raises
    ------
    StorageError
        If the server sends another range than it was asked for.
    """
    async with await _send(fs, method, url, f"{span[0]}-{span[1] - 1}" if span else "") as answer:
        if span and answer.status == 416:
            return answer.headers, b""
        answer.raise_for_status()
        if not span:
            return answer.headers, await answer.read()
        start, stop = span
        if answer.status == 206:
            _check_range(answer, url, start)
            return answer.headers, (await answer.read())[: stop - start]
        # The whole file is coming: read on to the end of what was asked for.
        body = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) >= stop:
                break
        return answer.headers, bytes(body[start:stop])


class Download:
    """A file as it comes from a web server: one request where nothing breaks, one piece in memory.

    After a call of `piece` that failed, the next one goes on from the last byte that was
    returned: by a range where the server knows them, and else from the file's start, where
    what comes again is compared with what was returned and passed over.

    A body of a stated length, or in chunks, is known to be whole. One that ends with its
    connection and states no length (HTTP/1.0) is taken as it is.

    Parameters
    ----------
    fs
        fsspec's HTTP file system, whose session is used.
    url
        The whole address.
    """

    def __init__(self, fs: Any, url: str) -> None:
        self._fs = fs
        self._url = url
        self._answer: Any = None
        self._ended = False
        self._position = 0
        self._checksum = 0
        self._restarts = 0
        self._size = -1
        self._tag: str | None = None
        # Encoded in transit all the same, it has no lengths and ranges that are the file's.
        self._plain = True

    async def piece(self) -> bytes:
        """Return the next bytes, `PIECE_BYTES` of them but at the end; none when all were returned.

        Raises
        ------
        StorageError
            If the file changed since its first byte, or was begun anew too often.
        Exception
            Any error of the connection; the call can be repeated.
        """
        try:
            if self._answer is None and not self._ended:
                await self._open()
            body = b"" if self._ended else await self._read(PIECE_BYTES)
        except BaseException:
            self.close()
            raise
        self._position += len(body)
        self._checksum = zlib.crc32(body, self._checksum)
        if len(body) < PIECE_BYTES:
            self.close()
            self._ended = self._size in (-1, self._position)
            if self._position > self._size >= 0:
                raise self._changed()
            if not body and not self._ended:
                raise ConnectionError(f"the file ended after {self._position} of {self._size} bytes")
        return body

    def close(self) -> None:
        """Let the connection go."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._fs.loop.call_soon_threadsafe(answer.close)

    async def _open(self) -> None:
        start = self._position if self._plain else 0
        self._answer = answer = await _send(self._fs, "GET", self._url, f"{start}-" if start else "")
        if start and answer.status == 416:
            if answer.headers.get("Content-Range", "") != f"bytes */{start}":
                raise self._changed()
            self._ended = True
            return
        answer.raise_for_status()
        self._plain = "Content-Encoding" not in answer.headers
        self._compare(answer)
        if answer.status == 206:
            _check_range(answer, self._url, start)
        elif self._position:
            await self._pass_over()

    def _compare(self, answer: Any) -> None:
        """Note the file's size and tag, or compare them with those of the first answer."""
        size = answer.headers.get("Content-Length", "") if self._plain else ""
        if answer.status == 206:
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        told = int(size) if size.isdigit() else -1
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        same = told in (-1, self._size) or self._size == -1
        if not same or (tag and self._tag and tag != self._tag):
            raise self._changed()
        self._size = max(self._size, told)
        self._tag = self._tag or tag

    async def _pass_over(self) -> None:
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise StorageError(
                f"{self._url}: the connection was lost {self._restarts} times, and the server cannot go on "
                "from the middle of a file; fetch it with another program, and name the local file"
            )
        left, checksum = self._position, 0
        while left:
            body = await self._read(min(left, PIECE_BYTES))
            if not body:
                raise self._changed()
            left -= len(body)
            checksum = zlib.crc32(body, checksum)
        if checksum != self._checksum:
            raise self._changed()

    async def _read(self, length: int) -> bytes:
        body = bytearray()
        while len(body) < length and (data := await self._answer.content.read(length - len(body))):
            body += data
        return bytes(body)

    def _changed(self) -> StorageError:
        return StorageError(f"{self._url}: the file changed while it was fetched; run the same command again")


async def _send(fs: Any, method: str, url: str, wanted: str) -> Any:
    # Compressed in transit, neither lengths nor ranges would be those of the file.
    headers = {"Accept-Encoding": "identity"}
    if wanted:
        headers["Range"] = f"bytes={wanted}"
    session = await fs.set_session()
    return await session.request(method, fs.encode_url(url), headers=headers, allow_redirects=True)


def _check_range(answer: Any, url: str, start: int) -> None:
    told = answer.headers.get("Content-Range", "")
    if not told.startswith(f"bytes {start}-"):
        raise StorageError(f"{url}: asked for bytes from {start}, the server sent {told!r}")
