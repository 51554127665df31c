"""The engine on a thread of its own: what happens between its thread and Python's."""

import time
from collections.abc import Iterator

import pytest

from media_relay.engine import Datagram, EngineLeg, GroupSpec, Inlet, Outlet
from media_relay.engine.native import NativeEngine
from media_relay.sockets import open_udp
from protocols.net import Address
from protocols.rtp.packet import RtpPacket

HOST, GROUP, PART = "127.0.0.1", "1001", 40


@pytest.fixture
def engine() -> Iterator[NativeEngine]:
    made = NativeEngine()
    yield made
    made.close()


def test_what_a_source_sent_before_it_was_known_goes_out_first(engine: NativeEngine) -> None:
    port, phone, view = (open_udp(Address(HOST, 0), buffer_bytes=4_000_000, dscp=0) for _ in range(3))
    try:
        to, sequence = Address(*port.getsockname()), 0

        def send() -> None:
            nonlocal sequence
            for _ in range(PART):
                phone.sendto(RtpPacket(0, sequence, 160 * sequence, 7, bytes(160)).serialise(), to)
                sequence += 1

        def told(count: int) -> list[bytes]:
            got: list[bytes] = []
            deadline = time.monotonic() + 10
            while len(got) < count and time.monotonic() < deadline:
                got += [event.data for event in engine.events() if isinstance(event, Datagram)]
            return got

        engine.watch(port)
        engine.set_group(GroupSpec(GROUP))
        outlet = Outlet("audio", port, Address(*view.getsockname()), 0, 9)
        engine.set_leg(EngineLeg(GROUP, "viewer", (), (outlet,)), time.monotonic())
        send()
        first = told(PART)  # with Python now
        send()  # on its way there
        time.sleep(0.1)
        inlet = Inlet("audio", port, Address(*phone.getsockname()), 0, forward=True, codec="PCMU")
        engine.set_leg(EngineLeg(GROUP, "source", (inlet,)), time.monotonic())
        send()  # after the source is known
        time.sleep(0.1)
        engine.inject(GROUP, "audio", 0, first, time.monotonic())
        while burst := [event.data for event in engine.events() if isinstance(event, Datagram)]:
            engine.inject(GROUP, "audio", 0, burst, time.monotonic())
        got: list[int] = []
        deadline = time.monotonic() + 10
        while len(got) < 3 * PART and time.monotonic() < deadline:
            try:
                got.append(int.from_bytes(view.recv(2048)[2:4], "big"))
            except BlockingIOError:
                time.sleep(0.01)
        assert [number - got[0] & 0xFFFF for number in got] == list(range(3 * PART))
    finally:
        for sock in (port, phone, view):
            sock.close()
