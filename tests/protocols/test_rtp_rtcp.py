"""RTCP packets and reception statistics."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.rtp.reception import Reception, round_trip
from protocols.rtp.rtcp import (
    CNAME,
    Fir,
    Goodbye,
    Nack,
    Pli,
    ReceiverReport,
    Remb,
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    Tmmbn,
    Tmmbr,
    UnknownPacket,
    compound,
    middle_ntp,
    ntp_time,
    parse_compound,
    unix_time,
)

words = st.integers(0, 0xFFFFFFFF)
blocks = st.builds(
    ReportBlock,
    ssrc=words,
    fraction_lost=st.integers(0, 255),
    cumulative_lost=st.integers(-(1 << 23), (1 << 23) - 1),
    highest_sequence=words,
    jitter=words,
    last_report=words,
    delay=words,
)
block_lists = st.lists(blocks, max_size=4).map(tuple)
items = st.lists(st.tuples(st.integers(1, 8), st.binary(max_size=20)), max_size=3).map(tuple)
rates = st.tuples(words, st.integers(0, (1 << 17) - 1).map(lambda mantissa: mantissa << 3), st.integers(0, 511))
packets = st.one_of(
    st.builds(SenderReport, words, st.integers(0, 2**64 - 1), words, words, words, block_lists),
    st.builds(ReceiverReport, words, block_lists),
    st.builds(SourceDescription, st.lists(st.tuples(words, items), max_size=3).map(tuple)),
    st.builds(Goodbye, st.lists(words, max_size=3).map(tuple), st.binary(max_size=30)),
    st.builds(Pli, words, words),
    st.builds(Fir, words, st.lists(st.tuples(words, st.integers(0, 255)), max_size=3).map(tuple)),
    st.builds(Remb, words, st.integers(0, (1 << 18) - 1).map(lambda m: m << 5), st.tuples(words)),
    st.builds(Tmmbr, words, st.lists(rates, max_size=3).map(tuple)),
    st.builds(Tmmbn, words, st.lists(rates, max_size=3).map(tuple)),
    st.builds(UnknownPacket, st.just(207), st.integers(0, 31), st.sampled_from([b"", b"abcd"])),
)


@given(st.lists(packets, min_size=1, max_size=5))
def test_a_compound_survives_the_wire(sent: list[RtcpPacket]) -> None:
    assert parse_compound(compound(sent)) == tuple(sent)


@given(st.sets(st.integers(0, 0xFFFF), max_size=40))
def test_a_nack_names_every_missing_packet_once(missing: set[int]) -> None:
    (nack,) = parse_compound(Nack(1, 2, tuple(sorted(missing))).serialise())
    assert isinstance(nack, Nack)
    assert sorted(nack.sequences) == sorted(missing)


def test_seventeen_numbers_in_a_row_share_one_entry_across_the_wrap() -> None:
    missing = tuple(number & 0xFFFF for number in range(65_530, 65_547))
    data = Nack(1, 2, missing).serialise()
    assert len(data) == 16
    assert parse_compound(data) == (Nack(1, 2, missing),)


headers = st.tuples(st.integers(0x80, 0xBF), st.integers(199, 208), st.just(0), st.integers(0, 6)).map(bytes)


@given(st.binary(max_size=60) | st.lists(headers | st.binary(max_size=28), max_size=6).map(b"".join))
def test_garbage_raises_rtcp_error_or_is_a_compound(data: bytes) -> None:
    try:
        parsed = parse_compound(data)
    except RtcpError:
        return
    assert all(len(packet.serialise()) % 4 == 0 for packet in parsed)


@pytest.mark.parametrize(
    "data", ["", "80", "80c90002 00000001", "40c90001 00000001", "a0c90001 00000009", "a0c90001 00000000"]
)
def test_framing_that_does_not_add_up_is_refused(data: str) -> None:
    with pytest.raises(RtcpError):
        parse_compound(bytes.fromhex(data))


def test_a_broken_packet_does_not_cost_the_picture_request_behind_it() -> None:
    broken = bytes.fromhex("85cb0001 00000001")
    unknown, pli = parse_compound(broken + Pli(1, 2).serialise())
    assert unknown == UnknownPacket(203, 5, b"\0\0\0\1")
    assert pli == Pli(1, 2)


def test_reduced_size_and_padding_are_read() -> None:
    assert parse_compound(Pli(1, 2).serialise()) == (Pli(1, 2),)
    padded = bytes.fromhex("a0c90002 00000007 00000004")
    assert parse_compound(padded) == (ReceiverReport(7),)


def test_known_bytes_mean_what_the_rfcs_say() -> None:
    assert Pli(1, 2).serialise() == bytes.fromhex("81ce0002 00000001 00000002")
    assert Fir(1, ((2, 3),)).serialise() == bytes.fromhex("84ce0004 00000001 00000000 00000002 03000000")
    sdes = SourceDescription(((1, ((CNAME, b"a@b"),)),))
    assert sdes.serialise() == bytes.fromhex("81ca0003 00000001 0103 614062 000000")
    remb = bytes.fromhex("8fce0005 00000001 00000000 52454d42 01 0bd090 00000002")
    assert parse_compound(remb) == (Remb(1, 0x3D090 << 2, (2,)),)


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(RtcpError):
        ReceiverReport(1, (ReportBlock(1),) * 32).serialise()


def test_ntp_times() -> None:
    assert ntp_time(0.0) == 2_208_988_800 << 32
    assert unix_time(ntp_time(1_700_000_000.25)) == pytest.approx(1_700_000_000.25)
    assert middle_ntp(0x11112222_33334444) == 0x22223333


def test_loss_is_reported_since_the_last_report_and_in_all() -> None:
    reception = Reception(7, 90_000)
    for sequence in range(65_500, 65_600):
        if sequence % 4:
            reception.received(sequence & 0xFFFF, 0, 0.0)
    first = reception.report(0.0)
    assert (first.ssrc, first.fraction_lost, first.cumulative_lost) == (7, 24 * 256 // 99, 24)
    assert first.highest_sequence == 65_599
    for sequence in range(65_600, 65_700):
        reception.received(sequence & 0xFFFF, 0, 0.0)
    second = reception.report(0.0)
    assert (second.fraction_lost, second.cumulative_lost) == (0, 24)


def test_duplicates_make_the_loss_negative_but_not_the_fraction() -> None:
    reception = Reception(7, 8000)
    for _ in range(3):
        reception.received(5, 0, 0.0)
    assert (reception.report(0.0).cumulative_lost, reception.report(0.0).fraction_lost) == (-2, 0)
    assert parse_compound(ReceiverReport(1, (reception.report(0.0),)).serialise())


def test_a_stray_is_not_counted_but_a_restart_is_followed() -> None:
    reception = Reception(7, 8000)
    assert reception.received(100, 0, 0.0)
    assert not reception.received(30_000, 0, 0.0)
    assert reception.received(101, 0, 0.0)
    assert reception.lost == 0
    assert not reception.received(50_000, 0, 0.0)
    assert reception.received(50_001, 0, 0.0)
    assert (reception.expected, reception.lost, reception.highest) == (1, 0, 50_001)


def test_late_packets_fill_their_gap() -> None:
    reception = Reception(7, 8000)
    for sequence in (0, 65_535, 2, 1):
        assert reception.received(sequence, 0, 0.0)
    assert (reception.highest, reception.packets) == (2, 4)


def test_a_steady_source_has_no_jitter_across_the_timestamp_wrap() -> None:
    reception = Reception(7, 8000)
    for index in range(200):
        reception.received(index, (0xFFFFFF00 + 160 * index) & 0xFFFFFFFF, index * 0.02)
    assert reception.jitter == pytest.approx(0, abs=0.01)


def test_jitter_settles_near_the_mean_deviation() -> None:
    reception, source = Reception(7, 8000), random.Random(1)
    for index in range(2000):
        reception.received(index, 160 * index, index * 0.02 + source.choice((0.0, 0.005)))
    assert 10 < reception.report(0.0).jitter < 30


def test_the_round_trip_is_what_both_clocks_say() -> None:
    receiver = Reception(7, 8000)
    sent_at = 1_700_000_000.0
    receiver.sender_report(SenderReport(7, ntp_time(sent_at), 0, 0, 0), now=50.0)
    block = receiver.report(now=52.0)
    assert round_trip(block, middle_ntp(ntp_time(sent_at + 2.1))) == pytest.approx(0.1, abs=0.001)
    assert round_trip(ReportBlock(7), 0) is None
