"""The server side of HTTP/2 (RFC 9113), sans-io: bytes in, bytes out.

Only what gRPC needs of it: requests with bodies, answers with trailers. No sockets, no clock, no asyncio; whoever owns
the socket passes on what it brings and sends what there is to send.
"""

from extproc.transport.http2.connection import Accept, Connection
from extproc.transport.http2.errors import ErrorCode
from extproc.transport.http2.headers import Request
from extproc.transport.http2.room import Room
from extproc.transport.http2.stream import Receiver, Stream

__all__ = ["Accept", "Connection", "ErrorCode", "Receiver", "Request", "Room", "Stream"]
