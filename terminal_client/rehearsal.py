"""Before anybody is called: can what the user named be opened and written? A call is too late to find out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from terminal_client.capture import open_camera
from terminal_client.microphone import open_microphone
from terminal_client.sinks import is_file, open_speaker
from terminal_client.streams import MediaOptions, SourceError

NO_SPEAKER = "no sound device: playing nothing"


def unwritable(media: MediaOptions, report: Path | None) -> Iterator[str]:
    """One line for each output file that cannot be written, naming its option."""
    speaker = Path(media.speaker) if is_file(media.speaker) else None
    outputs = {"report": report, "record": media.record, "snapshot": media.snapshot, "speaker": speaker}
    for option, path in outputs.items():
        if path is None:
            continue
        try:
            there = path.exists()
            path.open("ab").close()  # the file system knows better than its permission bits
            if not there:
                path.unlink()
        except OSError as error:
            yield f"--{option} {path}: {error.strerror}"


def rehearsed(media: MediaOptions, *, sends: bool, receives: bool) -> tuple[MediaOptions, str]:
    """Open and close every source of a call that sends, and the speaker of one that receives.

    Returns the options to go on with, and what the user should know of them. Raises SourceError.
    """
    if sends:
        for camera in media.cameras:
            open_camera(camera, media.width, media.height, media.fps).close()
        open_microphone(media.microphone).close()
    if receives and not is_file(media.speaker):
        try:
            open_speaker(media.speaker).close()
        except SourceError:
            if media.speaker_chosen:
                raise
            return replace(media, speaker="none"), NO_SPEAKER
    return media, ""
