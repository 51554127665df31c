"""Floods from strangers, from ICMP and from a hostile broadcaster: bounded, and nobody else loses anything by them."""

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from relay_world import ENGINES, World

from media_relay.engine import (
    Datagram,
    Engine,
    EngineEvent,
    EngineLeg,
    GroupSpec,
    Inlet,
    KeyframeNeeded,
    KeyframeSeen,
    LegUnreachable,
    Outlet,
    PacketsMissing,
    SourceStarted,
)
from media_relay.engine.plain import READ_BUDGET
from media_relay.engine.queue import ERRORS_INTERVAL, MAX_EVENTS, SOCKET_EVENTS, TELL_INTERVAL
from media_relay.engine.stream import MAX_PARAMETER_BYTES, MAX_PARAMETER_SETS
from media_relay.sockets import open_udp
from protocols.net import Address
from protocols.rtp.packet import HEADER_BYTES, RtpPacket

HOST, GROUP = "127.0.0.1", "1001"
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
IDR, SETS = b"\x65", b"\x18" + b"".join(b"\x01\x00" + head + bytes(255) for head in (b"\x67", *[b"\x68"] * 7))
"""A keyframe of one octet, and eight parameter sets in one packet: all that is taken."""


class Stage:
    """An engine, a port it reads, and a phone whose packets are a group's source; the clock is ours."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self.engine = make()
        self.now = 1000.0
        self.sockets: list[socket.socket] = []
        self.port, self.phone = self.watched(), self.open()

    def open(self) -> socket.socket:
        made = open_udp(Address(HOST, 0), buffer_bytes=4_000_000, dscp=0)
        self.sockets.append(made)
        return made

    def watched(self) -> socket.socket:
        made = self.open()
        self.engine.watch(made)
        return made

    def source(self, codec: str = "PCMU", *, bytes_per_second: float = float("inf")) -> None:
        """The group, fed by the phone."""
        self.engine.set_group(GroupSpec(GROUP, source_bytes_per_second=bytes_per_second))
        medium, rate = ("video", 90_000) if codec == "H264" else ("audio", 8000)
        inlet = Inlet(medium, self.port, of(self.phone), 96, forward=True, codec=codec, clock_rate=rate)
        self.engine.set_leg(EngineLeg(GROUP, "source", (inlet,)), self.now)

    def viewer(self, leg_id: str, to: Address, *, port: socket.socket, known: bool = True) -> None:
        """Somebody who gets the sound over this port; `known` where his media is accepted."""
        inlets = (Inlet("audio", port, to, 96, forward=False),) if known else ()
        self.engine.set_leg(EngineLeg(GROUP, leg_id, inlets, (Outlet("audio", port, to, 96, 7),)), self.now)

    def send(self, *packets: bytes) -> None:
        """By the phone; the engine has read it."""
        for packet in packets:
            self.phone.sendto(packet, self.port.getsockname())
        self.engine.step(self.now)

    def told(self) -> list[EngineEvent]:
        """Everything since the last call."""
        found: list[EngineEvent] = []
        while events := self.engine.events():
            found += events
        return found

    def gone(self) -> Address:
        """An address where nobody is any more."""
        sock = self.open()
        address = of(sock)
        sock.close()
        return address

    def close(self) -> None:
        self.engine.close()
        for sock in self.sockets:
            sock.close()


def of(sock: socket.socket) -> Address:
    return Address(*sock.getsockname())


def apart(times: list[float], interval: float) -> bool:
    """True where no two of them are closer."""
    return all(after - before >= interval - 1e-6 for before, after in pairwise(times))


def packet(sequence: int, payload: bytes = bytes(20), timestamp: int | None = None) -> bytes:
    timestamp = 160 * sequence if timestamp is None else timestamp
    return RtpPacket(96, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, 7, payload).serialise()


@pytest.fixture(params=ENGINES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(ENGINES[request.param])
    yield made
    made.close()


def flood(stage: Stage, ports: list[socket.socket], count: int) -> None:
    """So many strangers' datagrams to each port, all read."""
    stranger = stage.open()
    for start in range(0, count, READ_BUDGET):
        for port in ports:
            for number in range(start, min(start + READ_BUDGET, count)):
                stranger.sendto(b"\x00%d" % number, port.getsockname())
        stage.engine.step(stage.now)


def test_strangers_at_one_port_take_its_share_of_the_queue_and_no_more(stage: Stage) -> None:
    calm = stage.watched()
    flood(stage, [stage.port], SOCKET_EVENTS + 200)
    stage.phone.sendto(STUN, calm.getsockname())
    stage.engine.step(stage.now)
    told = [(event.socket, event.data) for event in stage.told() if isinstance(event, Datagram)]
    assert told == [*((stage.port, b"\x00%d" % number) for number in range(SOCKET_EVENTS)), (calm, STUN)]
    stage.send(STUN)
    assert [event.data for event in stage.told() if isinstance(event, Datagram)] == [STUN], "there is room again"


def test_a_source_that_starts_and_a_viewer_who_waits_come_through_a_full_queue(stage: Stage) -> None:
    stage.source("H264")
    ports = [stage.watched() for _ in range(MAX_EVENTS // SOCKET_EVENTS)]
    flood(stage, ports, SOCKET_EVENTS)
    stage.send(packet(1, b"\x41slice"), packet(2, b"\x67sps", 160))
    outlet = Outlet("video", stage.port, of(stage.open()), 96, 9)
    stage.engine.set_leg(EngineLeg(GROUP, "late", (), (outlet,)), stage.now + 10)
    told = stage.told()
    assert len(told) == MAX_EVENTS
    assert told[-2:] == [SourceStarted(GROUP, "source", "video"), KeyframeNeeded(GROUP)]
    assert all(isinstance(event, Datagram) for event in told[:-2])


def test_what_is_missing_is_told_now_and_then_and_once_unless_it_came_meanwhile(stage: Stage) -> None:
    stage.source()

    def missing_after(wait: float, *sequences: int) -> list[tuple[int, ...]]:
        stage.now += wait
        stage.send(*map(packet, sequences))
        return [event.sequences for event in stage.told() if isinstance(event, PacketsMissing)]

    assert missing_after(0, 1, 2, 4) == [(3,)]
    assert missing_after(0.01, 6, 8, 11) == []
    assert missing_after(0.03, 7) == []
    assert missing_after(TELL_INTERVAL - 0.041, 12) == []
    assert missing_after(0.002, 13) == [(5, 9, 10)]
    assert missing_after(10, 14) == []
    assert missing_after(0, 16) == [(15,)], "the first after a while at once"


def test_a_source_full_of_gaps_is_told_of_at_intervals_and_of_all_of_them(stage: Stage) -> None:
    stage.source()
    times: list[float] = []
    missing: list[int] = []

    def send(sequence: int, wait: float) -> None:
        stage.now += wait
        stage.send(packet(sequence))
        for event in stage.told():
            if isinstance(event, PacketsMissing):
                times.append(stage.now)
                missing.extend(event.sequences)

    for sequence in range(0, 2000, 2):
        send(sequence, 0.001)
    send(1999, TELL_INTERVAL)
    assert missing == list(range(1, 1999, 2))
    assert apart(times, TELL_INTERVAL)
    assert len(times) > 1 / TELL_INTERVAL / 2


def test_a_source_of_nothing_but_keyframes_is_told_of_at_intervals(stage: Stage) -> None:
    stage.source("H264")
    times: list[float] = []
    for number in range(500):
        stage.now += 0.001
        stage.send(packet(2 * number, b"\x67sps", 90 * number), packet(2 * number + 1, b"\x65idr", 90 * number))
        times += [stage.now for event in stage.told() if isinstance(event, KeyframeSeen)]
    assert apart(times, TELL_INTERVAL)
    assert 0.5 / TELL_INTERVAL / 2 < len(times) <= 0.5 / TELL_INTERVAL + 1


def test_icmp_is_told_of_at_intervals_a_socket_and_names_the_leg_that_lives_there(stage: Stage) -> None:
    stage.source()
    other = stage.watched()
    known, elsewhere, unknown = (stage.gone() for _ in range(3))
    stage.viewer("known", known, port=stage.port)
    stage.viewer("elsewhere", elsewhere, port=other)
    stage.viewer("unknown", unknown, port=stage.port, known=False)
    times: dict[socket.socket, list[float]] = {stage.port: [], other: []}
    names: set[tuple[socket.socket, Address, str]] = set()
    for number in range(200):
        stage.now += 0.001
        stage.send(packet(number))
        found = [event for event in stage.told() if isinstance(event, LegUnreachable)]
        names |= {(event.socket, event.address, event.leg_id) for event in found}
        for sock in {event.socket for event in found}:
            times[sock].append(stage.now)
    assert names == {(stage.port, known, "known"), (other, elsewhere, "elsewhere"), (stage.port, unknown, "")}
    for each in times.values():
        assert apart(each, ERRORS_INTERVAL)
        assert len(each) > 0.2 / ERRORS_INTERVAL / 2


def test_parameter_sets_put_before_keyframes_count_as_what_the_source_sends(stage: Stage) -> None:
    """Two kilobytes go out for each packet of 13 octets: what is multiplied by viewers is bounded all the same."""
    rate, seconds = 60_000, 3
    stage.source("H264", bytes_per_second=rate)
    view = stage.open()
    outlet = Outlet("video", stage.port, of(view), 96, 9)
    stage.engine.set_leg(EngineLeg(GROUP, "viewer", (), (outlet,)), stage.now)
    stage.send(packet(0, SETS))
    got: list[bytes] = []
    sequence = 0
    for _ in range(100 * seconds):
        stage.now += 0.01
        numbers = range(sequence + 1, sequence + 33)
        stage.send(*(packet(number, IDR, 3000 * number) for number in numbers))
        sequence = numbers[-1]
        while True:
            try:
                got.append(view.recv(4096))
            except BlockingIOError:
                break
    at_once = READ_BUDGET * (MAX_PARAMETER_BYTES + (MAX_PARAMETER_SETS + 1) * HEADER_BYTES + 1)
    assert sum(len(data) == HEADER_BYTES + 256 for data in got) > 8 * 20, "they do go out"
    assert rate * seconds / 2 < sum(map(len, got)) <= rate * (seconds + 1) + at_once
    assert stage.engine.totals().over_rate > 0


def test_the_first_packets_of_a_source_go_on_the_line_however_many_they_are(stage: Stage) -> None:
    count = 4096 + 904
    stage.source()
    stage.viewer("viewer", of(stage.open()), port=stage.port)
    stage.engine.inject(GROUP, "audio", 0, [packet(number) for number in range(count)], stage.now)
    source, viewer = stage.engine.source(GROUP, "audio"), stage.engine.leg(GROUP, "viewer")
    assert source is not None and viewer is not None
    assert (source.reception.packets, viewer.packets) == (count, count)
    assert [event for event in stage.told() if isinstance(event, PacketsMissing)] == []


def test_the_group_that_is_gone_when_its_first_packets_come_stops_no_other(world: World) -> None:
    """Packets of new sources pass the control side, which may have closed their group meanwhile."""
    names = ("gone", "left", "stays")
    sources = {name: world.broadcaster("audio", group=name)[0]["audio"] for name in names}
    viewers = {name: world.viewer("audio", group=name)[0] for name in names}
    groups = world.relay.groups
    for _ in range(2):
        for source in sources.values():
            source.send(b"first")
        world.engine.step(world.now)
    for event in world.engine.events():
        world.relay._traffic._event(event, world.now)
    assert len(world.relay._traffic._beginnings) == 3
    groups.close(groups.by_id["gone"])
    groups.remove(groups.by_id["left"], next(iter(groups.by_id["left"].legs)))
    world.relay._traffic._begin(world.now)
    world.step()
    sources["stays"].send(b"third")
    world.step()
    assert [p.payload for p in viewers["stays"].packets()] == [b"first", b"first", b"third"]
    assert viewers["gone"].packets() == []
