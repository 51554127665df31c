"""Recordings and reports: what is on disk after a call, and after a call that went wrong."""

from pathlib import Path

import av
import numpy as np
import pytest

from terminal_client.capture import GeneratedPictures
from terminal_client.recorder import Recorder
from terminal_client.report import CallReport, MediaReport, ReceivedFrame, SentFrame
from terminal_client.streams import RecordingFailed, SourceError
from terminal_client.video_encoder import VideoEncoder

FPS, STEP = 15, 6000


def record(recorder: Recorder, pictures: int, *, late_by: float = 0.0) -> None:
    """Pictures from second 100 on, and sound all the while, which begins `late_by` after them."""
    source, encoder = GeneratedPictures(352, 288, FPS), VideoEncoder(352, 288, FPS, 600_000, 0.5)
    sounded = 0
    for number in range(pictures):
        picture = source.read(number)
        assert picture is not None
        unit = encoder.encode(picture.planes, number * STEP)
        assert unit is not None
        recorder.picture(unit.data, unit.pts, keyframe=unit.keyframe, size=(352, 288), at=100 + number / FPS)
        while sounded * 0.02 + late_by < number / FPS:
            recorder.sound(np.full(160, 8000, np.int16), 100 + late_by + sounded * 0.02)
            sounded += 1


def pictures_in(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.video[0])
        return [round(frame.pts * frame.time_base * 90_000) for frame in frames if frame.pts and frame.time_base]


def test_picture_times_are_kept_exactly(tmp_path: Path) -> None:
    problems: list[object] = []
    recorder = Recorder(tmp_path / "a.mp4", problems.append)
    record(recorder, 45)
    recorder.close()
    assert pictures_in(tmp_path / "a.mp4") == [number * STEP for number in range(1, 45)]
    assert not problems


def test_sound_lies_where_it_was_played(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mp4", print)
    recorder.sound(np.full(160, 8000, np.int16), 99.0)
    record(recorder, 45, late_by=1.0)
    recorder.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(container.streams.audio[0]))
    sound = np.concatenate([np.abs(frame.to_ndarray()[0]) for frame in frames])
    first = (np.argmax(sound > 0.1) / 8000) + float(frames[0].pts * frames[0].time_base)
    assert first == pytest.approx(1.0, abs=0.04)


def test_a_recording_survives_its_process(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mp4", print)
    record(recorder, 60)
    assert len(pictures_in(tmp_path / "a.mp4")) >= 40, "not closed, as after kill -9"
    recorder.close()


def test_a_recording_of_nothing_is_an_empty_file_and_no_problem(tmp_path: Path) -> None:
    problems: list[object] = []
    Recorder(tmp_path / "a.mp4", problems.append).close()
    assert (tmp_path / "a.mp4").read_bytes() == b""
    assert not problems


def test_a_folder_that_does_not_exist_is_told_before_the_call(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        Recorder(tmp_path / "none" / "a.mp4", print)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told_once_and_the_call_goes_on() -> None:
    problems: list[object] = []
    recorder = Recorder(Path("/dev/full"), problems.append)
    record(recorder, 60)
    recorder.close()
    assert len(problems) == 1
    assert isinstance(problems[0], RecordingFailed)
    assert "No space left" in problems[0].reason


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    media = MediaReport(live_at=1.5, sent=(SentFrame(3, 1.0, 6000, "a.mp4", 7),), received=(ReceivedFrame(0, 2.5),))
    report = CallReport("watch", "1002", dialled_at=0.5, status=200, reason="OK", media=media)
    report.write(tmp_path / "report.json")
    assert CallReport.read(tmp_path / "report.json") == report


@pytest.mark.parametrize("content", ["", "{", "[]", '{"role": "watch"}', '{"role": "cook", "number": "1"}'])
def test_what_is_no_report_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match="not a terminal's report"):
        CallReport.read(tmp_path / "report.json")
