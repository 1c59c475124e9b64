"""One request to a web server, in whole or for a range of bytes, whatever the server knows of ranges."""

from __future__ import annotations

from typing import Any

from gzscale.errors import StorageError

__all__ = ["request"]


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
    # Compressed in transit, neither lengths nor ranges would be those of the file.
    headers = {"Accept-Encoding": "identity"}
    if span:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    session = await fs.set_session()
    async with session.request(method, fs.encode_url(url), headers=headers, allow_redirects=True) as answer:
        if span and answer.status == 416:
            return answer.headers, b""
        answer.raise_for_status()
        if not span:
            return answer.headers, await answer.read()
        start, stop = span
        if answer.status == 206:
            told = answer.headers.get("Content-Range", "")
            if not told.startswith(f"bytes {start}-"):
                raise StorageError(f"{url}: asked for bytes from {start}, the server sent {told!r}")
            return answer.headers, (await answer.read())[: stop - start]
        # The whole file is coming: read on to the end of what was asked for.
        body = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) >= stop:
                break
        return answer.headers, bytes(body[start:stop])
