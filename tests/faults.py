"""A small web server that fails on purpose: for files, or in front of another server."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]
Backend = Callable[[str, str, dict[str, str], bytes], Answer]

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>"


@dataclass
class Fault:
    """What goes wrong with one request.

    kind: ``status`` (answered with it, nothing is done), ``reset`` (connection reset, nothing is
    done), ``stall`` (no answer for `seconds`), ``truncate`` (the right answer, cut in its body),
    ``lost`` (the request is done, its answer never comes). A `lasting` one meets every request that fits.
    """

    kind: str
    status: int = 500
    body: bytes = b""
    seconds: float = 1.0
    method: str = ""
    path: str = ""
    lasting: bool = False

    def fits(self, method: str, path: str) -> bool:
        return (not self.method or method == self.method) and self.path in path


@dataclass
class FaultyServer:
    """Answers from `backend`, after the `faults` that are still to come; notes every request."""

    backend: Backend
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, *faults: Fault) -> None:
        """Let the next requests that fit meet these faults, and forget the requests noted so far."""
        with self._lock:
            self.faults[:] = faults
            self.requests.clear()

    def _next_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            fault = next((fault for fault in self.faults if fault.fits(method, path)), None)
            if fault and not fault.lasting:
                self.faults.remove(fault)
            return fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def _serve(self) -> None:
                with suppress(ConnectionError):
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    fault = owner._next_fault(self.command, self.path)
                    owner._answer(self, fault, body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler, fault: Fault | None, body: bytes) -> None:
        if fault and fault.kind == "status":
            self._send(handler, (fault.status, {"Content-Type": "application/xml"}, fault.body))
            return
        if fault and fault.kind == "reset":
            _reset(handler)
            return
        if fault and fault.kind == "stall":
            time.sleep(fault.seconds)
        answer = self.backend(handler.command, handler.path, dict(handler.headers), body)
        if fault and fault.kind == "lost":
            _reset(handler)
            return
        self._send(handler, answer, cut=fault is not None and fault.kind == "truncate")

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer, cut: bool = False) -> None:
        status, headers, body = answer
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[: len(body) // 2] if cut else body)
        handler.close_connection = cut


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """Clients that go away are a part of the tests."""


def _reset(handler: BaseHTTPRequestHandler) -> None:
    # No lingering: the peer gets RST, as from a server that crashed.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def relay(endpoint: str) -> Backend:
    """Pass every request on, as it is, to another server."""
    place = urlsplit(endpoint).netloc

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(place, timeout=30)
        connection.request(method, path, body=body or None, headers=headers)
        reply = connection.getresponse()
        content = reply.read()
        kept = {k: v for k, v in reply.getheaders() if k.lower() not in {"transfer-encoding", "connection"}}
        connection.close()
        return reply.status, kept, content

    return answer


def files(tree: dict[str, bytes], ranges: bool = True) -> Backend:
    """Serve some files by name, with or without support for ``Range``."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        content = tree.get(unquote(path).lstrip("/"))
        if content is None:
            return 404, {}, b"<html>no such page</html>"
        told = headers.get("Range", "")
        if not ranges or not told:
            return 200, {"Content-Length": str(len(content)), "ETag": f'"{len(content)}"'}, content
        start, stop = (int(number) for number in told.removeprefix("bytes=").split("-"))
        if start >= len(content):
            return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
        part = content[start : stop + 1]
        return 206, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"}, part

    return answer
