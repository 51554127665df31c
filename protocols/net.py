"""Addresses and flows: the vocabulary every protocol module shares. Pure values, nothing is opened here."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, NamedTuple

Transport = Literal["udp", "tcp", "tls", "ws", "wss"]


class Address(NamedTuple):
    """A numeric IPv4 or IPv6 host (no brackets, no scope) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a message came from and how an answer gets back (RFC 5626: the 5-tuple; `id` numbers a connection)."""

    transport: Transport
    local: Address
    remote: Address
    id: int = 0

    @property
    def reliable(self) -> bool:
        """True where the transport itself delivers in order and without loss (RFC 3261 section 17)."""
        return self.transport != "udp"

    def __str__(self) -> str:
        return f"{self.transport}:{self.remote}"


def uri_transport(flow: Flow) -> str:
    """The URI parameter that names the flow's transport: none for UDP, `ws` for both WebSockets (RFC 7118 5.5)."""
    return "" if flow.transport == "udp" else f";transport={flow.transport.replace('wss', 'ws')}"


def bracketed(host: str) -> str:
    """The host as a URI, Via or Contact writes it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_numeric(host: str) -> bool:
    """True for an IPv4 or IPv6 literal as it stands in a URI (brackets allowed), False for a name."""
    return is_host(host.removeprefix("[").removesuffix("]"))


def is_host(host: str) -> bool:
    """True for what may be an `Address`'s host: a literal without brackets, and without a scope of our interfaces."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host
