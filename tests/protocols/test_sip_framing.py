"""Messages and keep-alives on a byte stream, however it is cut into segments."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sip.errors import SipParseError
from protocols.sip.framing import KeepAlive, StreamFramer

ONE = b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 5\r\n\r\nhello"
TWO = b"OPTIONS sip:a@b SIP/2.0\r\nX: y\r\nl :\r\n 0\r\n\r\n"
THREE = b"OPTIONS sip:a@b SIP/2.0\r\nNo: length\r\n\r\n"


def test_messages_are_cut_where_they_end() -> None:
    assert StreamFramer().receive(ONE + TWO + THREE + ONE[:9]) == [ONE, TWO, THREE]


@given(st.lists(st.integers(0, 150), max_size=12))
def test_segments_make_no_difference(cuts: list[int]) -> None:
    stream = ONE + TWO + ONE + THREE
    framer = StreamFramer()
    edges = [0, *sorted(cuts), len(stream)]
    found = [item for start, end in pairwise(edges) for item in framer.receive(stream[start:end])]
    assert found == [ONE, TWO, ONE, THREE]


def test_pings_and_pongs_stand_between_messages() -> None:
    framer = StreamFramer()
    assert framer.receive(b"\r\n\r\n" + ONE + b"\r\n") == [KeepAlive.PING, ONE, KeepAlive.PONG]
    assert framer.receive(b"\r\n") == [KeepAlive.PING]
    assert framer.receive(ONE) == [ONE]
    assert framer.receive(b"\r") == []
    assert framer.receive(b"\n" + ONE) == [KeepAlive.PONG, ONE]


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:a SIP/2.0\r\nA: " + b"x" * 40000,
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 999999\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nA: " + b"x" * 40000 + b"\r\n\r\n",
    ],
)
def test_a_stream_that_lost_its_place_is_an_error(data: bytes) -> None:
    with pytest.raises(SipParseError):
        StreamFramer().receive(data)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"<", b"a" * 65, b"\rA", b"SSH-2.0-x\r\n"], ids=repr
)
def test_what_is_no_sip_ends_the_stream_at_once_and_what_came_before_counts(data: bytes) -> None:
    framer = StreamFramer()
    assert framer.receive(ONE + data) == [ONE]
    assert framer.finished
    assert framer.receive(ONE) == []


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"\r\n", b"\r\n\r\n", ONE, b"\r"]), max_size=10))
def test_any_bytes_give_messages_or_the_one_error(segments: list[bytes]) -> None:
    framer = StreamFramer()
    try:
        for segment in segments:
            framer.receive(segment)
    except SipParseError:
        return
