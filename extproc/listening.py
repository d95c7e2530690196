"""Where to listen, or the reason why nobody can."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from extproc.settings import host_and_port


def bound(address: str) -> socket.socket:
    """Return a TCP socket bound to HOST:PORT.

    Raises:
        OSError: nobody can listen there.
    """
    host, port = host_and_port(address)
    reason = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, candidate in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(candidate)
        except OSError as error:
            # A name may have addresses that are not this host's, as ::1 for localhost where there is no IPv6.
            found.close()
            reason = error
        else:
            return found
    raise reason


def shown(address: str, listener: socket.socket) -> str:
    """Return HOST:PORT with the port that a socket bound to it has, which was chosen if PORT is 0."""
    return f"{address.rpartition(':')[0]}:{listener.getsockname()[1]}"


def bound_unix(path: Path) -> socket.socket:
    """Return a Unix socket bound to a path, which may have been left behind by a crash.

    Raises:
        OSError: somebody listens there, or nobody can.
    """
    clear(path)
    found = socket.socket(socket.AF_UNIX)
    try:
        found.bind(str(path))
    except OSError:
        found.close()
        raise
    return found


class SharedAddress:
    """An address at which several processes listen: HOST:PORT, or unix:PATH with a number for each of them."""

    def __init__(self, address: str, processes: int) -> None:
        """Take the address.

        Raises:
            OSError: somebody listens there, or nobody can.
        """
        self._path = address.removeprefix("unix:") if address.startswith("unix:") else None
        if self._path is not None:
            self.shown = f"{address}.0 to .{processes - 1}"
            for number in range(processes):
                clear(self._numbered(number))
            return
        with bound(address) as alone:  # in vain if somebody listens there, which a shared port would not tell
            self._family, self._name = alone.family, alone.getsockname()
        # Never listens: it keeps the port while no process has it, and gets none of its connections.
        self._reserved = self._tcp()
        self.shown = shown(address, self._reserved)

    def bound(self, number: int) -> socket.socket:
        """Return a socket for one of the processes.

        Raises:
            OSError: it cannot listen there.
        """
        return self._tcp() if self._path is None else bound_unix(self._numbered(number))

    def leave(self, number: int) -> None:
        """Remove what one of the processes leaves behind when it does not listen any more."""
        if self._path is not None:
            self._numbered(number).unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return Path(f"{self._path}.{number}")

    def _tcp(self) -> socket.socket:
        found = socket.socket(self._family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The kernel spreads connections over all that listen: https://lwn.net/Articles/542629/
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            found.bind(self._name)
        except OSError:
            found.close()
            raise
        return found


def clear(path: Path) -> None:
    """Make sure that a unix socket can be made at `path`; remove one that a crash has left behind.

    Raises:
        OSError: somebody listens there, or nobody can.
    """
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            if stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.unlink()
