"""A server that answers every message and looks at none, the least a transport can cost: `python -m bench.noop fast`.

On either transport the same answers: an empty reply of the right kind. It takes a free port and says which.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import uvloop

from extproc.metrics import Metrics
from extproc.serve import observer
from extproc.settings import Settings
from extproc.transport import SERVICE
from extproc.transport.fast import FastTransport
from extproc.transport.messages import LONGEST_MESSAGE
from extproc.transport.rpc import Invocation
from extproc.wire.ext_proc_pb2 import ProcessingRequest
from extproc.wire.replies import PHASES, UNCHANGED

# The field that says the kind of a message comes first; its tag is its number and three bits for its type.
_FIELDS = ProcessingRequest.DESCRIPTOR.fields_by_name
_REPLIES = {_FIELDS[phase].number << 3 | 2: UNCHANGED[phase] for phase in PHASES}


class _Answers:
    """Answers a call on the fast transport: see extproc.transport.rpc.Handler."""

    def __init__(self, _invocation: Invocation) -> None:
        pass

    def receive(self, message: bytes) -> bytes:
        return _REPLIES[message[0]]

    def end(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _Fast(FastTransport):
    def __init__(self) -> None:
        super().__init__(observer(Settings(), Metrics()))
        self._methods = {f"/{SERVICE}/Process": _Answers}


async def _fast() -> None:
    server = _Fast()
    _say(await server.start("127.0.0.1:0"))
    await asyncio.Event().wait()


async def _answers(messages: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
    async for message in messages:
        yield _REPLIES[message[0]]


async def _grpcio() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", LONGEST_MESSAGE)])
    method = grpc.stream_stream_rpc_method_handler(_answers)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Process": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _say(f"127.0.0.1:{port}")
    await server.wait_for_termination()


def _say(address: str) -> None:
    print(f"ready: ext_proc on {address}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    uvloop.run({"fast": _fast, "grpcio": _grpcio}[sys.argv[1]]())
