"""What a terminal knows after a call, as the JSON file of `--report`: enough for anybody to judge the call by.

Times are seconds of CLOCK_MONOTONIC, so that reports of terminals on one machine can be laid side by side.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from terminal_client.streams import Role


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A picture sent: the counter stamped into it, when it was captured, and which picture of its source it was."""

    counter: int
    captured_at: float
    pts: int
    """90 kHz, from the first picture sent."""
    source: str
    source_frame: int
    """Counts from the source's start; a looped clip of n pictures shows its picture source_frame % n."""


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A picture shown: `pts` (90 kHz, from the first one shown) is also its time in the recording."""

    pts: int
    shown_at: float


@dataclass(slots=True)
class AudioReport:
    """What was heard, in milliseconds and events; the playout buffer counts in it."""

    played_ms: int = 0
    concealed_ms: int = 0
    gaps: int = 0
    late_packets: int = 0
    held_blocks: int = 0
    skipped_blocks: int = 0


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One m-line's RTP numbers."""

    codec: str = ""
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    packets_lost: int = 0
    jitter_ms: float = 0.0
    retransmitted: int = 0
    nacks_sent: int = 0
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class MediaReport:
    """Everything the media side knows at the end of a call."""

    joined_at: float | None = None
    sending_from: float | None = None
    first_picture_at: float | None = None
    live_at: float | None = None
    first_sound_at: float | None = None
    ended_at: float | None = None
    sent: tuple[SentFrame, ...] = ()
    received: tuple[ReceivedFrame, ...] = ()
    frames_decoded: int = 0
    frames_lost: int = 0
    frames_late: int = 0
    keyframe_requests_sent: int = 0
    keyframe_requests_received: int = 0
    microphone: str = ""
    audio: AudioReport = field(default_factory=AudioReport)
    audio_rtp: StreamReport = field(default_factory=StreamReport)
    video_rtp: StreamReport = field(default_factory=StreamReport)


@dataclass(frozen=True, slots=True)
class CallReport:
    """A whole call: signalling's times and end, and the media."""

    role: Role
    number: str
    dialled_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    status: int = 0
    """The final SIP status, 0 if there was none."""
    reason: str = ""
    media: MediaReport = field(default_factory=MediaReport)

    def write(self, path: Path) -> None:
        """Write the report as JSON, in one step. Raises OSError."""
        scratch = path.with_name(path.name + ".part")
        scratch.write_bytes(_FORMAT.dump_json(self, indent=1))
        scratch.replace(path)

    @staticmethod
    def read(path: Path) -> "CallReport":
        """The report in a file that `write` wrote. Raises ValueError if it is none, OSError if it cannot be read."""
        try:
            return _FORMAT.validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path}: not a terminal's report: {error.errors()[0]['msg']}") from error


_FORMAT = TypeAdapter(CallReport)
