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
