"""Webhooks against a real server on loopback: signatures, time-outs, redirects, what is refused, what comes again."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from carelake.core.clock import SystemClock
from carelake.core.errors import Invalid, Refused
from carelake.events.addresses import Allowed, masked, resolve_name
from carelake.events.drivers.webhook import Webhook
from carelake.events.envelopes import Event
from carelake.events.port import Outcome
from carelake.events.signing import new_secret


@dataclass
class Site:
    """A server that keeps what it gets and answers as it is told.

    Attributes:
        answers: status and headers for each request in turn; then 204.
    """

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    slow: Callable[[Any], None] | None = None

    @property
    def host(self) -> str:
        return self.url.split("/")[2]


@contextmanager
def serving(site: Site, context: ssl.SSLContext | None = None) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            site.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            if site.slow is not None:
                site.slow(self)
                return
            status, said = site.answers.pop(0) if site.answers else (204, {})
            self.send_response(status)
            for name, value in {"content-length": "0", **said}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/hook?x=1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as made:
        yield made


def told(seq: int = 1, kind: str = "carelake.model.state") -> Event:
    return Event(seq, f"{seq:032x}", kind, "production", "model:1f", "2026-01-02T03:04:05.000Z", {"n": seq})


def hook(site: Site, *, secrets: list[str] | None = None, timeout: float = 2.0, **other: Any) -> Webhook:
    said: dict[str, Any] = {"allowed": Allowed(site.host), "source": "urn:carelake:w1", "clock": SystemClock()}
    return Webhook(site.url, secrets or [new_secret()], timeout=timeout, **{**said, **other})


def send(driver: Webhook, *events: Event) -> list[Outcome]:
    try:
        return driver.deliver(list(events) or [told()], None)
    finally:
        driver.close()


def test_the_reference_library_verifies_what_we_sign(site: Site) -> None:
    secret = new_secret()
    assert send(hook(site, secrets=[secret]), told(1), told(2)) == 2 * [Outcome("done")]
    for number, (headers, body) in enumerate(site.got, start=1):
        said = Reference(secret).verify(body, headers)
        assert said["id"] == headers["webhook-id"] == f"{number:032x}"
        assert headers["content-type"] == "application/cloudevents+json"
        assert said == json.loads(body) == told(number).cloudevent("urn:carelake:w1")
        with pytest.raises(WebhookVerificationError):
            Reference(secret).verify(body + b" ", headers)
        with pytest.raises(WebhookVerificationError):
            Reference(new_secret()).verify(body, headers)


def test_during_a_rotation_either_secret_verifies(site: Site) -> None:
    new, old = new_secret(), new_secret()
    send(hook(site, secrets=[new, old]))
    [(headers, body)] = site.got
    for secret in (new, old):
        assert Reference(secret).verify(body, headers)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "done"),
        (204, "done"),
        (299, "done"),
        (301, "retry"),
        (400, "dead"),
        (401, "dead"),
        (404, "dead"),
        (408, "retry"),
        (410, "dead"),
        (425, "retry"),
        (429, "retry"),
        (500, "retry"),
        (503, "retry"),
    ],
)
def test_what_an_answer_means(site: Site, status: int, state: str) -> None:
    site.answers = [(status, {})]
    [outcome] = send(hook(site))
    assert outcome.state == state
    assert outcome.reason == ("" if state == "done" else f"webhook.status_{status}")


def test_what_follows_a_failure_in_its_stream_is_not_sent(site: Site) -> None:
    site.answers = [(503, {}), (204, {})]
    outcomes = send(hook(site), told(1, "carelake.a"), told(2, "carelake.a"), told(3, "carelake.b"))
    assert [one.state for one in outcomes] == ["retry", "held", "done"]
    assert [json.loads(body)["sequence"] for _, body in site.got] == ["1", "3"]


def test_retry_after_is_honoured_as_seconds_and_as_a_date(site: Site) -> None:
    later = datetime.now(UTC) + timedelta(minutes=10)
    site.answers = [
        (429, {"retry-after": "120"}),
        (503, {"retry-after": later.strftime("%a, %d %b %Y %H:%M:%S GMT")}),
    ]
    site.answers += [(503, {"retry-after": "soon"}), (503, {"retry-after": "9" * 30})]
    first, second, third, fourth = (send(hook(site))[0] for _ in range(4))
    assert first.after == 120
    assert second.after == pytest.approx(600, abs=5)
    assert third.after is None
    assert fourth.after is None


def test_a_redirect_is_not_followed(site: Site) -> None:
    with serving(Site()) as other:
        site.answers = [(307, {"location": other.url})]
        [outcome] = send(hook(site))
        assert outcome.reason == "webhook.status_307"
        assert other.got == []


def test_an_answer_that_never_comes_is_given_up(site: Site) -> None:
    site.slow = lambda handler: time.sleep(1.5)
    began = time.monotonic()
    [outcome] = send(hook(site, timeout=0.2))
    assert outcome.reason == "webhook.timeout"
    assert time.monotonic() - began < 1.2


def test_an_answer_byte_by_byte_is_given_up_too(site: Site) -> None:
    def drip(handler: Any) -> None:
        try:
            for _ in range(40):
                handler.wfile.write(b"H")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass
        handler.close_connection = True

    site.slow = drip
    began = time.monotonic()
    [outcome] = send(hook(site, timeout=0.3))
    assert outcome.reason == "webhook.timeout"
    assert time.monotonic() - began < 2.0


def test_an_endless_body_is_not_read(site: Site) -> None:
    def flood(handler: Any) -> None:
        try:
            handler.send_response(200)
            handler.send_header("content-length", str(1 << 40))
            handler.end_headers()
            for _ in range(1000):
                handler.wfile.write(bytes(1 << 16))
        except OSError:
            pass
        handler.close_connection = True

    site.slow = flood
    began = time.monotonic()
    assert send(hook(site)) == [Outcome("done")]
    assert time.monotonic() - began < 2.0


def test_nobody_there_comes_again(site: Site) -> None:
    driver = hook(site)
    driver._url = "http://127.0.0.1:9/x"
    driver._allowed = Allowed("127.0.0.1")
    assert send(driver)[0].reason == "webhook.connect"


# -- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://user:pass@example.org/",
        "https://example.org:99999/",
        "https:///x",
        "https://exa mple.org/",
        "https://example.org\\@evil.org/",
        "https://example.org/#f",
        "file:///etc/passwd",
        "example.org",
        "https://éxample.org/",
        "https://" + "a" * 70 + ".org/",
        "https://a..org/",
        "",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        Allowed("example.org exa evil.org").check(url)
    assert caught.value.code == "events.url"


@pytest.mark.parametrize("url", ["https://evil.org/", "https://example.org.evil.org/", "https://example.org:8443/"])
def test_a_host_that_is_not_named_is_refused(url: str) -> None:
    allowed = Allowed("example.org:443, hooks.example.org", resolve=lambda *_: ["93.184.216.34"])
    with pytest.raises(Refused) as caught:
        allowed.check(url)
    assert caught.value.code == "events.host_not_allowed"
    assert allowed.address("https://EXAMPLE.org/x").ip == "93.184.216.34"


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "fe80::1",
        "fd00::1",
        "0.0.0.0",
        "::ffff:10.0.0.5",
        "::ffff:127.0.0.1",
        "224.0.0.1",
        "100.64.0.1",
        "255.255.255.255",
        "fec0::1",
        "2002:a00:1::1",
        "2002:7f00:1::1",
        "2607:f8b0::5efe:a00:1",
        "2607:f8b0::200:5efe:a9fe:a9fe",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_a_name_that_leads_inside_is_refused(ip: str) -> None:
    for ips in ([ip], ["93.184.216.34", ip]):
        allowed = Allowed("example.org", resolve=lambda *_, ips=ips: ips)
        with pytest.raises(Refused) as caught:
            allowed.address("https://example.org/")
        assert caught.value.code == "events.address_not_allowed"


@pytest.mark.parametrize("ip", ["2606:4700::1111", "2002:5db8:d822::1", "93.184.216.34"])
def test_a_public_address_is_called(ip: str) -> None:
    assert Allowed("example.org", resolve=lambda *_: [ip]).address("https://example.org/").ip == ip


def test_a_name_that_cannot_be_one_has_no_address() -> None:
    assert resolve_name("a" * 70 + ".example.org", 443) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example.org/", "https://h.example.org/"),
        ("https://h.example.org:8443/a/b?c", "https://h.example.org:8443/…"),
        ("https://h.example.org?c", "https://h.example.org/…"),
        ("https://u:p@h.example.org/", "https://h.example.org/"),
        ("https://[::1", "…"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_network_that_is_named_may_be_gone_to_and_a_metadata_service_never() -> None:
    allowed = Allowed("hooks", "10.1.0.0/16 169.254.0.0/16", resolve=lambda *_: ["10.1.2.3"])
    assert allowed.address("https://hooks:8443/x?y").connect_to == "https://10.1.2.3:8443/x?y"
    with pytest.raises(Refused):
        Allowed("hooks", "169.254.0.0/16", resolve=lambda *_: ["169.254.169.254"]).address("https://hooks/")
    with pytest.raises(Invalid):
        Allowed("hooks", "everywhere", resolve=lambda *_: ["10.1.2.3"]).address("https://hooks/")


def test_a_name_is_resolved_once_a_call(site: Site) -> None:
    """DNS rebinding: the second answer would be another one; the connection goes to the first."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    site.url = site.url.replace("127.0.0.1", "localhost")
    driver = hook(site, allowed=Allowed("localhost", resolve=lambda *_: next(answers)))
    outcomes = driver.deliver([told(1, "a"), told(2, "b")], None)
    driver.close()
    assert [one.reason for one in outcomes] == ["", "webhook.address_not_allowed"]
    [(headers, _)] = site.got
    assert headers["host"] == site.host


# -- TLS -------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server of that name and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    other: x509.GeneralName = x509.DNSName(name)
    if name[0].isdigit():
        other = x509.IPAddress(ipaddress.ip_address(name))
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def test_tls_is_verified_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    server, trust = certificate(tmp_path, "localhost")
    with serving(Site(), server) as site:
        site.url = site.url.replace("127.0.0.1", "localhost")
        allowed = Allowed("localhost", resolve=lambda *_: ["127.0.0.1"])
        assert send(hook(site, allowed=allowed, trust=trust)) == [Outcome("done")]
        assert send(hook(site, allowed=allowed))[0].reason == "webhook.tls"


def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    server, trust = certificate(tmp_path, "hooks.example.org")
    with serving(Site(), server) as site:
        site.url = site.url.replace("127.0.0.1", "localhost")
        allowed = Allowed("localhost", resolve=lambda *_: ["127.0.0.1"])
        assert send(hook(site, allowed=allowed, trust=trust))[0].reason == "webhook.tls"
        assert site.got == []
