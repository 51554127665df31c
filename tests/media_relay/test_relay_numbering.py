"""Numbers from source to viewer, whatever order packets come in."""

from hypothesis import given
from hypothesis import strategies as st

from media_relay.numbering import HISTORY, LegNumbers, SourceTimeline
from protocols.rtp.packet import RtpHeader


def header(sequence: int, timestamp: int = 0, ssrc: int = 1) -> RtpHeader:
    return RtpHeader(96, False, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)


@given(st.integers(0, 0xFFFF), st.lists(st.integers(-20, 20), max_size=200))
def test_each_source_number_has_one_place_across_wraps_and_reordering(first: int, steps: list[int]) -> None:
    line = SourceTimeline(8000)
    line.place(header(first), 0.0)
    places: dict[int, int] = {first: 0}
    at = first
    for step in steps:
        at = max(first, at + step)
        placed = line.place(header(at), 0.0)
        assert placed is not None
        assert places.setdefault(at, placed.sequence) == placed.sequence == at - first


def test_a_new_ssrc_goes_on_where_the_old_one_stopped_in_number_and_in_time() -> None:
    line = SourceTimeline(8000)
    line.place(header(100, 5000), 10.0)
    before = line.place(header(101, 5160), 10.02)
    after = line.place(header(9, 77, ssrc=2), 12.02)
    assert before is not None and after is not None
    assert (after.sequence - before.sequence, after.timestamp - before.timestamp) == (1, 16000)
    assert line.place(header(102, 5320), 12.03) is None, "a straggler of the old source"


def test_a_jump_beyond_any_loss_is_a_restart_not_a_gap() -> None:
    line = SourceTimeline(8000)
    line.place(header(100), 0.0)
    placed = line.place(header(100 + 20_000), 1.0)
    assert placed is not None and placed.sequence == 1


def test_a_packet_later_than_the_history_has_no_place() -> None:
    line = SourceTimeline(8000)
    line.place(header(5000), 0.0)
    assert line.place(header(5000 - HISTORY), 0.0) is None


def test_inserted_packets_shift_what_follows_and_not_what_came_before() -> None:
    line = SourceTimeline(90000)
    line.place(header(1), 0.0)
    keyframe = line.place(header(3), 0.0)
    assert keyframe is not None
    line.insert_before(keyframe.sequence, 2)
    late, after = line.place(header(2), 0.0), line.place(header(4), 0.0)
    assert late is not None and after is not None
    assert (late.sequence, keyframe.sequence, line.highest, after.sequence) == (1, 2, 5, 5)


@given(st.integers(0, 0xFFFF), st.lists(st.sampled_from(["send", "lose", "skip", "hold"]), max_size=100))
def test_only_what_is_left_out_on_purpose_closes_the_gap(first: int, fates: list[str]) -> None:
    """Against a model: lost packets keep their number, skipped and held ones do not."""
    numbers = LegNumbers(first, 0)
    numbers.resume(0)
    expected, sent = first, {}
    for sequence, fate in enumerate(fates):
        if fate == "send":
            number = numbers.assign(sequence)
            assert number == expected
            sent[expected & 0xFFFF] = sequence
        elif fate == "skip":
            numbers.skip(sequence)
            expected -= 1
        elif fate == "hold":
            numbers.resume(sequence + 1)
            last = max(sent, key=lambda n: sent[n], default=None)
            expected = numbers.number(sequence)
            assert last is None or expected >= first - 1
            sent = {}
        expected += 1
    for number, sequence in sent.items():
        found = numbers.group_sequence(number)
        assert found in (sequence, None) and (found == sequence or fates.count("skip") > 30)


def test_a_late_packet_before_the_viewers_start_is_left_out() -> None:
    numbers = LegNumbers(50, 0)
    numbers.resume(10)
    assert numbers.assign(9) is None
    assert numbers.assign(10) == 50


def test_a_nack_for_what_was_never_sent_finds_nothing() -> None:
    numbers = LegNumbers(0, 0)
    assert numbers.group_sequence(1) is None
    for sequence in range(3000):
        numbers.assign(sequence)
    assert numbers.group_sequence(2999) == 2999
    assert numbers.group_sequence(3000) is None
    assert numbers.group_sequence(2999 - HISTORY) is None
