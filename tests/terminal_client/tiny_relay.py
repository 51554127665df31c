"""The least relay that two media sessions need: answers their checks, forwards, replays, and misbehaves on demand."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from protocols.join import IceCredentials, IceLiteResponder, check_username, new_credentials
from protocols.net import Address
from protocols.rtp.classify import classify
from protocols.rtp.h264 import is_keyframe
from protocols.rtp.packet import payload_of, peek_header, rewrite_header
from protocols.rtp.rtcp import Nack, parse_compound
from terminal_client.streams import LocalMedia, LocalStream, Medium, RemoteMedia, RemoteStream, Role

PAYLOAD_TYPES = {"audio": 96, "video": 97}
SQUEEZED_STEP = 90


@dataclass
class Rule:
    """What happens to video packets on their way to viewers; probabilities by a seeded generator."""

    drop: float = 0.0
    swap: float = 0.0
    duplicate: float = 0.0
    repair: bool = False
    seed: int = 1
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)


@dataclass
class Leg:
    role: Role
    medium: Medium
    credentials: IceCredentials
    responder: IceLiteResponder
    address: Address | None = None
    next_sequence: int = 1000
    blocked: bool = False
    history: dict[int, bytes] = field(default_factory=dict)


class TinyRelay:
    """One broadcaster and any number of viewers on one socket a medium, RTCP multiplexed."""

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self.legs: list[Leg] = []
        self.mute = False
        self._transports: dict[Medium, asyncio.DatagramTransport] = {}
        self._group_of_pictures: list[bytes] = []
        self._withheld: bytes | None = None

    async def __aenter__(self) -> "TinyRelay":
        loop = asyncio.get_running_loop()
        media: tuple[Medium, ...] = ("audio", "video")
        for medium in media:
            transport, _ = await loop.create_datagram_endpoint(
                lambda medium=medium: _Port(lambda data, source: self._datagram(medium, data, source)),
                local_addr=("127.0.0.1", 0),
            )
            self._transports[medium] = transport
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._transports.values():
            transport.close()

    def admit(self, role: Role, local: LocalMedia, *, codec: str = "AMR", wrong_password: bool = False) -> RemoteMedia:
        """Make legs for a terminal; what its signalling would have read in the answer comes back."""
        audio = self._leg(role, "audio", local.audio, codec, wrong_password)
        video = self._leg(role, "video", local.video, "H264", wrong_password)
        return RemoteMedia(audio, video)

    def _leg(self, role: Role, medium: Medium, local: LocalStream, codec: str, wrong_password: bool) -> RemoteStream:
        credentials = new_credentials(secrets.token_bytes)
        self.legs.append(Leg(role, medium, credentials, IceLiteResponder(credentials, local.ufrag)))
        address = Address(*self._transports[medium].get_extra_info("sockname"))
        return RemoteStream(
            address=address,
            rtcp=address,
            rtcp_mux=True,
            codec=codec,
            payload_type=PAYLOAD_TYPES[medium],
            fmtp={"AMR": "octet-align=1", "H264": "profile-level-id=42e01e;packetization-mode=1"}.get(codec, ""),
            direction="sendonly" if role == "broadcast" else "recvonly",
            ufrag=credentials.ufrag,
            password="wrong" if wrong_password else credentials.password,
        )

    def _datagram(self, medium: Medium, data: bytes, source: Address) -> None:
        match classify(data):
            case "stun":
                self._check(medium, data, source)
            case "rtp":
                if any(leg.role == "broadcast" and leg.address == source for leg in self.legs):
                    self._forward(medium, data)
            case "rtcp":
                leg = next((leg for leg in self.legs if leg.address == source), None)
                if leg is not None:
                    self._pass_on(leg, data)

    def _check(self, medium: Medium, data: bytes, source: Address) -> None:
        names = check_username(data)
        if names is None or self.mute:
            return
        for leg in self.legs:
            if leg.medium == medium and leg.credentials.ufrag == names[0]:
                result = leg.responder.receive(data, source, time.monotonic())
                if result.reply is not None:
                    self._transports[medium].sendto(result.reply, source)
                if result.nominated and leg.address is None:
                    leg.address = source
                    if leg.role == "watch" and medium == "video":
                        self._replay(leg)

    def _pass_on(self, leg: Leg, data: bytes) -> None:
        """Feedback travels to the broadcaster, sender reports to the viewers; lost packets are sent again from here."""
        for packet in parse_compound(data):
            if isinstance(packet, Nack) and leg.address is not None and self.rule.repair:
                for sequence in set(packet.sequences) & leg.history.keys():
                    self._transports[leg.medium].sendto(leg.history[sequence], leg.address)
        for other in self.legs:
            if other.medium == leg.medium and other.role != leg.role and other.address is not None:
                self._transports[leg.medium].sendto(data, other.address)

    def _forward(self, medium: Medium, data: bytes) -> None:
        for leg in self.legs:
            if leg.role == "watch" and leg.medium == medium and leg.address is not None and not leg.blocked:
                if medium == "audio":
                    self._transports[medium].sendto(data, leg.address)
                else:
                    self._misbehave(leg, data)
        if medium == "video":
            if is_keyframe(payload_of(data)) and (
                not self._group_of_pictures
                or peek_header(self._group_of_pictures[0]).timestamp != peek_header(data).timestamp
            ):
                self._group_of_pictures.clear()
            self._group_of_pictures.append(data)

    def _misbehave(self, leg: Leg, data: bytes) -> None:
        header, rule = peek_header(data), self.rule
        sequence, leg.next_sequence = leg.next_sequence, leg.next_sequence + 1
        packet = rewrite_header(
            data,
            payload_type=header.payload_type,
            sequence=sequence,
            timestamp=header.timestamp,
            ssrc=header.ssrc,
        )
        leg.history[sequence] = packet
        assert leg.address is not None
        send: Callable[[bytes], None] = lambda one: self._transports["video"].sendto(one, leg.address)  # noqa: E731
        if rule.random.random() < rule.drop:
            return
        if self._withheld is None and rule.random.random() < rule.swap:
            self._withheld = packet
            return
        send(packet)
        if rule.random.random() < rule.duplicate:
            send(packet)
        if self._withheld is not None:
            send(self._withheld)
            self._withheld = None

    def _replay(self, leg: Leg) -> None:
        """What came since the last keyframe, its timestamps squeezed to end at the newest picture."""
        assert leg.address is not None
        stamps = sorted({peek_header(data).timestamp for data in self._group_of_pictures})
        for data in self._group_of_pictures:
            header = peek_header(data)
            behind = len(stamps) - 1 - stamps.index(header.timestamp)
            packet = rewrite_header(
                data,
                payload_type=header.payload_type,
                sequence=leg.next_sequence,
                timestamp=stamps[-1] - behind * SQUEEZED_STEP,
                ssrc=header.ssrc,
            )
            leg.next_sequence += 1
            self._transports["video"].sendto(packet, leg.address)


class _Port(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, Address(*addr[:2]))
