"""What strangers may make the sockets hold, and who gets what they receive."""

from dataclasses import dataclass
from typing import Protocol, Self

from protocols.net import Flow
from provisioning.config import Config


class Sink(Protocol):
    """Who gets what the sockets receive."""

    def data_received(self, data: bytes, flow: Flow) -> None:
        """One message, framed but not parsed."""
        ...

    def flow_closed(self, flow: Flow) -> None:
        """The connection is gone, could not be made, or a datagram could not be sent."""
        ...

    def admits(self, flow: Flow) -> bool:
        """True if this peer may cost one more connection, or answer to a keep-alive, now."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a message, connections, seconds of each stage of a connection; every field is a setting."""

    message_bytes: int = 65_535
    header_bytes: int = 32_768
    connections: int = 1_000
    connections_per_address: int = 100
    outgoing_share: float = 0.1
    unsent_bytes: int = 1_000_000
    idle_timeout: float = 3_700.0
    first_message_timeout: float = 15.0
    message_timeout: float = 20.0
    connect_timeout: float = 5.0
    handshake_timeout: float = 10.0
    upgrade_timeout: float = 10.0
    ping_interval: float = 30.0
    fragments: int = 64
    keep_alives: int = 10
    origins: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Self:
        """The limits the configuration sets."""
        sip, web = config.sip, config.websocket
        return cls(
            message_bytes=sip.max_message_bytes,
            header_bytes=sip.max_header_bytes,
            connections=sip.max_connections,
            connections_per_address=sip.max_connections_per_address,
            outgoing_share=sip.outgoing_share,
            unsent_bytes=sip.max_unsent_bytes,
            idle_timeout=sip.connection_idle_timeout,
            first_message_timeout=sip.connection_first_message_timeout,
            message_timeout=sip.message_timeout,
            connect_timeout=sip.connect_timeout,
            handshake_timeout=config.tls.handshake_timeout,
            upgrade_timeout=web.upgrade_timeout,
            ping_interval=web.ping_interval,
            fragments=web.max_fragments,
            keep_alives=sip.keep_alives_per_second,
            origins=web.origins,
        )
