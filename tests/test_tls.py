"""Files for TLS that cannot be used. What TLS does: tests/transport/test_tls.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.settings import Settings
from extproc.tls import Certificates, Files, TlsError, files
from tests.certificates import authority

CA = authority()
SERVER = CA.issue()
OTHER = CA.issue()

PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tls.crt", None, "tls_certificate: cannot read tls.crt: No such file or directory"),
        ("tls.crt", "", "tls_certificate: tls.crt has no certificate in PEM format"),
        ("tls.crt", "certificate", "tls_certificate: tls.crt has no certificate in PEM format"),
        ("tls.crt", PEM.format("CERTIFICATE"), "tls_certificate: tls.crt has no certificate in PEM format"),
        ("tls.crt", SERVER.key_pem(), "tls_certificate: tls.crt has no certificate in PEM format"),
        ("tls.crt", OTHER.pem, "tls_key: tls.key is not the key of the certificate in tls.crt"),
        ("tls.key", None, "tls_key: cannot read tls.key: No such file or directory"),
        ("tls.key", "", "tls_key: tls.key is no private key in PEM format"),
        ("tls.key", PEM.format("PRIVATE KEY"), "tls_key: tls.key is no private key in PEM format"),
        ("tls.key", SERVER.pem, "tls_key: tls.key is no private key in PEM format"),
        ("tls.key", OTHER.key_pem(), "tls_key: tls.key is not the key of the certificate in tls.crt"),
        ("tls.key", SERVER.key_pem(b"secret"), "tls_key: tls.key is encrypted; allowed is a key without a password"),
        ("ca.crt", None, "tls_client_ca: cannot read ca.crt: No such file or directory"),
        ("ca.crt", "", "tls_client_ca: ca.crt has no certificate in PEM format"),
        ("ca.crt", CA.key_pem(), "tls_client_ca: ca.crt has no certificate in PEM format"),
    ],
)
def test_file_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes | None, message: str
) -> None:
    """Of a file that cannot be used it is said which it is, for which setting, and why."""
    monkeypatch.chdir(tmp_path)
    paths = Files(Path("tls.crt"), Path("tls.key"), Path("ca.crt"))
    SERVER.write(paths.certificate, paths.key)
    Path("ca.crt").write_bytes(CA.pem)
    Certificates(paths)
    if content is None:
        Path(name).unlink()
    else:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TlsError) as error:
        Certificates(paths)
    assert str(error.value) == message


def test_directory(tmp_path: Path) -> None:
    """A directory is no file."""
    with pytest.raises(TlsError, match=f"^tls_certificate: cannot read {tmp_path}: Is a directory$"):
        Certificates(Files(tmp_path, tmp_path, None))


def test_chain_with_comments(tmp_path: Path) -> None:
    """A certificate may be followed by those of its issuers, and text in any language may stand before each."""
    paths = Files(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    SERVER.write(paths.certificate, paths.key)
    chain = b"# Hilft \xc3\xbcberall\n" + SERVER.pem + b"# Tan\xc3\xbas\xc3\xadtv\xc3\xa1ny\n" + CA.pem
    paths.certificate.write_bytes(chain)
    (tmp_path / "ca.crt").write_bytes(chain)
    assert not Certificates(paths).renewed()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), None),
        (Settings(tls_certificate="c", tls_key="k"), Files(Path("c"), Path("k"), None)),
        (Settings(tls_certificate="c", tls_key="k", tls_client_ca="a"), Files(Path("c"), Path("k"), Path("a"))),
    ],
)
def test_settings(settings: Settings, expected: Files | None) -> None:
    """The settings say where the files are; without a certificate there is no TLS."""
    assert files(settings) == expected
