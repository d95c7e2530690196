"""TLS: the server's certificate, and whom it believes; read again when the files change.

A renewed certificate (cert-manager and Kubernetes replace the files in place) holds from the next connection on:
every handshake looks whether the files are the same. That takes neither a restart nor a signal.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from extproc.settings import Settings

# RFC 9113, section 9.2.2 forbids TLS 1.2's others, and names one that has to be there. TLS 1.3 has none to forbid.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_log = logging.getLogger(__name__)


class TlsError(Exception):
    """A file that cannot be used; the message names its setting and says why."""


@dataclass(frozen=True)
class Files:
    """Where certificates are, in PEM format."""

    certificate: Path
    key: Path
    client_ca: Path | None

    def context(self) -> ssl.SSLContext:
        """Return what a server needs for TLS.

        Raises:
            TlsError: a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9113, section 9.2.1
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["h2"])
        self.trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # says of which of the two files it is that cannot be used
        self.identify(context)
        if self.client_ca:
            _certificates("tls_client_ca", self.client_ca, context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def trust(self, context: ssl.SSLContext) -> None:
        """Let a context believe the certificate.

        Raises:
            TlsError: it is none.
        """
        _certificates("tls_certificate", self.certificate, context)

    def identify(self, context: ssl.SSLContext) -> None:
        """Let a context show the certificate.

        Raises:
            TlsError: the key cannot be used.
        """
        _read("tls_key", self.key)
        try:
            context.load_cert_chain(self.certificate, self.key, self._no_password)
        except ssl.SSLError as error:
            match error.reason:
                case None:
                    reason = f"tls_key: {self.key} is no private key in PEM format"
                case "KEY_VALUES_MISMATCH":
                    reason = f"tls_key: {self.key} is not the key of the certificate in {self.certificate}"
                case _:
                    reason = f"tls_certificate: {self.certificate} cannot be used: {error.reason}"
            raise TlsError(reason) from None

    def _no_password(self) -> str:
        raise TlsError(f"tls_key: {self.key} is encrypted; allowed is a key without a password")

    def state(self) -> object:
        """Return what changes when a file does."""
        return [_state(path) for path in (self.certificate, self.key, self.client_ca) if path]


def files(settings: Settings) -> Files | None:
    """Return the files that the settings name; `None`: there shall be no TLS."""
    if not settings.tls_certificate:
        return None
    client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
    return Files(Path(settings.tls_certificate), Path(settings.tls_key), client_ca)


class Certificates:
    """The files as they were when they could last be used."""

    def __init__(self, files: Files) -> None:
        """Read them.

        Raises:
            TlsError: they cannot be used.
        """
        self.files = files
        self._state = files.state()
        self.context = self._newest = files.context()
        """For a server: each of its handshakes goes on with the newest certificates."""
        # Also called for clients that name no host:
        # https://docs.python.org/3/library/ssl.html#ssl.SSLContext.sni_callback
        self.context.sni_callback = self._handshake

    def renewed(self) -> bool:
        """Read the files again if they have changed; return whether they did and can be used."""
        state = self.files.state()
        if state == self._state:
            return False
        self._state = state
        try:
            self._newest = self.files.context()
        except TlsError as error:
            # Perhaps one of two files is still to come: that will be a change.
            _log.warning("the certificates that were used so far stay in use", extra={"reason": str(error)})
            return False
        return True

    def _handshake(self, connection: ssl.SSLObject, _host: str | None, _context: ssl.SSLContext) -> None:
        self.renewed()
        connection.context = self._newest


def _certificates(setting: str, path: Path, context: ssl.SSLContext) -> None:
    """Let a context believe the certificates in a file."""
    _read(setting, path)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise TlsError(f"{setting}: {path} has no certificate in PEM format") from None


def _read(setting: str, path: Path) -> None:
    # The ssl module does not say which of its files it cannot read.
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsError(f"{setting}: cannot read {path}: {error.strerror}") from None


def _state(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
