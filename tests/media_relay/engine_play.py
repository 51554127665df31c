"""The same play for any engine: a source of some codec over a bad network, viewers who come, hold, ask again and go.

Most plays are for a dozen viewers; some for more than an engine serves at a time, or puts into one batch.
What is drawn depends on the seed alone, so two engines that do the same send the same octets and tell the same.
"""

import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from pylibsrtp import Error, Policy, Session

from media_relay.engine import (
    Datagram,
    Engine,
    EngineEvent,
    EngineLeg,
    GroupSpec,
    Inlet,
    Layout,
    LegUnreachable,
    Outlet,
)
from media_relay.engine.security import PROFILES, session
from media_relay.sockets import open_udp
from protocols.control import MediaKind
from protocols.net import Address
from protocols.rtp.packet import Extension, RtpPacket
from protocols.srtp import KEY_BYTES, Srtp

HOST = "127.0.0.1"
GROUP = "1001@play"
STEPS, CROWD_STEPS = 80, 10
VIEWERS, CROWD = 12, (70, 130)
PACKETS, CROWD_PACKETS = 20, 30
"""Packets of a frame at most. What a closed port answers to one frame and a cached picture is read at once."""
PAYLOAD_TYPE = 96
SPS, PPS = b"\x67\x42\xe0\x0d", b"\x68\xce\x3c\x80"
STAP_WITH_SETS = b"\x18\x00\x06\x67\x42\xe0\x0d\x01\x02\x00\x03\x68\xce\x3c"
IDR_STARTS = (b"", SPS, STAP_WITH_SETS, STAP_WITH_SETS + b"\x00\x04\x65abc")
SLICE_STARTS = (b"\x61", b"\x41", b"\x7c\x85", b"\x7c\x05", b"\x1c\x85", b"\x18\x00")
STRAYS = (b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), b"\x80\xc8\x00\x06" + bytes(24), b"", b"\x80" * 2100)
LAYOUTS: tuple[Layout, Layout] = ("octet-aligned", "bandwidth-efficient")
UNREADABLE = "unreadable"
"""A viewer got what its keys do not open."""


@dataclass(frozen=True)
class Coding:
    """What the source sends."""

    codec: str
    clock_rate: int
    layout: Layout

    @property
    def medium(self) -> MediaKind:
        return "video" if self.codec == "H264" else "audio"


def drawn_coding(dice: Random) -> Coding:
    codec = dice.choice(["H264", "H264", "PCMU", "AMR"])
    return Coding(codec, 90_000 if codec == "H264" else 8000, dice.choice(LAYOUTS) if codec == "AMR" else "")


def drawn_keys(dice: Random) -> Srtp:
    profile = dice.choice(list(KEY_BYTES))
    return Srtp(profile, dice.randbytes(KEY_BYTES[profile]))


class Phone:
    """A source's end of SRTP: protects what it sends, and now and then somebody replays, forges or truncates it."""

    def __init__(self, sock: socket.socket, dice: Random, *, secured: bool) -> None:
        self.sock = sock
        self.address = Address(*sock.getsockname())
        self.keys: Srtp | None = None
        self._dice = dice
        self._session: Session | None = None
        self._recorded: list[bytes] = []
        if secured:
            self.rekey()

    def rekey(self) -> None:
        self.keys = drawn_keys(self._dice)
        policy = Policy(
            self.keys.master_key_and_salt, Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILES[self.keys.profile]
        )
        policy.allow_repeat_tx = True
        policy.window_size = 1024
        self._session = Session(policy)

    def send(self, packets: Iterable[bytes], to: Address) -> None:
        for packet in packets:
            for sent in self._protected(packet) if self._session is not None else [packet]:
                self.sock.sendto(sent, to)

    def _protected(self, packet: bytes) -> list[bytes]:
        assert self._session is not None
        dice = self._dice
        try:
            protected = self._session.protect(packet)
        except Error:
            return [packet]  # no RTP, or older than it keeps account of: what nobody protected
        self._recorded = [*self._recorded[-200:], protected]
        fate = dice.random()
        if fate < 0.02:
            return [protected, dice.choice(self._recorded)]
        if fate < 0.04:
            at = dice.randrange(len(protected))
            return [protected[:at] + bytes([protected[at] ^ 1 << dice.randrange(8)]) + protected[at + 1 :], protected]
        if fate < 0.06:
            return [protected[: dice.randrange(len(protected))], protected]
        return [protected]


class Source:
    """Frames with losses, doubles, reordering, nonsense and jumps of every number there is."""

    def __init__(self, dice: Random, coding: Coding, most: int) -> None:
        self._dice = dice
        self._coding = coding
        self._most = most
        self._sequence = dice.choice([dice.randrange(65536), 65500])
        self._timestamp = dice.choice([dice.randrange(2**32), 2**32 - 5000])
        self._ssrc = dice.randrange(2**32)
        self._held: list[bytes] = []

    def frame(self) -> list[bytes]:
        dice = self._dice
        self._timestamp += self._coding.clock_rate // dice.choice([30, 30, 50])
        keyframe, size, count = dice.random() < 0.15, dice.choice([50, 300, 1200]), dice.randint(1, self._most)
        sent: list[bytes] = []
        for index in range(count):
            packet = self._packet(self._payload(index, count, size, keyframe=keyframe), last=index == count - 1)
            fate = dice.random()
            if fate < 0.03:
                continue
            if fate < 0.06:
                self._held.append(packet)
                continue
            sent += [packet] * (2 if fate < 0.08 else 1)
        if self._held and dice.random() < 0.3:
            sent += self._held
            self._held = []
        if dice.random() < 0.05:
            dice.shuffle(sent)
        return sent

    def jump(self) -> None:
        """A new stream, a gap, or another clock."""
        dice = self._dice
        match dice.randrange(3):
            case 0:
                self._ssrc, self._sequence = dice.randrange(2**32), dice.randrange(65536)
            case 1:
                self._sequence += dice.choice([2000, 5000, 40_000])
            case 2:
                self._timestamp = dice.randrange(2**32)

    def _payload(self, index: int, count: int, size: int, *, keyframe: bool) -> bytes:
        dice = self._dice
        match self._coding.codec:
            case "H264" if keyframe:
                start = dice.choice(IDR_STARTS) if index == 0 else b""
                return start or b"\x65" + dice.randbytes(size)
            case "H264":
                return dice.choice(SLICE_STARTS) + dice.randbytes(size if index < count - 1 else dice.randint(1, size))
            case "AMR":
                if dice.random() < 0.2:
                    return dice.randbytes(dice.randint(1, 40))
                aligned = self._coding.layout == "octet-aligned"
                return b"\xf0\x3c" + dice.randbytes(31) if aligned else b"\xf3\xc0" + dice.randbytes(30)
        return dice.randbytes(160)

    def _packet(self, payload: bytes, *, last: bool) -> bytes:
        dice = self._dice
        packet = RtpPacket(
            PAYLOAD_TYPE if dice.random() > 0.02 else PAYLOAD_TYPE + 1,
            self._sequence,
            self._timestamp,
            self._ssrc,
            payload,
            marker=last,
            csrcs=tuple(range(dice.choice([1, 2, 15]))) if dice.random() < 0.05 else (),
            extension=Extension(0xBEDE, dice.randbytes(4 * dice.randrange(5))) if dice.random() < 0.1 else None,
            padding=dice.choice([0, 0, 0, 4]),
        ).serialise()
        self._sequence += 1
        return packet[: dice.randint(0, len(packet))] if dice.random() < 0.02 else packet


class Play:
    """One engine, its sockets, and everything it did, in order."""

    def __init__(self, make: Callable[[Random], Engine], seed: int) -> None:
        self.dice = Random(seed)
        self.engine = make(Random(seed))
        self.did: list[object] = []
        self.now = 1000.0
        self._opened: list[socket.socket] = []
        self._views: dict[str, socket.socket] = {}
        self._outlets: dict[str, Outlet] = {}
        self._names = map("viewer-{}".format, itertools.count())
        self._crowd = self.dice.randint(*CROWD) if self.dice.random() < 0.05 else 0
        self._closes = self.dice.random() < 0.2
        """One viewer's port is still to be closed."""
        self._coding = drawn_coding(self.dice)
        self._port = self._open()
        secured = self.dice.random() < 0.3
        self._phones = [Phone(self._open(), self.dice, secured=secured) for _ in range(2)]
        self._phone = 0
        self._opening: dict[str, Session] = {}
        """The viewers' ends of SRTP."""
        self._seen: dict[str, set[bytes]] = {}
        self._newest: dict[str, int] = {}
        """Number of the packet each viewer got last."""
        self._source = Source(self.dice, self._coding, CROWD_PACKETS if self._crowd else PACKETS)
        self._sets = (SPS, PPS) if self.dice.random() < 0.7 else ()
        self.engine.watch(self._port)

    def close(self) -> None:
        for sock in self._opened:
            sock.close()

    def run(self) -> None:
        dice = self.dice
        bounds = dice.choice([2.0, 0.5]), dice.choice([512_000, 20_000]), dice.choice([float("inf"), 60_000.0])
        self.engine.set_group(GroupSpec(GROUP, *bounds))
        self._set_source()
        for step in range(CROWD_STEPS if self._crowd else STEPS):
            if step in (0, CROWD_STEPS // 2):
                for _ in range(self._crowd // 2):
                    self._viewer()
            self.now += dice.choice([0.001, 0.02, 0.033, 0.033, 0.3])
            self._act()
            self._look()

    def _act(self) -> None:
        what = self.dice.random()
        if what < 0.64:
            self._send()
        elif what < 0.74:
            if len(self._outlets) < VIEWERS:
                self._viewer()
        elif what < 0.87 and self._outlets:
            self._change(self.dice.choice(list(self._outlets)))
        elif what < 0.89:
            kind = self.dice.random()
            if kind < 0.6:
                self._source.jump()
            elif kind < 0.75 and self._phones[self._phone].keys is not None:
                self._phones[self._phone].rekey()
                self._set_source()
            else:
                self._phone = 1 - self._phone
                self._set_source()
        elif what < 0.92:
            stray = self.dice.choice([*STRAYS, self.dice.randbytes(30)])
            self._phones[self._phone].sock.sendto(stray, self._port.getsockname())
            self._phones[1 - self._phone].sock.sendto(b"\x80\x60" + bytes(40), self._port.getsockname())

    def _send(self) -> None:
        frame = self._source.frame()
        if self.dice.random() < 0.15:
            self.engine.inject(GROUP, self._coding.medium, 0, frame, self.now)
            return
        self._phones[self._phone].send(frame, Address(*self._port.getsockname()))

    def _set_source(self) -> None:
        coding, phone = self._coding, self._phones[self._phone]
        inlet = Inlet(
            *(coding.medium, self._port, phone.address, PAYLOAD_TYPE, True, coding.codec, coding.clock_rate),
            *(coding.layout, self._sets),
            security=phone.keys,
        )
        self.engine.set_leg(EngineLeg(GROUP, f"source-{self._phone}", (inlet,)), self.now)

    def _viewer(self) -> None:
        dice, coding, name = self.dice, self._coding, next(self._names)
        view = self._views[name] = self._open()
        outlet = Outlet(
            *(coding.medium, self._port, Address(*view.getsockname()), dice.randrange(96, 128), dice.randrange(2**32)),
            flow=dice.choice(["open", "open", "open", "trickle", "paused"]),
            layout=dice.choice(LAYOUTS) if coding.layout else "",
            security=drawn_keys(dice) if dice.random() < 0.3 else None,
        )
        self._expect(name, outlet)
        back = Inlet(coding.medium, self._port, outlet.destination, outlet.payload_type, False)
        self._outlets[name] = outlet
        self.engine.set_leg(EngineLeg(GROUP, name, (back,) if dice.random() < 0.5 else (), (outlet,)), self.now)

    def _change(self, name: str) -> None:
        """Hold or resume, with other keys or another payload type, hang up, ask for packets again, or be gone."""
        dice = self.dice
        match dice.randrange(5 if self._closes else 4):
            case 0 | 1:
                outlet = replace(self._outlets[name], flow=dice.choice(["open", "paused", "trickle"]))
                if dice.random() < 0.2:
                    outlet = replace(outlet, payload_type=dice.randrange(96, 128))
                if outlet.security is not None and dice.random() < 0.3:
                    outlet = replace(outlet, security=drawn_keys(dice))
                    self._expect(name, outlet)
                self._outlets[name] = outlet
                self.engine.set_leg(EngineLeg(GROUP, name, (), (outlet,)), self.now)
            case 2:
                del self._outlets[name]
                self.engine.remove(GROUP, name)
            case 3:
                newest = self._newest.get(name, 0) + dice.choice([0, 0, -100])
                lost = [newest + back & 0xFFFF for back in range(-10, 5)] + [dice.randrange(65536)] * 3
                self.did.append(("resent", self.engine.resend(GROUP, name, self._coding.medium, lost, self.now)))
            case 4:
                self._closes = False
                self._taken()
                self._views.pop(name).close()

    def _look(self) -> None:
        due = self.engine.step(self.now)
        self._taken()
        if due is not None and self.dice.random() < 0.8:
            self.now = max(self.now, due) + 0.0001
            self.did.append(("due", self.engine.step(self.now)))
            self._taken()
        phones = [phone.address for phone in self._phones]
        unreachable: set[str] = set()
        for event in self._events():
            match event:
                case Datagram(_, data, source):
                    self.did.append(("datagram", data, phones.index(source) if source in phones else "viewer"))
                case LegUnreachable(_, _, leg_id):
                    unreachable.add(leg_id)  # a run of packets is answered once, as many packets are one by one
                case _:
                    self.did.append(event)
        self.did.append(("unreachable", sorted(unreachable)))
        source = self.engine.source(GROUP, self._coding.medium)
        if source is not None:
            received = source.reception
            self.did += [replace(source, reception=None), received.expected, received.packets, received.jitter]  # type: ignore[arg-type]
            if self.dice.random() < 0.2:
                self.did.append(received.report(self.now))
        for name in self._outlets:
            self.did += [self.engine.outlet(GROUP, name, self._coding.medium), self.engine.leg(GROUP, name)]
        self.did += [("due", due), self.engine.totals()]

    def _events(self) -> Iterator[EngineEvent]:
        """All of them: how many are told at a time is the engine's affair."""
        while events := self.engine.events():
            yield from events

    def _taken(self) -> None:
        for name, view in self._views.items():
            while True:
                try:
                    packet = view.recv(20_000)
                except BlockingIOError:
                    break
                self.did.append((name, packet))
                self._newest[name] = int.from_bytes(packet[2:4], "big")
                if name in self._opening:
                    self._open_protected(name, packet)

    def _expect(self, name: str, outlet: Outlet) -> None:
        """From now on the viewer opens what it gets with these keys."""
        if outlet.security is not None:
            self._opening[name] = session(outlet.security, None, room=20_000)
            self._seen[name] = set()

    def _open_protected(self, name: str, packet: bytes) -> None:
        """What does not open must be the very same packet again, as after a NACK."""
        try:
            self.did.append((name, "opened", self._opening[name].unprotect(packet)))
        except Error:
            self.did.append((name, "again" if packet in self._seen[name] else UNREADABLE))
        self._seen[name].add(packet)

    def _open(self) -> socket.socket:
        opened = open_udp(Address(HOST, 0), buffer_bytes=4_000_000, dscp=0)
        self._opened.append(opened)
        return opened
