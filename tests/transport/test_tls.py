"""TLS, by each transport. What is said of files that cannot be used: tests/test_tls.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from extproc import formats
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.tls import Certificates, Files
from extproc.transport import SERVICE, Transport
from extproc.transport.fast import FastTransport
from extproc.transport.grpcio import GrpcioTransport
from tests.certificates import NAME, Identity, authority
from tests.wire.messages import CHAT, headers, phase_of

TRANSPORTS: dict[str, Callable[[Observer, Certificates], Transport]] = {
    "fast": lambda observer, certificates: FastTransport(observer, certificates.context),
    "grpcio": GrpcioTransport,
}

CA = authority()
START = headers("request_headers", CHAT)


@dataclass
class Server:
    """A server with TLS, serving, and its files."""

    address: str
    files: Files

    async def asked(self, client: Identity | None = None, ca: Identity = CA) -> str | None:
        """Let a client make a call; return the phase of the reply."""
        credentials = grpc.ssl_channel_credentials(
            ca.pem, client.key_pem() if client else None, client.pem if client else None
        )
        options = (("grpc.ssl_target_name_override", NAME),)
        async with grpc.aio.secure_channel(self.address, credentials, options) as channel:
            stream = channel.stream_stream(f"/{SERVICE}/Process")(timeout=30)
            await stream.write(START)
            reply = phase_of(await stream.read())
            stream.cancel()
            return reply

    async def shaken(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """Shake hands, as a client with a context; return the connection."""
        host, _, port = self.address.rpartition(":")
        async with asyncio.timeout(30):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
        connection = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        assert isinstance(connection, ssl.SSLObject)
        return connection


def trusting(ca: Identity = CA, *protocols: str) -> ssl.SSLContext:
    """Return a client's context."""
    context = ssl.create_default_context(cadata=ca.pem.decode())
    context.set_alpn_protocols(protocols or ("h2",))
    return context


@asynccontextmanager
async def serving(kind: str, files: Files, address: str = "127.0.0.1:0") -> AsyncIterator[Server]:
    """Serve with TLS."""
    transport = TRANSPORTS[kind](Observer(Settings(), Metrics(), formats.find), Certificates(files))
    try:
        yield Server(await transport.start(address), files)
    finally:
        await transport.stop(0, asyncio.Event())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Put a certificate of the CA into files."""
    found = Files(tmp_path / "tls.crt", tmp_path / "tls.key", None)
    CA.issue().write(found.certificate, found.key)
    return found


@pytest.fixture
def mutual(files: Files, tmp_path: Path) -> Files:
    """Files of a server whose clients need certificates."""
    path = tmp_path / "ca.crt"
    path.write_bytes(CA.pem)
    return Files(files.certificate, files.key, path)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_call(kind: str, files: Files) -> None:
    """A client that knows the CA is served."""
    async with serving(kind, files) as server:
        assert await server.asked() == "request_headers"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_unix_socket(kind: str, files: Files, tmp_path: Path) -> None:
    """So it is over a Unix socket."""
    async with serving(kind, files, f"unix:{tmp_path}/s") as server:
        assert await server.asked() == "request_headers"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_other_ca(kind: str, files: Files) -> None:
    """A client that knows another CA does not take the server for what it is not."""
    async with serving(kind, files) as server:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.asked(ca=authority("other"))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_no_plaintext(kind: str, files: Files) -> None:
    """A server with a certificate serves nobody without TLS."""
    async with serving(kind, files) as server, grpc.aio.insecure_channel(server.address) as channel:
        assert await channel.stream_stream(f"/{SERVICE}/Process")(timeout=30).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_http2_is_agreed_on(kind: str, files: Files) -> None:
    """By ALPN the server agrees on HTTP/2, in TLS 1.3."""
    async with serving(kind, files) as server:
        connection = await server.shaken(trusting(CA, "http/1.1", "h2"))
        assert (connection.selected_alpn_protocol(), connection.version()) == ("h2", "TLSv1.3")


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_http2_is_not_agreed_on(kind: str, protocols: tuple[str, ...], files: Files) -> None:
    """Who does not agree on HTTP/2 by ALPN is told nothing (RFC 9113, section 3.2): the connection is closed."""
    context = ssl.create_default_context(cadata=CA.pem.decode())
    if protocols:
        context.set_alpn_protocols(protocols)
    async with serving(kind, files) as server:
        host, _, port = server.address.rpartition(":")
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
            assert await reader.read() == b""
            writer.close()
        assert await server.asked() == "request_headers"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_tls_1_2(kind: str, files: Files) -> None:
    """TLS 1.2 is spoken, with a cipher that HTTP/2 allows (RFC 9113, section 9.2.2)."""
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(kind, files) as server:
        connection = await server.shaken(context)
        name, version, _ = connection.cipher() or ("", "", 0)
        assert version == "TLSv1.2"
        assert name.startswith("ECDHE-")
        assert "GCM" in name or "CHACHA20" in name


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_what_http2_forbids(kind: str, files: Files) -> None:
    """Ciphers of TLS 1.2 that HTTP/2 does not allow are refused."""
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM")
    async with serving(kind, files) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.shaken(context)


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_1_1(kind: str, files: Files) -> None:
    """Older TLS is refused."""
    context = trusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(kind, files) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.shaken(context)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_clients_need_certificates(kind: str, mutual: Files) -> None:
    """With a CA for clients, a client is served that has a certificate of it, and no other is."""
    async with serving(kind, mutual) as server:
        assert await server.asked(CA.issue("client")) == "request_headers"
        for stranger in (None, authority("other").issue("client"), authority().issue("client")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await server.asked(stranger)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_renewal(kind: str, files: Files) -> None:
    """A renewed certificate is shown from the next connection on; those that are open go on."""
    async with serving(kind, files) as server:
        credentials = grpc.ssl_channel_credentials(CA.pem)
        options = (("grpc.ssl_target_name_override", NAME),)
        async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
            stream = channel.stream_stream(f"/{SERVICE}/Process")()
            await stream.write(START)
            assert phase_of(await stream.read()) == "request_headers"
            new = CA.issue()
            new.write(files.certificate, files.key)
            shown = await server.shaken(trusting())
            assert shown.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(new.pem.decode())
            await stream.write(START)
            assert phase_of(await stream.read()) == "request_headers"
            stream.cancel()


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_renewed_ca_of_clients(kind: str, mutual: Files) -> None:
    """With another CA for clients, its clients are served from then on, and those of the old one are not."""
    other = authority("other")
    async with serving(kind, mutual) as server:
        assert await server.asked(CA.issue("client")) == "request_headers"
        assert mutual.client_ca
        mutual.client_ca.write_bytes(other.pem)
        assert await server.asked(other.issue("client")) == "request_headers"
        with pytest.raises(grpc.aio.AioRpcError):
            await server.asked(CA.issue("client"))


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_failed_renewal(kind: str, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """While what is renewed cannot be used, what was used so far is; that is said once."""
    new = CA.issue()
    async with serving(kind, files) as server:
        before = files.certificate.read_text()
        files.certificate.write_bytes(new.pem)  # and the key is still to come
        for _ in range(2):
            shown = await server.shaken(trusting())
            assert shown.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(before)
        [said] = [record for record in caplog.records if record.name == "extproc.tls"]
        assert said.message == "the certificates that were used so far stay in use"
        assert "is not the key of the certificate in" in said.__dict__["reason"]
        new.write(files.certificate, files.key)
        shown = await server.shaken(trusting())
        assert shown.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(new.pem.decode())
