"""The sections about how SIP travels besides UDP and TCP: TLS, WebSocket, and finding other domains by DNS."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocols.net import Address
from provisioning.config.section import Section
from provisioning.value_types import Count, HostPort, Port, Seconds, parse_host_port


class TlsConfig(Section):
    """SIP over TLS (RFC 3261 section 26.2, TLS 1.2 or later), and the certificate secure WebSocket uses too."""

    port: Port | None = None
    """Port of the TLS listener, usually 5061; null has none, 0 takes a free one."""
    certificate: Path | None = None
    """PEM file with our certificate and those between it and its authority. Null makes a self-signed one for
    trials, kept in `data_dir` with mode 0600: phones then have to be told to trust it."""
    key: Path | None = None
    """PEM file with the certificate's private key; readable by the server's user only."""
    ca: Path | None = None
    """PEM file with the authorities whose certificates are believed, of servers we call and of clients. Null
    believes the system's, for servers only."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    """Whether clients of TLS and secure WebSocket show a certificate signed by `ca`. `required` shuts out
    every phone without one, `optional` only those with a wrong one; digest is asked for all the same."""
    handshake_timeout: Seconds = 10
    """Seconds a TLS handshake may take in all, so that nobody holds connections by never finishing it."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        if self.client_certificates != "none" and self.ca is None:
            raise ValueError("client_certificates need ca: the authorities that sign them")
        return self


class WebSocketConfig(Section):
    """SIP over WebSocket (RFC 7118), for phones that are web pages."""

    port: Port | None = None
    """Port of the plain WebSocket listener; null has none, 0 takes a free one. Browsers allow it only to pages
    that came over plain HTTP, and everybody on the way reads along."""
    secure_port: Port | None = None
    """Port of the secure WebSocket listener, with the certificate of `tls`; null has none."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may connect, as in `https://phone.example.org`; empty allows every page. Programs
    that are no browser send none and are let in: digest is what protects accounts."""
    upgrade_timeout: Seconds = 10
    """Seconds the HTTP request that opens a WebSocket may take in all."""
    ping_interval: Seconds = 30
    """Seconds of silence after which a client is pinged; after three times as long it is cut off. Shorter finds
    dead pages sooner and keeps NAT bindings, at more packets."""
    max_fragments: Count = 64
    """Most WebSocket frames one SIP message may be cut into."""


class DnsConfig(Section):
    """Finding the next hop of other domains (RFC 3263): NAPTR, SRV, A and AAAA records."""

    servers: tuple[HostPort, ...] = ()
    """Name servers asked, HOST:PORT each; empty asks those of /etc/resolv.conf."""
    timeout: Seconds = 5
    """Seconds all look-ups for one request may take together; then it gets 503."""
    max_lookups: Count = 20
    """Questions one request may cost. A domain with endless records cannot make us ask for ever."""
    max_targets: Count = 6
    """Hosts tried one after the other before a request fails."""
    private_addresses: bool = False
    """Let the records of other domains lead to private addresses (10.0.0.0/8 and the like). Needed for a carrier
    reached through a VPN by its name; but then whoever owns an allowed domain can point calls into your network."""
    max_pending: Count = 200
    """Requests waiting for DNS at once; above it 503."""
    cache_entries: Count = 2_000
    """Answers remembered, each as long as its record says but no longer than `max_ttl`."""
    max_ttl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3_600
    """Most seconds an answer is believed, whatever its record says."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """`servers` as addresses."""
        return tuple(parse_host_port(text) for text in self.servers)
