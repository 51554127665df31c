"""The sections about communication diversion: its limits, and the XCAP server through which users change theirs."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from provisioning.config.section import Section
from provisioning.value_types import Count, Host, Port, Seconds


class DiversionConfig(Section):
    """Communication diversion (TS 24.604)."""

    no_reply_timer: Annotated[int, Field(ge=5, le=180)] = 20
    """Seconds a phone rings before forwarding on no reply applies, for users who set no time of their own. Shorter
    loses calls of those slow to answer."""
    max_diversions: Annotated[int, Field(ge=1, le=20)] = 5
    """Times one call may be diverted, by whatever server and rule; then it is refused. More lets chains of
    forwarding grow long before anybody notices."""

    notices_per_minute: Count = 20
    """Notices of diverted calls a minute to the phones of one user who wants them; more are left out, so that
    nobody fills those phones by calling."""
    max_deflection_targets: Count = 5
    """Contacts of a phone's 302 that are looked at, best first, until one may be forwarded to. Each is a look-up."""


class XcapConfig(Section):
    """The XCAP server (TS 24.623): users read and change their diversions over HTTP."""

    bind: Host = "127.0.0.1"
    """Numeric address it listens on. Phones elsewhere need another; give it a certificate then."""
    port: Port | None = 8090
    """TCP port; null serves none, 0 takes a free one. When it is taken, the server runs without and says so."""
    tls_certificate: Path | None = None
    """PEM certificate with its chain; null speaks plain HTTP, where digests protect the password but not what is
    read or written."""
    tls_key: Path | None = None
    """PEM private key of that certificate."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=1_000_000)] = 65_536
    """Largest document or element accepted, bytes; above it 413."""
    max_depth: Annotated[int, Field(ge=8, le=200)] = 16
    """Elements that may lie within each other in it. The format itself needs seven."""
    max_connections: Count = 200
    """Connections held at once; above it new ones are closed."""
    max_connections_per_address: Count = 20
    """Connections of one address (an IPv6 one by its /64) held at once; above it new ones are closed. Raise it for
    phones behind one NAT, or a proxy in front."""
    connection_lifetime: Seconds = 60
    """Seconds after which a connection is closed whatever it does, so that slow senders hold no place."""
    requests_per_second: Count = 20
    """Requests answered for one client address each second (bursts of the same size); above it 503 and the connection
    is closed. Twice as many new connections are taken from there."""

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: give both or none")
        return self
