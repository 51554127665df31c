"""What waits in the queue when a socket is unwatched is not told of the next socket with its number."""

import socket

import pytest
from relay_world import ENGINES

from media_relay.engine import Datagram
from media_relay.sockets import open_udp
from protocols.net import Address


@pytest.mark.parametrize("kind", ENGINES)
def test_a_datagram_to_a_port_that_is_closed_is_not_told_of_the_next_one(kind: str) -> None:
    engine = ENGINES[kind]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        old = open_udp(Address("127.0.0.1", 0), buffer_bytes=65536, dscp=0)
        number = old.fileno()
        engine.watch(old)
        phone.sendto(b"\x80\x60" + bytes(20), old.getsockname())
        engine.step(1.0)
        engine.unwatch(old)
        old.close()
        with open_udp(Address("127.0.0.1", 0), buffer_bytes=65536, dscp=0) as new:
            assert new.fileno() == number
            engine.watch(new)
            assert [event for event in engine.events() if isinstance(event, Datagram) and event.socket is new] == []
    engine.close()
