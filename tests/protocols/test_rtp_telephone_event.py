"""Keys as telephone events: each press is told once, whatever the network does to its packets; G.711 by table."""

import random

import pytest

from protocols.rtp.g711 import from_alaw, from_ulaw, to_ulaw, ulaw_to_alaw
from protocols.rtp.telephone_event import (
    DIGITS,
    EventReceiver,
    Press,
    TelephoneEvent,
    TelephoneEventError,
    build,
)


def packets(digits: str, duration: int = 800, start: int = 1000, apart: int = 1600) -> list[tuple[int, bytes]]:
    return [
        (start + apart * place & 0xFFFFFFFF, event.serialise())
        for place, digit in enumerate(digits)
        for event in build(digit, duration)
    ]


def told(arriving: list[tuple[int, bytes]]) -> str:
    receiver = EventReceiver()
    presses = [press for timestamp, payload in arriving for press in receiver.receive(timestamp, payload)]
    return "".join(press.digit for press in presses + receiver.flush())


def test_the_example_of_the_rfc_reads_as_it_says() -> None:
    # RFC 4733 section 2.5.1.6: digit 9 of 1600 units, volume -7 dBm0, ended.
    assert TelephoneEvent.parse(bytes((9, 0x80 | 7, 0x06, 0x40))) == TelephoneEvent(9, True, 1600, 7)


@pytest.mark.parametrize("digit", DIGITS)
def test_every_key_survives_its_packets(digit: str) -> None:
    receiver = EventReceiver()
    presses = [press for ts, data in packets(digit) for press in receiver.receive(ts, data)]
    assert presses == [Press(digit, 800)]


def test_the_end_is_sent_three_times_and_counts_once() -> None:
    made = build("5", 480)
    assert [(e.end, e.duration) for e in made] == [(False, 160), (False, 320), *[(True, 480)] * 3]
    assert told(packets("5")) == "5"


def test_the_same_key_twice_is_two_presses() -> None:
    assert told(packets("55")) == "55"


def test_timestamps_may_wrap() -> None:
    assert told(packets("123", start=2**32 - 1700)) == "123"


@pytest.mark.parametrize("seed", range(40))
def test_loss_doubling_and_small_disorder_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    arriving = []
    for place, packet in enumerate(packets("1003*#")):
        # One packet of each press is lost; each of the others may come twice, or up to two places late.
        if place % 7 != seed % 7:
            arriving += [(place + chance.choice((0, 0, 1.5)), packet)] * chance.choice((1, 1, 2))
    arriving.sort(key=lambda entry: entry[0])
    assert told([packet for _, packet in arriving]) == "1003*#"


def test_a_press_whose_end_is_lost_is_told_when_the_next_begins() -> None:
    receiver = EventReceiver()
    assert receiver.receive(0, TelephoneEvent(1, False, 160).serialise()) == []
    assert receiver.pending
    assert receiver.receive(1600, TelephoneEvent(2, False, 160).serialise()) == [Press("1", 160)]
    assert receiver.flush() == [Press("2", 160)]
    assert not receiver.pending
    assert receiver.receive(1600, TelephoneEvent(2, True, 160).serialise()) == []


def test_flash_and_other_tones_are_no_keys() -> None:
    assert told([(0, TelephoneEvent(16, True, 160).serialise()), (9, TelephoneEvent(255, True, 160).serialise())]) == ""


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x05\x80\x06"])
def test_garbage_is_one_error(payload: bytes) -> None:
    with pytest.raises(TelephoneEventError):
        EventReceiver().receive(0, payload)


@pytest.mark.parametrize(("digit", "duration"), [("x", 160), ("", 160), ("12", 160), ("1", 0), ("1", 70000)])
def test_what_is_no_press_is_not_built(digit: str, duration: int) -> None:
    with pytest.raises(TelephoneEventError):
        build(digit, duration)


def test_memory_is_bounded_whatever_comes() -> None:
    receiver, chance = EventReceiver(), random.Random(7)
    for _ in range(5000):
        receiver.receive(chance.getrandbits(32), bytes(chance.getrandbits(8) for _ in range(4)))
    assert len(receiver._told) <= 8


def test_g711_agrees_with_the_recommendation_and_between_the_laws() -> None:
    # G.711 tables 1 and 2: the largest and smallest magnitudes, and zero.
    assert list(from_ulaw(bytes((0x80, 0x00, 0xFF, 0x7F)))) == [32124, -32124, 0, 0]
    assert list(from_alaw(bytes((0xAA, 0x2A, 0xD5, 0x55)))) == [32256, -32256, 8, -8]
    every = bytes(range(256))
    assert all(
        abs(a - u) <= max(16, abs(u) / 16)
        for a, u in zip(from_alaw(ulaw_to_alaw(every)), from_ulaw(every), strict=True)
    )
    assert from_ulaw(to_ulaw(from_ulaw(every))) == from_ulaw(every)
    assert max(abs(s - d) for s in range(-32000, 32000, 77) for d in from_ulaw(to_ulaw([s]))) < 1024
