"""A gateway that can be killed: passes TCP connections on to a server that keeps the data.

Run: ``python tests/benchmarks/forwarder.py PORT HOST:PORT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side ends."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()


async def serve(port: int, host: str, behind: int) -> None:
    """Forward every connection to a port of this machine, for ever."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    to_host, _, to_port = sys.argv[2].rpartition(":")
    asyncio.run(serve(int(sys.argv[1]), to_host, int(to_port)))
