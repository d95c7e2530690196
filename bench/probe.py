"""One exchange through Envoy before anything is measured: it shows that all works, and how long the answer is."""

from __future__ import annotations

import asyncio
import re

_SECONDS = 30
_LONGEST = 16 * 1024 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class ProbeError(Exception):
    """The answer is not the expected one."""


async def probe(port: int, request: bytes) -> int:
    """Send a request; return the size of the answer, its head and its framing included.

    Raises:
        ProbeError: the answer is not 200.
    """
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ProbeError(f"Envoy answers {head.splitlines()[0].decode()}")
        length = _LENGTH.search(head)
        body = await (reader.readexactly(int(length[1])) if length else reader.readuntil(_LAST_CHUNK))
        writer.close()
        await writer.wait_closed()
    return len(head) + len(body)
