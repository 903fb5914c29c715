"""A certificate that is renewed while the server runs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.apps.crews import wait_for
from tests.apps.served import Lines, serving

from carelake.apps.http import server
from carelake.apps.wiring import Workspace


def pair(serial: int, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1, and its key."""
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "carelake test")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(serial).add_extension(here, critical=False)
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    told = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none)
    return builder.sign(key, hashes.SHA256()).public_bytes(encoding), told


def serial(url: str) -> int:
    port = int(url.rpartition(":")[2])
    shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


def test_a_renewed_certificate_is_shown_once_both_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_RENEWAL_TICKS", 1)
    files = {"CERTIFICATE": tmp_path / "cert", "KEY": tmp_path / "key"}
    environment = {"CARELAKE_KEY_DIR": str(tmp_path / "keys")}
    environment |= {f"CARELAKE_SERVE__TLS_{name}": str(file) for name, file in files.items()}
    for file, text in zip(files.values(), pair(1, ec.generate_private_key(ec.SECP256R1())), strict=True):
        file.write_bytes(text)
    Workspace.create(tmp_path / "workspace", environment).close()
    workspace, log = Workspace.open(tmp_path / "workspace", environment), Lines()
    try:
        with serving(workspace, log) as url:
            assert serial(url) == 1
            # Of another kind: clients that take both would be shown the first one, were it still there.
            certificate, key = pair(2, rsa.generate_private_key(65537, 2048))
            files["CERTIFICATE"].write_bytes(certificate)
            wait_for(lambda: {"event": "certificate not renewed", "code": "http.tls"} in log.said)
            assert serial(url) == 1  # its key is not there yet
            files["KEY"].write_bytes(key)
            wait_for(lambda: {"event": "certificate renewed"} in log.said)
            assert serial(url) == 2
            files["KEY"].unlink()
            wait_for(lambda: sum(one["event"] == "certificate not renewed" for one in log.said) == 2)
            assert serial(url) == 2
    finally:
        workspace.close()
