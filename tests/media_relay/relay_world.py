"""A relay on a fake clock with real UDP sockets on loopback: packets are there at once, so nothing needs to wait."""

import itertools
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from aioice import stun

from media_relay.engine.native import NativeEngine
from media_relay.engine.plain import PlainEngine
from media_relay.relay import Relay
from protocols.control import (
    AddViewer,
    Event,
    LegInfo,
    LegMedia,
    LegPage,
    LegSpec,
    ListLegs,
    MediaKind,
    MediaSpec,
    OpenGroup,
    Reply,
    expect,
)
from protocols.net import Address
from protocols.rtp.classify import classify
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import RtcpPacket, compound, parse_compound
from provisioning.config import RelayConfig

HOST = "127.0.0.1"
SPS, PPS, IDR, SLICE = b"\x67sps", b"\x68pps", b"\x65idr", b"\x41slice"
PT: dict[MediaKind, int] = {"audio": 97, "video": 96}
RATE: dict[MediaKind, int] = {"audio": 8000, "video": 90000}


class Peer:
    """A phone's sockets for one medium: RTP and RTCP, with what it heard."""

    def __init__(self, kind: MediaKind, host: str = HOST) -> None:
        self.kind = kind
        self.rtp, self.rtcp = (
            socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)
        )
        for sock in (self.rtp, self.rtcp):
            sock.bind((host, 0))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self.stun: list[stun.Message] = []
        self.other: list[bytes] = []

    @property
    def address(self) -> Address:
        return Address(*self.rtp.getsockname()[:2])

    @property
    def rtcp_address(self) -> Address:
        return Address(*self.rtcp.getsockname()[:2])

    def spec(
        self,
        *,
        sends: bool = False,
        receives: bool = False,
        ice: bool = False,
        fmtp: str = "",
        codec: str = "",
        feedback: tuple[str, ...] = (),
    ) -> MediaSpec:
        return MediaSpec(
            kind=self.kind,
            codec=codec or {"audio": "AMR", "video": "H264"}[self.kind],
            payload_type=PT[self.kind],
            clock_rate=RATE[self.kind],
            sends=sends,
            receives=receives,
            rtp=self.address,
            rtcp=self.rtcp_address,
            fmtp=fmtp,
            ice=ice,
            remote_ufrag="peer" if ice else "",
            feedback=feedback,
        )

    def packets(self) -> list[RtpPacket]:
        """The media that arrived since the last call."""
        return [RtpPacket.parse(data) for data in self._drain(self.rtp) if classify(data) == "rtp"]

    def reports(self) -> list[RtcpPacket]:
        """The RTCP that arrived since the last call."""
        return [packet for data in self._drain(self.rtcp) for packet in parse_compound(data)]

    def answers(self) -> list[bytes]:
        """Everything that arrived on the RTP socket."""
        return list(self._drain(self.rtp))

    def send(self, packet: RtpPacket | bytes, to: Address) -> None:
        self.rtp.sendto(packet if isinstance(packet, bytes) else packet.serialise(), to)

    def send_rtcp(self, to: Address, *packets: RtcpPacket) -> None:
        self.rtcp.sendto(compound(packets), to)

    def check(self, place: LegMedia, *, nominate: bool = True, password: str | None = None) -> None:
        """A connectivity check from this phone."""
        self.rtp.sendto(check(place, nominate=nominate, password=password), place.rtp)

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()

    @staticmethod
    def _drain(sock: socket.socket) -> list[bytes]:
        received = []
        while True:
            try:
                received.append(sock.recv(4096))
            except BlockingIOError:
                return received
            except ConnectionRefusedError:
                continue


def check(place: LegMedia, *, nominate: bool = True, password: str | None = None) -> bytes:
    """A STUN Binding request for a leg's m-line."""
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        attributes={"USERNAME": f"{place.ufrag}:peer", "PRIORITY": 1, "ICE-CONTROLLING": 7},
    )
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity((password or place.password).encode())
    return bytes(message)


@dataclass
class Source:
    """Numbers a broadcaster's packets."""

    peer: Peer
    to: Address
    ssrc: int = 0xABCD
    sequence: int = 65530
    timestamp: int = 4_294_960_000
    frame: int = 3000

    def packet(self, payload: bytes, *, marker: bool = True) -> RtpPacket:
        made = RtpPacket(
            PT[self.peer.kind],
            self.sequence & 0xFFFF,
            self.timestamp & 0xFFFFFFFF,
            self.ssrc,
            payload,
            marker=marker,
        )
        self.sequence += 1
        if marker:
            self.timestamp += self.frame
        return made

    def send(self, *payloads: bytes) -> None:
        """One frame, a packet a payload."""
        for i, payload in enumerate(payloads):
            self.peer.send(self.packet(payload, marker=i == len(payloads) - 1), self.to)


ENGINES = {"plain": PlainEngine, "native": partial(NativeEngine, threaded=False)}


@dataclass
class World:
    """The relay, its clock, and everybody's sockets."""

    config: RelayConfig = field(default_factory=lambda: RelayConfig(port_min=30000, port_max=30999))
    now: float = 1000.0
    wall: float = 1_700_000_000.0
    owners: set[str] = field(default_factory=lambda: {"as1"})
    engine_kind: str = "plain"

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self.owner_events: list[tuple[str, Event]] = []
        self.engine = ENGINES[self.engine_kind]()
        self.peers: list[Peer] = []
        self.ids = itertools.count()
        self.relay = Relay(
            self.config, self.engine, self._emit, lambda name: name in self.owners, wall=lambda: self.wall
        )

    def _emit(self, owner: str, event: Event) -> None:
        self.events.append(event)
        self.owner_events.append((owner, event))

    def close(self) -> None:
        self.relay.close()
        self.engine.close()
        for peer in self.peers:
            peer.close()

    def peer(self, kind: MediaKind, host: str = HOST) -> Peer:
        made = Peer(kind, host)
        self.peers.append(made)
        return made

    def do(self, command: object, as_id: str = "as1") -> Reply:
        reply = self.relay.execute(as_id, command, self.now)  # type: ignore[arg-type]
        self.step()
        return reply

    def step(self) -> None:
        for _ in range(3):
            self.relay.step(self.now)

    def pass_time(self, seconds: float, *, every: float = 0.1, each: Callable[[], None] | None = None) -> None:
        """Let the clock run, with the relay's timers."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + every)
            self.wall += every
            if each is not None:
                each()
            self.relay.step(self.now)
            self.relay.tick(self.now)
            self.relay.step(self.now)

    def silent_for(self, leg_id: str) -> float | None:
        """Seconds since the leg was heard, as the AS is told."""
        page = expect(self.do(ListLegs(("", ""))), LegPage)
        return next(row.silent_for for row in page.rows if row.leg_id == leg_id)

    def settle(self) -> None:
        """Long enough for any cached picture to be sent."""
        for _ in range(60):
            self.now += 0.005
            self.relay.step(self.now)

    def broadcaster(
        self,
        *kinds: MediaKind,
        ice: bool = False,
        group: str = "1001",
        fmtp: str = "",
        codec: str = "",
        feedback: tuple[str, ...] = (),
    ) -> tuple[dict[MediaKind, Source], LegInfo]:
        """Open a group; without ICE its source latches with its first packet."""
        peers = [self.peer(kind) for kind in kinds]
        leg = LegSpec(
            f"src{next(self.ids)}",
            group,
            HOST,
            tuple(peer.spec(receives=True, ice=ice, fmtp=fmtp, codec=codec, feedback=feedback) for peer in peers),
        )
        info = expect(self.do(OpenGroup(group, 1, leg)), LegInfo)
        sources = {
            peer.kind: Source(peer, place.rtp, frame=RATE[peer.kind] // (50 if peer.kind == "audio" else 30))
            for peer, place in zip(peers, info.media, strict=True)
        }
        return sources, info

    def viewer(
        self,
        kind: MediaKind,
        *,
        ice: bool = False,
        client: str = HOST,
        fmtp: str = "",
        group: str = "1001",
        codec: str = "",
    ) -> tuple[Peer, LegSpec, LegMedia]:
        """Add a viewer of one medium."""
        peer = self.peer(kind)
        media = peer.spec(sends=True, ice=ice, fmtp=fmtp, codec=codec)
        spec = LegSpec(f"v{next(self.ids)}", "2001", client, (media,))
        info = expect(self.do(AddViewer(group, 1, spec)), LegInfo)
        return peer, spec, info.media[0]


def held(spec: LegSpec) -> LegSpec:
    """The leg with its media on hold."""
    return replace(spec, media=tuple(replace(media, sends=False) for media in spec.media))
