"""How a gRPC call ends."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """https://github.com/grpc/grpc/blob/master/doc/statuscodes.md."""

    OK = 0
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallError(Exception):
    """A call fails; the message tells the client why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
