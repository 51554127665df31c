"""The decoding thread: what is shown, when, under which time, and when it says what."""

import time

from terminal_client.capture import GeneratedPictures
from terminal_client.receiving import PictureReceiver
from terminal_client.streams import FirstPicture, Live
from terminal_client.video_buffer import CodedPicture
from terminal_client.video_encoder import VideoEncoder

STEP = 6000


def coded(count: int) -> list[CodedPicture]:
    """Pictures 15 to the second that arrived in the same rhythm."""
    source, encoder = GeneratedPictures(352, 288, 15), VideoEncoder(352, 288, 15, 600_000)
    pictures = []
    for number in range(count):
        picture = source.read(number)
        assert picture is not None
        unit = encoder.encode(picture.planes, number * STEP)
        assert unit is not None
        pictures.append(CodedPicture(unit.data, 1_000_000 + number * STEP, unit.keyframe, number / 15))
    return pictures


def show(pictures: list[CodedPicture], pause: float = 0.0) -> tuple[PictureReceiver, list[object], list[None]]:
    events: list[object] = []
    broken: list[None] = []
    receiver = PictureReceiver(events.append, lambda: broken.append(None))
    for picture in pictures:
        receiver.put(picture)
        time.sleep(pause)
    receiver.close()
    return receiver, events, broken


def test_every_picture_is_shown_under_its_own_time_from_the_first_one() -> None:
    receiver, events, broken = show(coded(10), pause=0.02)
    assert [frame.pts for frame in receiver.shown] == [number * STEP for number in range(10)]
    assert [type(event) for event in events] == [FirstPicture, Live]
    assert not broken
    assert receiver.last_picture() is not None


def test_a_replay_is_not_live_until_it_has_caught_up() -> None:
    pictures = coded(10)
    replay = [
        CodedPicture(one.data, pictures[6].timestamp - 90 * (6 - n), one.keyframe, 0.4)
        for n, one in enumerate(pictures[:7])
    ]
    receiver, events, _ = show(replay + pictures[7:], pause=0.02)
    assert len(receiver.shown) == 10
    live = next(event for event in events if isinstance(event, Live))
    assert live.at == receiver.shown[7].shown_at


def test_a_source_that_starts_over_goes_on_in_the_time_of_the_old_one() -> None:
    pictures = coded(6)
    again = [CodedPicture(one.data, one.timestamp + 2**31, one.keyframe, 1 + one.arrived_at) for one in pictures]
    receiver, _, _ = show(pictures + again + pictures[:1], pause=0.02)
    times = [frame.pts for frame in receiver.shown]
    assert times == sorted(set(times))
    assert times[-1] < 20 * STEP


def test_what_cannot_be_decoded_is_reported_and_the_thread_lives_on() -> None:
    rubbish = CodedPicture(b"\x00\x00\x00\x01\x65rubbish", 0, True, 0.0)
    receiver, _, broken = show([rubbish, *coded(3)])
    assert broken == [None]
    assert receiver.undecodable == 1
    assert len(receiver.shown) == 3
