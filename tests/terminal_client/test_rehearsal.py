"""What cannot be opened or written is found before anybody is called: one line, and the status a script expects."""

import subprocess
import sys
from pathlib import Path

import pytest
import sounddevice

from terminal_client.rehearsal import NO_SPEAKER, rehearsed
from terminal_client.sound_device import DEFAULT_NAMES
from terminal_client.streams import MediaOptions, SourceError

NOBODY = "127.0.0.1:9"


def dialcast_phone(*arguments: str) -> tuple[int, str]:
    """The phone's exit status and everything it wrote; nobody is there to register with."""
    command = [sys.executable, "-m", "dialcast", "phone", *arguments, "--number", "1001", "--server", NOBODY]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def deaf_and_dumb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a sound device, as PortAudio tells it."""

    def absent(*_: object, **__: object) -> None:
        raise sounddevice.PortAudioError("Error querying device -1")

    monkeypatch.setattr(sounddevice, "InputStream", absent)
    monkeypatch.setattr(sounddevice, "OutputStream", absent)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("watch", "1005", "--report", "/nowhere/report.json"), 1),
        (("watch", "1005", "--speaker", "/nowhere/heard.wav"), 1),
        (("broadcast", "--camera", "/nowhere/clip.mp4"), 4),
        (("broadcast", "--camera", "99"), 4),
    ],
)
def test_what_cannot_be_used_is_one_line_before_registering(arguments: tuple[str, ...], status: int) -> None:
    code, told = dialcast_phone(*arguments)
    assert (code, told.count("\n")) == (status, 1), told
    assert arguments[-1] in told and "registering" not in told


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# no video\n")
    with pytest.raises(SourceError, match=r"README\.md"):
        rehearsed(MediaOptions(cameras=("synthetic", str(readme))), sends=True, receives=False)


@pytest.mark.usefixtures("deaf_and_dumb")
@pytest.mark.parametrize("name", DEFAULT_NAMES)
def test_a_chosen_sound_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=f"microphone {name}: no such sound device"):
        rehearsed(MediaOptions(microphone=name), sends=True, receives=False)
    with pytest.raises(SourceError, match=f"speaker {name}: no such sound device"):
        rehearsed(MediaOptions(speaker=name), sends=False, receives=True)


@pytest.mark.usefixtures("deaf_and_dumb")
def test_without_a_sound_device_the_mere_default_speaker_is_silent() -> None:
    media, remark = rehearsed(MediaOptions(speaker="default", speaker_chosen=False), sends=False, receives=True)
    assert (media.speaker, remark) == ("none", NO_SPEAKER)


def test_a_rehearsal_leaves_no_file_behind(tmp_path: Path) -> None:
    code, told = dialcast_phone("watch", "1005", "--record", str(tmp_path / "show.mp4"), "--speaker", "no such device")
    assert code == 4 and "no such device" in told
    assert not any(tmp_path.iterdir())
