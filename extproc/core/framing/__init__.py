"""Framings: a decoded body to JSON documents, incremental, linear, bounded.

A framing takes bytes as they come, cut anywhere, and yields the documents that they complete. It holds at most one
unfinished document of `limit` bytes, and what it needs to find the next one; no input makes it raise.

A document over the limit leaves `Gap.TOO_LARGE`, and what follows it still counts. Where places are named as `wanted`,
what lies there follows the gap as a document of its own, if it was an object: pictures come in one event with the
tokens that they took.
"""

from extproc.core.framing.event_stream import EventStream
from extproc.core.framing.json_array import JsonArray
from extproc.core.framing.multipart import Multipart, boundary
from extproc.core.framing.ndjson import NdJson
from extproc.core.framing.protocol import Framing
from extproc.core.framing.sse import Sse
from extproc.core.framing.whole import Json

__all__ = ["EventStream", "Framing", "Json", "JsonArray", "Multipart", "NdJson", "Sse", "boundary"]
