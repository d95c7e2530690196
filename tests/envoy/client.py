"""The clients of the tests: HTTP/1.1 as bytes on a socket, HTTP/2 by httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import httpx

from extproc.demo.processes import Address
from tests.envoy.message import SECONDS, Connection, Incoming, Message, head

HOST = "dashscope.aliyuncs.com"


class Client(Connection):
    """A connection to Envoy."""

    def response(self, method: str = "POST", after: Incoming | None = None) -> Incoming:
        """Return the next response, to be read; `after` is the one before it on this connection."""
        return Incoming(self._reader, after.rest if after else b"", response_to=method)


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Client]:
    """Connect, and close with the block."""
    reader, writer = await asyncio.open_connection(*address, limit=4 * 1024 * 1024)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        client.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(address: Address, *pieces: bytes, method: str = "POST") -> Message:
    """Send a request on a connection of its own; return the whole response."""
    async with connected(address) as client:
        response = client.response(method)
        with suppress(ConnectionError):  # the answer may come before all is sent
            await client.send(*pieces)
        return await response.all()


def request(path: str, body: bytes | None = b"", *headers: str, method: str = "POST", host: str = HOST) -> bytes:
    """Return a request with a Content-Length; without one if the body is `None`."""
    length = () if body is None else (f"content-length: {len(body)}",)
    return head(f"{method} {path} HTTP/1.1", f"host: {host}", *length, *headers) + (body or b"")


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST of JSON."""
    return request(path, body, "content-type: application/json", *headers)


async def ask_by_http2(
    address: Address, path: str, body: bytes | AsyncIterator[bytes]
) -> AsyncIterator[httpx.Response]:
    """Send a POST of JSON by HTTP/2, without TLS; yield the response while its body comes."""
    headers = {"host": HOST, "content-type": "application/json"}
    url = f"http://{address[0]}:{address[1]}{path}"
    async with (
        httpx.AsyncClient(http1=False, http2=True, timeout=SECONDS) as client,
        client.stream("POST", url, headers=headers, content=body) as response,
    ):
        yield response


def as_message(response: httpx.Response, body: Sequence[bytes]) -> Message:
    """Return what httpx received, to be compared."""
    return Message(
        start=str(response.status_code),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw],
        body=bytearray(b"".join(body)),
        end="whole",
    )
