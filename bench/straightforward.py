"""The server that one writes first: envoy-data-plane's messages, grpcio and json. `python -m bench.straightforward`.

It does what is asked: model and counts of whole answers and of streams, as dynamic metadata. Nothing in it is slow on
purpose, and it does less than extproc: one API, no compression, no limits, no counters of its own. It takes a free
port and says which.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import grpc
import uvloop
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyResponse,
    HeadersResponse,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from envoy_data_plane.google.protobuf import Struct

NAMESPACE = "asm.llmproxy"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
LONGEST_MESSAGE = 64 * 1024 * 1024

Metadata = dict[str, str | int]


class Exchange:
    """Follows one request and its answer."""

    def __init__(self) -> None:
        self._request = b""
        self._response = b""
        self._streamed = False

    def answer(self, message: ProcessingRequest) -> ProcessingResponse:
        """Take a message, return the reply."""
        if (headers := message.request_headers) is not None:
            return ProcessingResponse(request_headers=HeadersResponse())
        if (body := message.request_body) is not None:
            self._request += body.body
            found = asked(self._request) if body.end_of_stream else {}
            return ProcessingResponse(request_body=BodyResponse(), dynamic_metadata=published(found))
        if (headers := message.response_headers) is not None:
            self._streamed = header(headers, "content-type").startswith("text/event-stream")
            return ProcessingResponse(response_headers=HeadersResponse())
        if (body := message.response_body) is not None:
            found = self._response_body(body.body, end=body.end_of_stream)
            return ProcessingResponse(response_body=BodyResponse(), dynamic_metadata=published(found))
        if message.request_trailers is not None:
            return ProcessingResponse(request_trailers=TrailersResponse())
        return ProcessingResponse(response_trailers=TrailersResponse())

    def _response_body(self, data: bytes, *, end: bool) -> Metadata:
        self._response += data
        if not self._streamed:
            return answered(self._response) if end else {}
        found: Metadata = {}
        *events, self._response = self._response.split(b"\n\n")
        for event in events:
            found |= answered(event.removeprefix(b"data: "))
        return found


def header(headers: HttpHeaders, name: str) -> str:
    """Return the value of a header, or nothing."""
    for item in headers.headers.headers if headers.headers else ():
        if item.key == name:
            return item.raw_value.decode()
    return ""


def asked(document: bytes) -> Metadata:
    """Return what a request says."""
    try:
        model = json.loads(document)["model"]
    except (ValueError, LookupError, TypeError):
        return {}
    return {"request_model": model, "model_tag": model}


def answered(document: bytes) -> Metadata:
    """Return what an answer, or an event of one, says."""
    try:
        usage = json.loads(document)["usage"]
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    except (ValueError, LookupError, TypeError):
        return {}
    return {"request_prompt_tokens": prompt, "request_completion_tokens": completion, "usage": "reported"}


def published(found: Metadata) -> Struct | None:
    """Return metadata as Envoy takes it."""
    return Struct.from_dict({NAMESPACE: found}) if found else None


async def process(messages: AsyncIterator[ProcessingRequest], _context: object) -> AsyncIterator[ProcessingResponse]:
    """Answer a stream."""
    exchange = Exchange()
    async for message in messages:
        yield exchange.answer(message)


async def main() -> None:
    """Serve until somebody ends the process."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", LONGEST_MESSAGE)])
    method = grpc.stream_stream_rpc_method_handler(
        process, request_deserializer=ProcessingRequest.parse, response_serializer=bytes
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Process": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: ext_proc on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
