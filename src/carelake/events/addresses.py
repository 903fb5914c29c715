"""Where events may be sent: hosts that a setting names, at addresses that are not this network's own.

A name is resolved once, its address judged, and the connection made to that very address: a name that answers with
another one the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from carelake.core.errors import Invalid, Refused, Unavailable

__all__ = ["Address", "Allowed", "masked", "resolve_name"]

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"https": 443, "http": 80}


def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def masked(url: str) -> str:
    """A URL as it may be shown: a receiver's secret is often in its path or query."""
    try:
        found = urlsplit(url)
    except ValueError:
        return "…"
    netloc = found.netloc.rpartition("@")[2]
    more = found.path not in ("", "/") or found.query or found.fragment
    return f"{found.scheme}://{netloc}/{'…' if more else ''}"


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that may be called, and the one address to connect to."""

    url: SplitResult
    host: str
    port: int
    ip: str

    @property
    def connect_to(self) -> str:
        """The URL with the address in place of the name."""
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return self.url._replace(netloc=f"{ip}:{self.port}").geturl()


@dataclass(frozen=True)
class Allowed:
    """The setting, read.

    Attributes:
        hosts: ``name`` or ``name:port``, separated by white space or commas; nothing is allowed by default.
        networks: networks that are not public and that those names may lie in, for example ``10.1.0.0/16``.
    """

    hosts: str = ""
    networks: str = ""
    resolve: Callable[[str, int], list[str]] = resolve_name

    def check(self, url: str, trusted: re.Pattern[str] | None = None) -> SplitResult:
        """The URL, if its form and its host are allowed; no name is resolved.

        Args:
            trusted: hosts that need not be named.

        Raises:
            Invalid: ``events.url``. Refused: ``events.host_not_allowed``.
        """
        try:
            found = urlsplit(url)
            host, port = found.hostname or "", found.port or _PORTS.get(found.scheme, 0)
        except ValueError:
            raise _bad_url() from None
        if not host or found.scheme not in _PORTS or found.username or found.password or found.fragment:
            raise _bad_url()
        if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url or not _may_be_name(host):
            raise _bad_url()
        if found.scheme == "http" and not _loopback_name(host):
            raise Invalid("events.url", "Plain http is for loopback only; use https.")
        by_form = trusted is not None and trusted.fullmatch(host)
        if not by_form and not {host, f"{host}:{port}"} & self._hosts():
            raise Refused(
                "events.host_not_allowed", "The setting events.hosts does not name this host; add it there first."
            )
        return found

    def address(self, url: str) -> Address:
        """The address to connect to.

        Raises:
            Invalid, Refused: as `check`. Unavailable: ``events.no_address``.
            Refused: ``events.address_not_allowed``.
        """
        found = self.check(url)
        host, port = found.hostname or "", found.port or _PORTS[found.scheme]
        ips = self.resolve(host, port)
        if not ips:
            raise Unavailable("events.no_address", "The host's name has no address now; try again later.")
        # All of them: a name with one good and one bad address is not one to trust.
        if not all(self._may(ipaddress.ip_address(ip.partition("%")[0]), host) for ip in ips):
            raise Refused(
                "events.address_not_allowed",
                "The host lies in a network that is not public; name that network in events.networks to allow it.",
            )
        return Address(found, host, port, ips[0])

    def _hosts(self) -> set[str]:
        return set(self.hosts.lower().replace(",", " ").split())

    def _may(self, ip: Ip, host: str) -> bool:
        ip = _embedded(ip) or ip
        if ip.is_loopback:
            return _loopback_name(host)
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved or _site_local(ip):
            return False
        return ip.is_global or any(ip in network for network in self._networks())

    def _networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        try:
            return [ipaddress.ip_network(one) for one in self.networks.replace(",", " ").split()]
        except ValueError:
            raise Invalid(
                "events.networks", "The setting events.networks takes networks such as 10.1.0.0/16."
            ) from None


def _embedded(ip: Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this one is handed on to: mapped, 6to4, ISATAP (RFC 5214 section 6.1).

    Teredo is not global, IPv4-compatible and NAT64 addresses are reserved: those are refused as they are.
    """
    if ip.version == 4:
        return None
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    isatap = (int(ip) >> 32) & 0xFDFFFFFF == 0x00005EFE
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if isatap else None


def _site_local(ip: Ip) -> bool:
    return ip.version == 6 and ip.is_site_local


def _may_be_name(host: str) -> bool:
    return len(host) < 254 and all(0 < len(one) < 64 for one in host.removesuffix(".").split("."))


def _loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bad_url() -> Invalid:
    return Invalid("events.url", "Not an address to call; expected https://HOST[:PORT]/PATH without credentials.")
