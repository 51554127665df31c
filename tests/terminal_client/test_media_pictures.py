"""Pictures on their way into and out of the codec: the drawn counter, the sources, encoder and decoder."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialcast.footage import Footage
from protocols.rtp.h264 import packetize, split_annex_b
from terminal_client.capture import GeneratedPictures, clip_pictures, cover, open_camera
from terminal_client.stamp import COUNTER_LIMIT, outside_stamp, read_stamp, stamp
from terminal_client.streams import SourceError
from terminal_client.video_decoder import VideoDecoder, planes_of
from terminal_client.video_encoder import VideoEncoder

WIDTH, HEIGHT, FPS = 352, 288, 15


def grey(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height * 3 // 2, width), 90, np.uint8)


@given(st.integers(0, COUNTER_LIMIT - 1))
def test_every_counter_is_read_back(counter: int) -> None:
    picture = grey()
    stamp(picture, counter)
    assert read_stamp(picture) == counter


def test_the_counter_survives_real_footage_at_a_third_of_the_usual_rate(real_footage: Footage) -> None:
    encoder, decoder = VideoEncoder(WIDTH, HEIGHT, FPS, 200_000), VideoDecoder()
    read = []
    for counter, planes in enumerate(clip_pictures(real_footage.clips["bigbuckbunny"], WIDTH, HEIGHT, FPS)):
        stamp(planes, counter)
        unit = encoder.encode(planes, counter * 6000)
        assert unit is not None
        frame = decoder.decode(unit.data)
        assert frame is not None, "one access unit in, one picture out: no delay"
        read.append(read_stamp(planes_of(frame)))
    assert read == list(range(len(read)))


def test_a_picture_without_a_counter_is_not_taken_for_one(real_footage: Footage) -> None:
    pictures = clip_pictures(real_footage.clips["bikes"], WIDTH, HEIGHT, FPS)
    assert [read_stamp(planes) for planes in pictures] == [None] * 150


def test_the_mark_leaves_the_rest_of_the_picture_alone() -> None:
    picture = grey()
    stamp(picture, 123_456)
    assert (picture[:HEIGHT][outside_stamp(HEIGHT, WIDTH)] == 90).all()
    assert (picture[HEIGHT:] == 90).all()


def test_a_picture_too_small_for_the_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="160x16"):
        stamp(grey(128, 96), 1)


def test_a_clip_loops_without_repeating_its_numbers(real_footage: Footage) -> None:
    clip = open_camera(str(real_footage.clips["carphone_pristine"]), 176, 144, FPS)
    first = clip.read(0)
    again = clip.read(60)
    clip.close()
    assert first is not None and again is not None
    assert (first.index, again.index) == (0, 60)
    assert (first.planes == again.planes).all(), "60 pictures later the clip has begun again"


def test_a_late_reader_skips_and_a_clip_that_does_not_loop_ends(real_footage: Footage) -> None:
    clip = open_camera(str(real_footage.clips["carphone_pristine"]), 176, 144, FPS, loop=False)
    indices = [picture.index for index in (0, 7, 59) if (picture := clip.read(index)) is not None]
    assert indices == [0, 7, 59]
    assert clip.read(60) is None


def test_the_synthetic_source_never_shows_a_picture_twice() -> None:
    source = GeneratedPictures(WIDTH, HEIGHT, FPS)
    pictures = [source.read(index) for index in (0, 1, 5)]
    assert [picture.index for picture in pictures if picture] == [0, 1, 5]
    assert len({picture.planes.tobytes() for picture in pictures if picture}) == 3


def test_sources_that_do_not_exist_are_named_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for name in (str(tmp_path / "none.mp4"), str(text), "73"):
        with pytest.raises(SourceError) as caught:
            open_camera(name, WIDTH, HEIGHT, FPS)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_camera_picture_of_another_shape_is_cropped_not_stretched() -> None:
    image = np.zeros((480, 1000, 3), np.uint8)
    image[:, 300:700] = 255
    assert cover(image, 352, 288).shape == (288, 352, 3)
    assert cover(image, 352, 288)[:, 60:290].min() == 255


def test_a_keyframe_comes_when_asked_for_in_one_slice_with_its_parameter_sets() -> None:
    source, encoder = GeneratedPictures(WIDTH, HEIGHT, FPS), VideoEncoder(WIDTH, HEIGHT, FPS, 600_000)
    units = []
    for index in range(12):
        picture = source.read(index)
        assert picture is not None
        units.append(encoder.encode(picture.planes, index * 6000, keyframe=index == 7))
    assert [index for index, unit in enumerate(units) if unit and unit.keyframe] == [0, 7]
    kinds = [[nal[0] & 31 for nal in split_annex_b(unit.data) if nal[0] & 31 != 6] for unit in units if unit]
    assert kinds[7] == [7, 8, 5]
    assert kinds[8] == [1]


def test_the_stream_is_constrained_baseline() -> None:
    unit = VideoEncoder(WIDTH, HEIGHT, FPS, 600_000).encode(grey(), 0)
    assert unit is not None
    parameter_set = next(nal for nal in split_annex_b(unit.data) if nal[0] & 31 == 7)
    assert parameter_set[1] == 66
    assert parameter_set[2] & 0x40, "constraint_set1_flag"


def test_for_a_receiver_without_fragments_every_slice_fits_a_packet() -> None:
    source = GeneratedPictures(WIDTH, HEIGHT, FPS)
    encoder = VideoEncoder(WIDTH, HEIGHT, FPS, 600_000, max_slice_bytes=1200)
    picture = source.read(0)
    assert picture is not None
    unit = encoder.encode(picture.planes, 0)
    assert unit is not None
    payloads = packetize(split_annex_b(unit.data), 1200, mode=0)
    assert len(payloads) > 5
    assert max(map(len, payloads)) <= 1200


def test_rubbish_decodes_to_nothing() -> None:
    decoder = VideoDecoder()
    assert decoder.decode(b"\x00\x00\x00\x01\x65rubbish") is None
    assert decoder.decode(b"rubbish") is None
