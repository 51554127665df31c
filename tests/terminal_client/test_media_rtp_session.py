"""Two RTP sessions face to face, without a relay: reports, requests, repairs, and who is listened to."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from protocols.join import IceLiteResponder, new_credentials
from protocols.net import Address
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Fir
from terminal_client.rtp_session import RtpSession, SessionUser
from terminal_client.streams import LocalStream, RemoteStream
from terminal_client.video_buffer import Feedback

HOST = "127.0.0.1"


@dataclass
class Side:
    """A session and what it heard."""

    session: RtpSession
    local: LocalStream
    packets: list[RtpPacket] = field(default_factory=list)
    keyframes_wanted: list[None] = field(default_factory=list)

    def connect(self, other: "Side", *, mux: bool) -> None:
        rtp, rtcp = Address(HOST, other.local.port), Address(HOST, other.local.rtcp_port)
        self.session.connect(RemoteStream(rtp, rtp if mux else rtcp, mux, "H264", 97))


async def side() -> Side:
    packets: list[RtpPacket] = []
    wanted: list[None] = []
    user = SessionUser(lambda packet, now: packets.append(packet), lambda: wanted.append(None), lambda: None)
    session = RtpSession("video", 90_000, user)
    return Side(session, await session.open(HOST), packets, wanted)


@asynccontextmanager
async def pair(*, mux: bool = False) -> AsyncIterator[tuple[Side, Side]]:
    near, far = await side(), await side()
    near.connect(far, mux=mux)
    far.connect(near, mux=mux)
    yield near, far
    near.session.close()
    far.session.close()


async def test_ports_are_an_even_one_and_the_next() -> None:
    one = await side()
    assert one.local.port % 2 == 0
    assert one.local.rtcp_port == one.local.port + 1
    one.session.close()


async def test_a_pictures_packets_arrive_in_order_spread_over_part_of_its_time_the_last_one_marked() -> None:
    async with pair() as (near, far):
        near.session.send_frame([bytes([n]) * 1200 for n in range(30)], 9000, spread=0.033)
        assert near.session.report().packets_sent == 30
        await asyncio.sleep(0.005)
        assert 0 < len(far.packets) < 30, "not all at once"
        await asyncio.sleep(0.1)
        assert [packet.payload[0] for packet in far.packets] == list(range(30))
        assert [packet.marker for packet in far.packets] == [False] * 29 + [True]
        assert len({packet.timestamp for packet in far.packets}) == 1


async def test_a_packet_asked_for_again_is_sent_again() -> None:
    async with pair() as (near, far):
        near.session.send_frame([b"one", b"two"], 0)
        await asyncio.sleep(0.02)
        far.session.ask(Feedback(nack=(far.packets[1].sequence, 1)))
        await asyncio.sleep(0.02)
        assert [packet.payload for packet in far.packets] == [b"one", b"two", b"two"]
        assert near.session.report().retransmitted == 1


async def test_keyframe_requests_arrive_and_a_repeated_fir_counts_once() -> None:
    async with pair(mux=True) as (near, far):
        near.session.send_frame([b"picture"], 0)
        await asyncio.sleep(0.02)
        far.session.ask(Feedback(pli=True))
        await asyncio.sleep(0.02)
        assert len(near.keyframes_wanted) == 1
        request = Fir(far.session.ssrc, ((near.session.ssrc, 7),)).serialise()
        for _ in range(3):
            far.session._rtp.sendto(request, (HOST, near.local.port))  # type: ignore[union-attr]
        await asyncio.sleep(0.02)
        assert len(near.keyframes_wanted) == 2


async def test_reports_go_both_ways_and_tell_the_round_trip() -> None:
    async with pair() as (near, far):
        near.session.send_frame([b"picture"], 0)
        await asyncio.sleep(0.55)
        far.session._report()
        await asyncio.sleep(0.05)
        round_trip = near.session.report().round_trip_ms
        assert round_trip is not None and round_trip < 100


async def test_strangers_and_rubbish_are_not_heard() -> None:
    async with pair() as (near, far):
        near.session.send_frame([b"mine"], 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stolen = RtpPacket(97, 1, 1, 1, b"theirs").serialise()
            for data in (stolen, b"", b"\x80", b"\x80\xc8\xff\xff1234", bytes(range(200)) * 5):
                for port in (far.local.port, far.local.rtcp_port):
                    stranger.sendto(data, (HOST, port))
        for data in (b"", b"\x80", b"\x81\xce\xff\xff1234", b"\x90\x61" + b"\xff" * 30):
            near.session._rtp.sendto(data, (HOST, far.local.port))  # type: ignore[union-attr]
        await asyncio.sleep(0.05)
        assert [packet.payload for packet in far.packets] == [b"mine"]


async def test_ipv6_works_alike() -> None:
    session = RtpSession("audio", 8000, SessionUser(lambda packet, now: None, lambda: None, lambda: None))
    local = await session.open("::1")
    assert local.port % 2 == 0
    session.close()


class LiteRelay(asyncio.DatagramProtocol):
    """One port that answers the checks of whoever knows its credentials."""

    def __init__(self) -> None:
        self.credentials = new_credentials(secrets.token_bytes)
        self.nominated = asyncio.Event()
        self._responder = IceLiteResponder(self.credentials)

    async def open(self) -> None:
        made, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        self._wire: asyncio.DatagramTransport = made

    @property
    def stream(self) -> RemoteStream:
        """Its description, as a terminal reads it."""
        address = Address(*self._wire.get_extra_info("sockname"))
        names = self.credentials
        return RemoteStream(address, address, True, "H264", 97, ufrag=names.ufrag, password=names.password)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        result = self._responder.receive(data, Address(*addr), time.monotonic())
        if result.reply is not None:
            self._wire.sendto(result.reply, addr)
        if result.nominated:
            self.nominated.set()

    def close(self) -> None:
        self._wire.close()


async def test_a_far_end_that_moves_is_joined_where_it_is_now() -> None:
    one, two = LiteRelay(), LiteRelay()
    await one.open()
    await two.open()
    here = await side()
    here.session.connect(one.stream)
    await here.session.join(5.0, 30.0)
    here.session.connect(two.stream)
    async with asyncio.timeout(5):
        await two.nominated.wait()
    one.nominated.clear()
    here.session.connect(two.stream)
    await asyncio.sleep(0.1)
    assert not one.nominated.is_set(), "it has not moved again"
    for each in (one, two, here.session):
        each.close()
