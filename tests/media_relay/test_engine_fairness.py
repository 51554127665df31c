"""What one viewer's network does costs the others no packet; who lost out when the socket was full comes first.

The slow address is behind a link of its own, in a network namespace that lives as long as the test's thread.
"""

import ctypes
import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from relay_world import ENGINES

from media_relay.engine import Datagram, Engine, EngineLeg, GroupSpec, Inlet, LegUnreachable, Outlet
from media_relay.sockets import open_udp
from protocols.net import Address
from protocols.rtp.packet import RtpPacket

GROUP, FRAMES, PACKETS, SIZE = "1001", 60, 10, 1200
CLONE_NEWNET = 0x4000_0000
OURS, SLOW = "10.9.0.1", "10.9.0.2"
BUFFER = 212_992
"""What a socket gets of a stock kernel (net.core.wmem_max)."""
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="makes a network namespace: run it as root"
)


class Crowd:
    """A broadcaster whose frames are injected, and viewers who count what they get."""

    def __init__(self, make: Callable[[], Engine], host: str, *, room: int = BUFFER) -> None:
        self.engine = make()
        self.now = 1000.0
        self._sequence = 0
        self._opened: list[socket.socket] = []
        self._viewers: list[socket.socket] = []
        self.relay = open_udp(Address(host, 0), buffer_bytes=room, dscp=0)
        self._opened.append(self.relay)
        self.engine.watch(self.relay)
        self.engine.set_group(GroupSpec(GROUP))
        peer = Address(host, 9)
        inlet = Inlet("audio", self.relay, peer, 0, forward=True, codec="PCMU")
        self.engine.set_leg(EngineLeg(GROUP, "source", (inlet,)), self.now)

    def viewer(self, address: Address | None = None) -> socket.socket:
        """One more; at an address of its own, or one that nobody reads."""
        here = open_udp(Address(self.relay.getsockname()[0], 0), buffer_bytes=4_000_000, dscp=0)
        self._opened.append(here)
        number = len(self._viewers)
        self._viewers.append(here)
        to = address or Address(*here.getsockname()[:2])
        outlet = Outlet("audio", self.relay, to, 0, 1000 + number)
        self.engine.set_leg(EngineLeg(GROUP, f"viewer-{number}", (), (outlet,)), self.now)
        return here

    def frame(self) -> None:
        """Ten packets at once; errors of the network are read in between."""
        burst = [
            RtpPacket(0, (self._sequence + i) & 0xFFFF, 160 * self._sequence, 7, bytes(SIZE)).serialise()
            for i in range(PACKETS)
        ]
        self._sequence += PACKETS
        self.engine.inject(GROUP, "audio", 0, burst, self.now)
        self.now += 0.033
        self.engine.step(self.now)

    def got(self, viewer: socket.socket) -> list[int]:
        """Sequence numbers of what arrived since the last call, counted from the first."""
        numbers: list[int] = []
        while True:
            try:
                numbers.append(int.from_bytes(viewer.recv(4096)[2:4], "big"))
            except BlockingIOError:
                return [number - numbers[0] & 0xFFFF for number in numbers]

    def close(self) -> None:
        self.engine.close()  # type: ignore[attr-defined]
        for sock in self._opened:
            sock.close()


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    return ENGINES[request.param]


@contextmanager
def crowd(make: Callable[[], Engine], host: str = "127.0.0.1", **more: int) -> Iterator[Crowd]:
    made = Crowd(make, host, **more)
    try:
        yield made
    finally:
        made.close()


def all_there(crowd: Crowd, viewers: list[socket.socket], frames: int) -> None:
    wanted = list(range(frames * PACKETS))
    assert [i for i, viewer in enumerate(viewers) if crowd.got(viewer) != wanted] == []


def test_a_closed_port_among_a_hundred_viewers_costs_the_others_no_packet(make: Callable[[], Engine]) -> None:
    with crowd(make) as here:
        viewers = [here.viewer() for _ in range(50)]
        closed = here.viewer()
        address = Address(*closed.getsockname()[:2])
        closed.close()
        viewers += [here.viewer() for _ in range(49)]
        for _ in range(FRAMES):
            here.frame()
        all_there(here, viewers, FRAMES)
        told = {event.address for event in here.engine.events() if isinstance(event, LegUnreachable)}
        assert told == {address}


def on_a_slow_link(play: Callable[[], None], *, rate: str) -> None:
    """Run `play` in a network of its own: `OURS` is here, `SLOW` behind a link of this rate, or none where it is ""."""

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True, capture_output=True)

    def inside() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "no network namespace of our own")
            run("ip link set lo up")
            run("ip link add near type veth peer name far")
            run(f"ip addr add {OURS}/24 dev near")
            run("ip link set near up")
            run("ip link set far up")
            if rate:
                run(f"ip neigh add {SLOW} lladdr 02:00:00:00:00:02 dev near")
                run(f"tc qdisc add dev near root tbf rate {rate} burst 2000 limit 10000000")
            play()
        except BaseException as error:
            failure.append(error)

    failure: list[BaseException] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


@NEEDS_ROOT
@pytest.mark.parametrize("rate", ["100kbit", ""], ids=["slow link", "silent neighbour"])
def test_a_viewer_at_a_slow_address_costs_the_others_no_packet(make: Callable[[], Engine], rate: str) -> None:
    def play() -> None:
        with crowd(make, OURS) as here:
            viewers = [here.viewer() for _ in range(50)]
            here.viewer(Address(SLOW, 4000))
            viewers += [here.viewer() for _ in range(49)]
            for _ in range(FRAMES):
                here.frame()
            all_there(here, viewers, FRAMES)
            # Nothing that comes to the port is lost to sockets that only send.
            for viewer in viewers:
                viewer.sendto(b"\0\1", here.relay.getsockname())
            here.engine.step(here.now)
            here.engine.step(here.now)
            told = [event.source for event in here.engine.events() if isinstance(event, Datagram)]
            assert sorted(told) == sorted(Address(*viewer.getsockname()[:2]) for viewer in viewers)

    on_a_slow_link(play, rate=rate)


@NEEDS_ROOT
def test_viewers_behind_one_slow_link_share_it(make: Callable[[], Engine]) -> None:
    """Every socket fills up: every viewer gets his share of what the link carries, and those beside it miss nothing."""

    def play() -> None:
        with crowd(make, OURS, room=20_000) as here:
            beside = [here.viewer()]
            for viewer in range(20):
                here.viewer(Address(SLOW, 4000 + viewer))
            beside += [here.viewer()]
            for _ in range(30):
                here.frame()
                time.sleep(0.1)
            sent = [here.engine.leg(GROUP, f"viewer-{viewer}") for viewer in range(1, 21)]
            counts = [leg.packets for leg in sent if leg is not None]
            assert here.engine.totals().no_room > 0
            assert len(counts) == 20
            assert max(counts) < 30 * PACKETS, "the link carries less than all of it"
            assert min(counts) >= statistics.median(counts) / 2
            all_there(here, beside, 30)

    on_a_slow_link(play, rate="2mbit")
