"""Against another implementation of HTTP/2: hyper-h2 as the client."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.transport.http2 import Connection
from tests.transport.http2.peer import REQUEST, Echo

NUMBERS = (1, 3, 5, 7, 9)
ENDS = ("end", "trailers", "reset")


class Client:
    """A client with hyper-h2, and the connection it talks to; what passes between them is cut anywhere."""

    def __init__(self, window: int, cuts: list[int]) -> None:
        self.seen: list[Echo] = []
        self.connection = Connection(lambda request, stream: Echo(request, stream, self.seen), 0.0)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.cuts = cuts
        self.events: list[Any] = []
        self.sent = dict.fromkeys(NUMBERS, b"")
        self.over: set[int] = set()
        self.was_reset: set[int] = set()
        for number in NUMBERS:
            self.h2.send_headers(number, list(REQUEST))
        self.exchange()

    def step(self, what: str, number: int, data: bytes, padding: int | None) -> None:
        """Do one thing on a stream that is open."""
        match what:
            case "ping":
                self.h2.ping(b"12345678")
            case "data":
                self.h2.send_data(number, data, pad_length=padding)
                self.sent[number] += data
            case "window":
                self.h2.increment_flow_control_window(len(data) + 1, number)
            case "end":
                self.h2.end_stream(number)
            case "trailers":
                self.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
            case "reset":
                self.h2.reset_stream(number)
                self.was_reset.add(number)
        if what in ENDS:
            self.over.add(number)
        self.exchange()

    def finish(self) -> None:
        """End what is open, and take all that waits."""
        for number in set(NUMBERS) - self.over:
            self.h2.end_stream(number)
        self.exchange()
        for number in set(NUMBERS) & self.connection.streams.keys():
            self.h2.increment_flow_control_window(100_000, number)
        self.exchange()

    def exchange(self) -> None:
        """Pass bytes both ways until nobody has any."""
        while (there := self.h2.data_to_send()) or self.connection.out:
            for piece in self._pieces(there):
                self.connection.receive(piece, 0.0)
            for piece in self._pieces(self.connection.pending()):
                self.events += self.h2.receive_data(piece)

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            size = self.cuts[len(pieces) % len(self.cuts)] if len(pieces) < 50 else len(data)
            pieces.append(data[at : at + size])
            at += size
        return pieces

    def read(self, number: int) -> bytes:
        """Return the answer so far."""
        found = (event for event in self.events if isinstance(event, h2.events.DataReceived))
        return b"".join(event.data for event in found if event.stream_id == number)

    def ended(self, number: int) -> bool:
        """Tell whether an answer is whole."""
        return any(isinstance(event, h2.events.StreamEnded) and event.stream_id == number for event in self.events)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("data", "ping", "window", *ENDS)), st.sampled_from(NUMBERS), st.binary()),
        max_size=40,
    ),
    window=st.integers(0, 200),
    cuts=st.lists(st.integers(1, 100), min_size=1, max_size=5),
    padding=st.none() | st.integers(0, 255),
)
def test_conversations(steps: list[tuple[str, int, bytes]], window: int, cuts: list[int], padding: int | None) -> None:
    """Whatever a client does that is right, it understands every byte of ours and gets each answer, in order."""
    client = Client(window, cuts)
    for what, number, data in steps:
        if number not in client.over:
            client.step(what, number, data, padding)
    client.finish()
    for echo, number in zip(client.seen, NUMBERS, strict=True):
        assert echo.gone == (number in client.was_reset)
        assert echo.body == client.sent[number]
        if not echo.gone:
            assert client.read(number) == echo.body
            assert client.ended(number)
    assert not client.connection.streams
    assert client.connection.held == 0
    trailers = [event.headers for event in client.events if isinstance(event, h2.events.TrailersReceived)]
    assert trailers == [[(b"grpc-status", b"0")]] * (len(NUMBERS) - len(client.was_reset))
