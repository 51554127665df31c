"""Media ports: a pair of sockets for one medium, shared by a group's viewers or owned by one leg, and who is on it."""

from dataclasses import dataclass, field
from socket import socket
from typing import TYPE_CHECKING

from media_relay.engine import Engine
from media_relay.sockets import PortRange
from protocols.control import MediaKind
from protocols.net import Address
from provisioning.config import RelayConfig

if TYPE_CHECKING:
    from media_relay.legs import LegMedium


@dataclass(slots=True, eq=False)
class MediaPort:
    """Two bound sockets and the legs that may be told apart on them."""

    kind: MediaKind
    rtp: socket
    rtcp: socket
    rtp_address: Address
    rtcp_address: Address
    """Advertised addresses."""
    shared: bool
    group_id: str
    by_ufrag: dict[str, "LegMedium"] = field(default_factory=dict)
    """Legs with ICE, by the username fragment we gave them."""
    by_rtcp: dict[Address, "LegMedium"] = field(default_factory=dict)
    """Legs by the accepted source of their RTCP."""
    owner: "LegMedium | None" = None
    """The one leg of a port that is not shared; whom an unknown source may be."""

    def forget(self, medium: "LegMedium") -> None:
        """The leg's medium left this port."""
        self.by_ufrag = {name: m for name, m in self.by_ufrag.items() if m is not medium}
        self.by_rtcp = {address: m for address, m in self.by_rtcp.items() if m is not medium}
        if self.owner is medium:
            self.owner = None


class Ports:
    """Opens and closes media ports and finds them again by socket."""

    def __init__(self, config: RelayConfig, engine: Engine) -> None:
        self._range = PortRange(config.bind, config.port_min, config.port_max, config.rtp_buffer_bytes)
        self._advertised = config.advertised_host or config.bind
        self._dscp: dict[MediaKind, int] = {"audio": config.dscp_audio, "video": config.dscp_video}
        self._engine = engine
        self._by_socket: dict[int, MediaPort] = {}

    def open(self, kind: MediaKind, group_id: str, *, shared: bool, wished: int | None = None) -> MediaPort:
        """A new port, the `wished` one if it is free; PortsExhausted (an OSError) when the range is full."""
        rtp, rtcp = self._range.open_pair(self._dscp[kind], wished)
        addresses = [Address(self._advertised, sock.getsockname()[1]) for sock in (rtp, rtcp)]
        port = MediaPort(kind, rtp, rtcp, addresses[0], addresses[1], shared, group_id)
        for sock in (rtp, rtcp):
            self._by_socket[sock.fileno()] = port
            self._engine.watch(sock)
        return port

    def close(self, port: MediaPort) -> None:
        """Close its sockets and give the ports back."""
        for sock in (port.rtp, port.rtcp):
            del self._by_socket[sock.fileno()]
            self._engine.unwatch(sock)
        self._range.close_pair((port.rtp, port.rtcp))

    def of(self, sock: socket) -> MediaPort | None:
        """The port a socket belongs to; None once it is closed."""
        return self._by_socket.get(sock.fileno())

    def __len__(self) -> int:
        return len(self._by_socket) // 2
