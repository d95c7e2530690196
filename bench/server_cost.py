"""What the server costs a mesh: `python bench/server_cost.py`.

Runs `extproc serve` and talks to it as Envoys do, over gRPC: CPU per exchange (the server's own, from /proc), memory at
rest, per connection and per open stream. The client is in another process, so its cost is not in the figures; how long
anything took is not either.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import grpc

from extproc.demo.processes import extproc_server
from extproc.transport import SERVICE
from extproc.wire.ext_proc_pb2 import HeaderMap, HeaderValue, HttpBody, HttpHeaders, ProcessingRequest

EXCHANGES = 10_000
AT_ONCE = 64
EVENTS = 200
CONNECTIONS = 500
STREAMS = 2_000

_TICKS = os.sysconf("SC_CLK_TCK")


def headers(**fields: str) -> HttpHeaders:
    """Return headers as Envoy sends them; `_x` stands for `:x`."""
    found = [HeaderValue(key=name.replace("_", ":", 1), raw_value=value.encode()) for name, value in fields.items()]
    found += [HeaderValue(key=f"x-filler-{number}", raw_value=b"some value of a header") for number in range(8)]
    return HttpHeaders(headers=HeaderMap(headers=found))


def body(data: bytes, *, end: bool) -> HttpBody:
    """Return a chunk of a body."""
    return HttpBody(body=data, end_of_stream=end)


REQUEST = [
    ProcessingRequest(request_headers=headers(_method="POST", _path="/v1/chat/completions", _authority="api.test")),
    ProcessingRequest(
        request_body=body(b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello there"}]}', end=True)
    ),
]
USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
WHOLE = [
    *REQUEST,
    ProcessingRequest(response_headers=headers(_status="200", **{"content-type": "application/json"})),
    ProcessingRequest(
        response_body=body(
            json.dumps({"model": "gpt-4o", "choices": [{"message": {"content": "Hi"}}], "usage": USAGE}).encode(),
            end=True,
        )
    ),
]


def event(value: object) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


STREAMED = [
    *REQUEST,
    ProcessingRequest(response_headers=headers(_status="200", **{"content-type": "text/event-stream"})),
    *(
        ProcessingRequest(
            response_body=body(
                event({"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "word "}}], "usage": None}),
                end=False,
            )
        )
        for _ in range(EVENTS)
    ),
    ProcessingRequest(response_body=body(event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n", end=True)),
]


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connection(target: str) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    return grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


async def exchange(channel: grpc.aio.Channel, messages: list[bytes]) -> None:
    """Send the messages of one exchange, each after the answer to the one before."""
    call = channel.stream_stream(f"/{SERVICE}/Process")()
    for message in messages:
        await call.write(message)
        await call.read()
    await call.done_writing()


async def load(channel: grpc.aio.Channel, messages: list[bytes], times: int) -> None:
    """Make exchanges, so many at once."""

    async def some() -> None:
        for _ in range(times // AT_ONCE):
            await exchange(channel, messages)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def main() -> None:
    """Print the figures."""
    whole = [message.SerializeToString() for message in WHOLE]
    streamed = [message.SerializeToString() for message in STREAMED]
    async with extproc_server("--transport", sys.argv[1] if sys.argv[1:] else "fast") as server:
        pid, target = server.process.process.pid, "{}:{}".format(*server.address)
        print(f"memory at rest: {memory(pid) / 2**20:.0f} MiB")
        channel = connection(target)
        await load(channel, whole, EXCHANGES // 4)
        before = cpu(pid)
        await load(channel, whole, EXCHANGES)
        each = (cpu(pid) - before) / EXCHANGES
        print(f"CPU per exchange of four messages: {each * 1e6:.0f} us; {1 / each:,.0f} a second on one core")
        before = cpu(pid)
        await load(channel, streamed, AT_ONCE * 5)
        per_event = ((cpu(pid) - before) / (AT_ONCE * 5) - each) / EVENTS
        print(f"CPU per event of a stream: {per_event * 1e6:.0f} us")
        print(f"memory after {EXCHANGES:,} exchanges: {memory(pid) / 2**20:.0f} MiB")
        before_memory = memory(pid)
        channels = [connection(target) for _ in range(CONNECTIONS)]
        await asyncio.gather(*(exchange(one, whole) for one in channels))
        print(f"memory per connection: {(memory(pid) - before_memory) / CONNECTIONS / 1024:.0f} KiB")
        before_memory = memory(pid)
        calls = []
        for number in range(STREAMS):
            calls.append(call := channels[number % CONNECTIONS].stream_stream(f"/{SERVICE}/Process")())
            for message in whole[:3]:
                await call.write(message)
                await call.read()
        print(f"memory per open stream: {(memory(pid) - before_memory) / STREAMS / 1024:.0f} KiB")
        for call in calls:
            call.cancel()
        await asyncio.gather(channel.close(), *(one.close() for one in channels))


if __name__ == "__main__":
    asyncio.run(main())
