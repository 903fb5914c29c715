"""Where events may be sent: hosts that a setting names, at addresses that are not this network's own.

A name is resolved once, its address judged, and the connection made to that very address: a name that answers with
another one the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from carelake.core.errors import Invalid, Refused, Unavailable

__all__ = ["Address", "Allowed", "resolve_name"]

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"https": 443, "http": 80}


def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError:
        return []


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

    def check(self, url: str) -> SplitResult:
        """The URL, if its form and its host are allowed; no name is resolved.

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
        if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
            raise _bad_url()
        if found.scheme == "http" and not _loopback_name(host):
            raise Invalid("events.url", "Plain http is for loopback only; use https.")
        if not {host, f"{host}:{port}"} & self._hosts():
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
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped or ip
        if ip.is_loopback:
            return _loopback_name(host)
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
            return False
        return ip.is_global or any(ip in network for network in self._networks())

    def _networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        try:
            return [ipaddress.ip_network(one) for one in self.networks.replace(",", " ").split()]
        except ValueError:
            raise Invalid(
                "events.networks", "The setting events.networks takes networks such as 10.1.0.0/16."
            ) from None


def _loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bad_url() -> Invalid:
    return Invalid("events.url", "Not an address to call; expected https://HOST[:PORT]/PATH without credentials.")
