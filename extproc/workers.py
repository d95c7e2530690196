"""Several processes that serve as one: `--workers N`.

The process that was started binds, forks, and waits. It has neither threads nor an event loop, so it can fork at any
time; it imports what its workers need, so that they share that memory. Each worker has an event loop of its own; one
more process answers `GET /metrics` for all. docs/decisions/0006-workers.md says why.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from socket import socket
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop

from extproc.exposition import MetricsServer
from extproc.listening import SharedAddress
from extproc.merging import Board
from extproc.serve import ServeError, Stopping, cannot_listen, drain, metrics_listener, observer, say_ready
from extproc.settings import Settings
from extproc.tls import Certificates
from extproc.transport.fast import FastTransport

_STEADY_SECONDS = 10.0
"""A process that has run for so long is replaced at once when it ends, others after a pause."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""In seconds; it doubles each time."""
_LAST_SECONDS = 5.0
"""How long a process may take to end when it is to end at once."""

_log = logging.getLogger(__name__)


def supervise(settings: Settings, certificates: Certificates | None) -> None:
    """Serve with several workers until SIGTERM or SIGINT; a second signal cuts the draining short.

    Raises:
        ServeError: an address cannot be listened on, or a worker does not start.
    """
    with metrics_listener(settings) as metrics, _folder() as folder:
        try:
            address = SharedAddress(settings.listen, settings.workers)
        except OSError as error:
            raise cannot_listen(settings, error) from None
        board = Board(folder, settings.workers)
        workers = [
            _Child(number, f"worker {number}", _Worker(settings, certificates, address, board, number))
            for number in range(settings.workers)
        ]
        answering = _Child(settings.workers, "metrics", _Answering(metrics, board, folder))
        board.pids[settings.workers + 1] = os.getpid()
        _Supervisor(workers, answering, board).run(lambda: say_ready(settings, address.shown, metrics))


@contextmanager
def _folder() -> Iterator[str]:
    try:
        folder = TemporaryDirectory(prefix="extproc-")
    except OSError as error:
        raise ServeError(f"no folder for the metrics of workers (TMPDIR says where): {error}") from None
    with folder as name:
        yield name


class _Orders:
    """What all processes are told at once: first to stop, then to end.

    An order is a pipe that closes; so it does, too, when the supervisor is killed.
    """

    def __init__(self) -> None:
        (self.stop, stop), (self.end, end) = os.pipe(), os.pipe()
        self._to_give = [stop, end]

    def next(self) -> None:
        """Give the first order; if it was given before, the second."""
        if self._to_give:
            os.close(self._to_give.pop(0))

    def all(self) -> None:
        """Give all orders. In a process that they are for: leave them to the supervisor."""
        while self._to_give:
            self.next()


_Run = Callable[[_Orders, int], None]
"""What a process does: it obeys orders, and writes a byte to a pipe when it is ready."""


class _Worker:
    """A process that serves ext_proc."""

    def __init__(
        self, settings: Settings, certificates: Certificates | None, address: SharedAddress, board: Board, number: int
    ) -> None:
        self._settings = settings
        self._tls = certificates.context if certificates else None
        self._address = address
        self._board = board
        self._number = number

    def __call__(self, orders: _Orders, ready: int) -> None:
        """See _Run."""
        uvloop.run(self._serve(orders, ready))

    async def _serve(self, orders: _Orders, ready: int) -> None:
        transport = FastTransport(observer(self._settings, self._board.metrics(self._number)), self._tls)
        await transport.serve(self._address.bound(self._number))
        loop, stopping = asyncio.get_running_loop(), Stopping()

        def obey(order: int) -> None:
            loop.remove_reader(order)
            stopping.next()

        for order in (orders.stop, orders.end):
            loop.add_reader(order, obey, order)
        os.write(ready, b".")
        await stopping.asked.wait()
        self._address.leave(self._number)
        await drain(transport, self._settings.drain_seconds, stopping.hurry)


class _Answering:
    """The process that answers GET /metrics."""

    def __init__(self, listener: socket, board: Board, folder: str) -> None:
        self._listener = listener
        self._board = board
        self._folder = folder
        self._supervisor = os.getpid()

    def __call__(self, orders: _Orders, _ready: int) -> None:
        """See _Run."""
        server = MetricsServer(self._listener, self._board.exposition)
        wait([orders.end])
        server.close()
        if os.getppid() != self._supervisor:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass
class _Child:
    """A process that is started again when it ends."""

    number: int
    name: str
    run: _Run
    process: ForkProcess | None = None
    started: float = 0.0
    pause: float = 0.0
    """Before the last start, in seconds."""
    due: float | None = None
    """When it is to start again."""


class _Supervisor:
    """Starts processes, and starts those again that end unasked."""

    def __init__(self, workers: Sequence[_Child], answering: _Child, board: Board) -> None:
        self._workers = workers
        self._children = (answering, *workers)
        self._board = board
        self._orders = _Orders()
        self._ready, self._ready_end = os.pipe()
        self._to_come = len(workers)  # workers that are not ready yet
        self._stopping = False

    def run(self, say_ready: Callable[[], None]) -> None:
        """Supervise until told to stop and all workers have ended.

        Raises:
            ServeError: a process ended before all were ready.
        """
        gc.collect()
        gc.freeze()  # what no collection touches stays shared: https://docs.python.org/3/library/gc.html#gc.freeze
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._orders.next())
        try:
            for child in self._children:
                self._start(child)
            while self._to_come and not self._stopping:
                self._wait()
            if not self._stopping:
                say_ready()
            while not self._stopping or any(worker.process for worker in self._workers):
                self._wait()
        finally:
            self._orders.all()
            for child in self._children:
                if child.process is not None:
                    child.process.join(_LAST_SECONDS)
                    child.process.kill()

    def _wait(self) -> None:
        """Wait until something happens, and deal with it."""
        events = [self._ready, *(child.process.sentinel for child in self._children if child.process is not None)]
        if not self._stopping:
            events.append(self._orders.stop)
        due = [child.due for child in self._children if child.due is not None and not self._stopping]
        happened = wait(events, max(0.0, min(due) - monotonic()) if due else None)
        if self._orders.stop in happened:
            self._stopping = True
        if self._ready in happened:
            self._to_come -= len(os.read(self._ready, 1024))
        for child in self._children:
            if child.process is not None and child.process.sentinel in happened:
                self._ended(child, child.process)
            if child.due is not None and child.due <= monotonic() and not self._stopping:
                self._start(child)
                self._board.restarted()

    def _start(self, child: _Child) -> None:
        process = multiprocessing.get_context("fork").Process(
            target=_run, args=(child.run, self._orders, self._ready_end), name=child.name
        )
        process.start()
        assert process.pid is not None  # noqa: S101 - it has started
        self._board.pids[child.number] = process.pid
        child.process, child.started, child.due = process, monotonic(), None

    def _ended(self, child: _Child, process: ForkProcess) -> None:
        process.join()
        reason, pid = _reason(process.exitcode or 0), process.pid
        process.close()
        child.process = None
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._board.ended(child.number, ended.ru_utime + ended.ru_stime)
        if self._stopping:
            return
        if self._to_come > 0:
            raise ServeError(f"{child.name} did not start: {reason}")
        steady = monotonic() - child.started >= _STEADY_SECONDS
        child.pause = 0.0 if steady else min(max(_FIRST_PAUSE, 2 * child.pause), _LONGEST_PAUSE)
        child.due = monotonic() + child.pause
        known = {"pid": pid, "reason": reason, "pause": child.pause}
        _log.error("%s ended and is started again", child.name, extra=known)


def _run(run: _Run, orders: _Orders, ready: int) -> None:
    """Be a process that does this."""
    # A terminal, or systemd, sends its signals to all processes. They are for the supervisor.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    orders.all()
    try:
        run(orders, ready)
    except Exception:  # noqa: BLE001 - here it ends
        _log.exception("fault in this server")
        sys.exit(1)


def _reason(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
