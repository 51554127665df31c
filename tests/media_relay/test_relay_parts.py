"""Small parts by themselves: squeezing, the socket's error queue, a full socket, the engine's bounds."""

import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_world import HOST, IDR, PPS, SLICE, SPS, World

from media_relay.engine.queue import MAX_EVENTS
from media_relay.keyframes import KeyframeCache, squeezed
from media_relay.latching import Latch
from media_relay.sockets import PortRange, PortsExhausted, open_udp, unreachable
from protocols.net import Address


@given(st.lists(st.integers(0, 1 << 33), min_size=1, max_size=100))
def test_squeezed_timestamps_keep_their_order_end_at_the_newest_and_span_little(times: list[int]) -> None:
    new = squeezed(times, 90000)
    ordered = sorted(set(times))
    assert new[ordered[-1]] == ordered[-1]
    assert all(new[a] < new[b] for a, b in itertools.pairwise(ordered))
    assert new[ordered[-1]] - new[ordered[0]] <= 90 * len(ordered)


def test_the_cache_is_bounded_in_time_and_in_bytes() -> None:
    cache = KeyframeCache(2.0, 1000)
    assert not cache.usable(0.0)
    assert cache.add(1, 0, True, 500, 0.0)
    assert cache.usable(2.0) and not cache.usable(2.1)
    cache.add(2, 3000, False, 501, 0.1)
    assert not cache.usable(0.2)
    assert cache.add(3, 6000, True, 10, 0.3) and cache.usable(0.4)


def test_a_closed_latch_window_leaves_only_the_address_of_the_sdp() -> None:
    latch = Latch(Address("10.0.0.1", 4000), "192.0.2.1", "signalling", 0.0, 10.0)
    assert latch.accepts(Address("192.0.2.1", 9), 5.0)
    assert not latch.accepts(Address("203.0.113.1", 9), 5.0)
    assert not latch.accepts(Address("192.0.2.1", 9), 11.0)
    assert latch.accepts(Address("10.0.0.1", 4000), 11.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_error_queue_names_the_address_that_is_gone(host: str) -> None:
    try:
        sock = open_udp(Address(host, 0), buffer_bytes=65536, dscp=46)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    gone = socket.socket(family, socket.SOCK_DGRAM)
    gone.bind((host, 0))
    address = Address(*gone.getsockname()[:2])
    gone.close()
    sock.sendto(b"x", tuple(address))
    assert unreachable(sock) == [address]
    assert unreachable(sock) == []
    sock.close()


def test_a_pair_another_program_holds_is_passed_over() -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind((HOST, 32001))
    ports = PortRange(HOST, 32000, 32003, 65536)
    pair = ports.open_pair(0)
    assert [sock.getsockname()[1] for sock in pair] == [32002, 32003]
    with pytest.raises(PortsExhausted):
        ports.open_pair(0)
    ports.close_pair(pair)
    taken.close()


def test_a_flood_of_strangers_is_bounded_and_does_not_hide_the_source(world: World) -> None:
    sources, info = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio")
    sources["audio"].send(b"first")
    world.step()
    stranger = world.peer("audio")
    for _ in range(300):
        stranger.send(b"\x80" + bytes(40), info.media[0].rtp)
    for _ in range(3 * MAX_EVENTS // 64):
        world.engine.step(world.now)
    assert len(world.engine.events()) <= MAX_EVENTS
    sources["audio"].send(b"still there")
    world.step()
    assert viewer.packets()[-1].payload == b"still there"


class FullSocket:
    """A socket whose buffer has room for a given number of packets."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.room = 1 << 30
        self.sent: list[Address] = []

    def fileno(self) -> int:
        return self._real.fileno()

    def sendto(self, data: bytes, address: Address) -> int:
        if self.room <= 0:
            raise BlockingIOError
        self.room -= 1
        self.sent.append(address)
        return self._real.sendto(data, address)


def test_a_full_socket_costs_a_leg_the_rest_of_its_frame_and_next_time_it_is_first(
    plain_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_relay.engine.lanes.MAX_LANES", 0)
    sources, _ = plain_world.broadcaster("video")
    viewers = [plain_world.viewer("video")[0] for _ in range(3)]
    source = sources["video"]
    source.send(SPS, PPS, IDR)
    plain_world.step()
    full = FullSocket(plain_world.relay.groups.by_id["1001"].shared["video"].rtp)
    for leg in plain_world.engine._groups["1001"].legs.values():
        for outgoing in leg.outgoing.values():
            object.__setattr__(outgoing.outlet, "socket", full)
    for viewer in viewers:
        viewer.packets()
    full.room = 4
    source.send(SLICE + b"1", SLICE + b"2", SLICE + b"3")
    plain_world.step()
    assert [len(viewer.packets()) for viewer in viewers] == [3, 1, 0]
    full.room = 1 << 30
    full.sent.clear()
    source.timestamp -= source.frame
    source.send(SLICE + b"end of the same frame")
    plain_world.step()
    assert [len(viewer.packets()) for viewer in viewers] == [1, 0, 0], "half a frame is of no use"
    full.sent.clear()
    source.send(SLICE + b"4")
    plain_world.step()
    assert full.sent[0] == viewers[1].address
    assert [[p.payload for p in viewer.packets()] for viewer in viewers] == [[SLICE + b"4"]] * 3
