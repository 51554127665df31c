"""What signalling and media tell each other: our ports, the far end's answer, options, events. Plain values.

`MediaSession` (media.py) opens local ports as `LocalMedia`, signalling offers them, and hands the answer
back as `RemoteMedia`. Times are seconds of CLOCK_MONOTONIC, comparable between processes of one machine.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from protocols.net import Address

Role = Literal["broadcast", "watch"]
Medium = Literal["audio", "video"]
Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]


class JoinError(Exception):
    """The relay never answered our authenticated STUN checks, or refused them; the text says on which m-line."""


class SourceError(Exception):
    """A camera, microphone, file or output device cannot be used; one line naming it and the remedy."""


@dataclass(frozen=True, slots=True)
class LocalStream:
    """One m-line of ours: bound UDP ports and the ICE credentials that we offer for it."""

    port: int
    rtcp_port: int
    ufrag: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """Everything our offer needs to know of the media side."""

    host: str
    audio: LocalStream
    video: LocalStream


@dataclass(frozen=True, slots=True)
class RemoteStream:
    """One accepted m-line of the far end's description.

    `direction` is ours, already seen from this terminal (a viewer's is "recvonly"). `ufrag` and `password` are None
    where the far end knows no ICE: then there is nothing to join and media simply goes to `address`.
    """

    address: Address
    rtcp: Address
    rtcp_mux: bool
    codec: str
    """Encoding name as in rtpmap: AMR, PCMU, PCMA, H264."""
    payload_type: int
    fmtp: str = ""
    direction: Direction = "sendrecv"
    keys: int | None = None
    """Payload type of telephone events (RFC 4733), where the far end knows them."""
    ufrag: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def join(self) -> tuple[Address, str | None, str | None]:
        """What a join is towards: who moves, or takes new credentials, must be joined again (RFC 8445 section 9)."""
        return self.address, self.ufrag, self.password

    @property
    def sends(self) -> bool:
        """True when we may send on this m-line."""
        return self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """True when we expect media on this m-line."""
        return self.direction in ("sendrecv", "recvonly")


@dataclass(frozen=True, slots=True)
class RemoteMedia:
    """The far end's answer; None where the m-line was refused (port 0) or never offered."""

    audio: RemoteStream | None
    video: RemoteStream | None


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What the user chose for one call."""

    cameras: tuple[str, ...] = ("synthetic",)
    """Sources to switch between: `synthetic`, a video file, or an OpenCV device index such as `0`."""
    microphone: str = "synthetic"
    """`synthetic` (a tone), `none` (silence), `default`, a device's name or index, or an audio file."""
    width: int = 352
    height: int = 288
    fps: int = 15
    video_bitrate: int = 600_000
    """Bits a second of H.264 payload, averaged over about a second."""
    keyframe_seconds: float = 2.0
    loop: bool = True
    """File sources start again at their end; False ends them with `SourceEnded`."""
    stamp: bool = False
    """Draw the machine-readable frame counter into the picture."""
    speaker: str = "none"
    """`none`, `default` or a device's name or index, or FILE.wav: where received sound goes."""
    speaker_chosen: bool = True
    """False for a mere default: without a device the phone then goes on without sound."""
    record: Path | None = None
    """MP4 of what was received (watch) or sent (broadcast)."""
    snapshot: Path | None = None
    """PNG of the first received picture, or of the last one at the end."""
    playout_ms: int = 60
    """The audio playout buffer's smallest delay; it grows with jitter up to `playout_max_ms`."""
    playout_max_ms: int = 400
    join_timeout: float = 5.0
    consent_timeout: float = 30.0
    packet_bytes: int = 1200
    """Largest RTP payload we send."""


@dataclass(frozen=True, slots=True)
class FirstPicture:
    """The first picture was decoded, at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Live:
    """The picture caught up: for the first time it was shown as it came, with no backlog to replay."""

    at: float


@dataclass(frozen=True, slots=True)
class FirstSound:
    """The first audio packet was played."""

    at: float


@dataclass(frozen=True, slots=True)
class ConsentLost:
    """The far end stopped answering our STUN checks on this m-line (RFC 7675)."""

    at: float
    medium: Medium


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """A file source that does not loop is over, or a device failed (`reason` not empty)."""

    at: float
    medium: Medium
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeyframeRequested:
    """The far end asked for a keyframe (PLI or FIR); the next frame will be one."""

    at: float


@dataclass(frozen=True, slots=True)
class StreamSilent:
    """No RTP arrived on this m-line for two seconds though it used to."""

    at: float
    medium: Medium


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The recording cannot be written any more (disk full, for example); the call itself goes on."""

    at: float
    reason: str


MediaEvent = (
    FirstPicture | Live | FirstSound | ConsentLost | SourceEnded | KeyframeRequested | StreamSilent | RecordingFailed
)


@dataclass(frozen=True, slots=True)
class MediaStats:
    """A glance at the running session for the connected screen."""

    sending: bool = False
    receiving: bool = False
    muted: bool = False
    camera: str = ""
    frames_sent: int = 0
    frames_decoded: int = 0
    frames_lost: int = 0
    fps: float = 0.0
    send_kbps: float = 0.0
    receive_kbps: float = 0.0
    packets_lost: int = 0
    jitter_ms: float = 0.0
    playout_ms: float = 0.0
    keyframe_requests: int = 0

    @property
    def glance(self) -> dict[str, Any]:
        """What is worth an event every second."""
        counted = {"frames_sent": self.frames_sent, "frames_decoded": self.frames_decoded}
        rates = {"send_kbps": round(self.send_kbps, 1), "receive_kbps": round(self.receive_kbps, 1)}
        return {**counted, "frames_lost": self.frames_lost, **rates}
