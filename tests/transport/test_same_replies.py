"""Two transports, one server: what they answer is the same."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from extproc import formats, stream
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.transport import SERVICE, Transport
from extproc.transport.fast import FastTransport
from extproc.transport.grpcio import GrpcioTransport
from tests.formats.test_transcripts import FOLDERS, Transcript, read
from tests.wire.messages import body, headers, trailers


def messages(found: Transcript, chosen: random.Random) -> list[bytes]:
    """Return the messages of a transcript as an Envoy might send them: bodies in chunks, some with trailers."""
    sent = []
    for side, message in (("request", found.request), ("response", found.response)):
        sent.append(headers(f"{side}_headers", message.headers))
        step = chosen.choice((7, 100, 1000, 100_000))
        sent += [body(f"{side}_body", message.body[at : at + step]) for at in range(0, len(message.body), step)]
        sent.append(trailers(f"{side}_trailers") if chosen.random() < 0.3 else body(f"{side}_body", b"", end=True))
    return sent if chosen.random() < 0.8 else sent[: chosen.randrange(1, len(sent))]


async def replies(transport: Transport, streams: list[list[bytes]]) -> list[list[bytes]]:
    """Send all, some streams at a time and a message after the answer to the one before; return what comes back."""
    address = await transport.start("127.0.0.1:0")
    room = asyncio.Semaphore(20)
    try:
        async with grpc.aio.insecure_channel(address) as channel:

            async def talk(sent: list[bytes]) -> list[bytes]:
                async with room:
                    call = channel.stream_stream(f"/{SERVICE}/Process")()
                    got = []
                    for message in sent:
                        await call.write(message)
                        got.append(await call.read())
                    await call.done_writing()
                    assert await call.code() is grpc.StatusCode.OK
                    return got

            return await asyncio.gather(*(talk(sent) for sent in streams))
    finally:
        await transport.stop(0, asyncio.Event())


async def test_every_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages of every transcript get the same replies, byte by byte, through both transports."""
    monkeypatch.setattr(stream, "monotonic", lambda: 5.0)
    chosen = random.Random(1)
    streams = [messages(read(folder), chosen) for folder in FOLDERS]
    assert len(streams) > 100
    fast, reference = [
        await replies(transport(Observer(Settings(), Metrics(), formats.find)), streams)
        for transport in (FastTransport, GrpcioTransport)
    ]
    assert fast == reference
    assert any(len(reply) > 200 for got in fast for reply in got)
