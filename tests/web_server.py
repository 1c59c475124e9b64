"""A web server of one large file that it makes as it sends; it counts what it sends, and cuts on purpose."""

from __future__ import annotations

import gzip
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: The file repeats these bytes, numbered, so that no two blocks are alike.
BLOCK = 1 << 16


def content(start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file without end."""
    first, last = start // BLOCK, -(-stop // BLOCK)
    blocks = b"".join(number.to_bytes(8, "big") * (BLOCK // 8) for number in range(first, last))
    return blocks[start - first * BLOCK : stop - first * BLOCK]


@dataclass
class LargeFile:
    """Serves the first `size` bytes of `content` under every name.

    ranges: knows ``Range``. length: how the body's end is told, ``stated``, ``chunked``, ``closed``
    (HTTP/1.0: by the connection's end) or ``gzip`` (chunked and encoded). cuts: after how many
    bytes of the body the connection is cut, of one request after the other.
    """

    size: int
    ranges: bool = True
    length: str = "stated"
    cuts: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0" if owner.length == "closed" else "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                owner._answer(self)

            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    owner._answer(self)

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        told = handler.headers.get("Range", "")
        self.requests.append((handler.command, told))
        start, status = 0, 200
        if told and self.ranges:
            start, status = int(told.removeprefix("bytes=").split("-")[0]), 206
        if start >= self.size > 0:
            status = 416
        handler.send_response_only(status)
        if self.tags:
            handler.send_header("ETag", self.tags.pop(0))
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{self.size - 1}/{self.size}")
        if status == 416:
            handler.send_header("Content-Range", f"bytes */{self.size}")
            handler.send_header("Content-Length", "0")
        elif self.length == "stated":
            handler.send_header("Content-Length", str(self.size - start))
        elif self.length != "closed":
            handler.send_header("Transfer-Encoding", "chunked")
        if self.length == "gzip":
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        if handler.command == "GET" and status != 416:
            self._send(handler, start, self.cuts.pop(0) if self.cuts else None)

    def _send(self, handler: BaseHTTPRequestHandler, start: int, cut: int | None) -> None:
        stop = self.size if cut is None else min(start + cut, self.size)
        for at in range(start, stop, BLOCK):
            data = content(at + self.shift, min(at + BLOCK, stop) + self.shift)
            self.sent += len(data)
            if self.length == "gzip":
                data = gzip.compress(data, 1)
            if self.length in ("chunked", "gzip"):
                data = b"%x\r\n%s\r\n" % (len(data), data)
            handler.wfile.write(data)
        if cut is not None:
            time.sleep(0.05)
            handler.close_connection = True
        elif self.length in ("chunked", "gzip"):
            handler.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """Clients that go away are a part of the tests."""
