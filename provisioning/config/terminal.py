"""The section about our own terminal."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from provisioning.config.section import Section
from provisioning.value_types import Count, HostPort, Number, Seconds, VideoSize


class TerminalConfig(Section):
    """Defaults of the softphone, `dialcast phone`; its options win."""

    server: HostPort | None = None
    """Server to register with, HOST:PORT; null is the server of this same configuration, by `sip`."""
    transport: Literal["udp", "tcp"] = "udp"
    """Signalling transport. TCP survives NATs and large offers better; UDP is one round trip faster."""
    number: Number | None = None
    """Own number; null must be given as option."""
    password: SecretStr | None = None
    """Own password; better in the environment variable DIALCAST_PASSWORD than in a file."""
    service: Number = "8888"
    """Service number to dial for going live."""
    camera: Annotated[tuple[str, ...], Field(min_length=1)] = ("synthetic",)
    """Cameras in switching order: a device index, a video file, or `synthetic`."""
    microphone: str = "synthetic"
    """Sound source: `default` for the device, a sound file, `synthetic` or `none`."""
    speaker: str = "default"
    """Sound sink: `default` for the device, `none`, or a WAV file to write."""
    video_size: VideoSize = "352x288"
    """Picture sent, WIDTHxHEIGHT pixels. 352x288 is H.264 level 1.2, which every phone of TS 26.114
    decodes."""
    fps: Annotated[float, Field(gt=0, le=60)] = 15
    """Pictures a second sent. More is smoother and needs more bit rate for the same sharpness."""
    video_bitrate: Annotated[int, Field(ge=32_000)] = 500_000
    """Video sent, bit/s."""
    keyframe_seconds: Seconds = 2
    """Seconds between keyframes. Shorter mends losses and starts viewers sooner, at a coarser picture."""
    playout_ms: Annotated[int, Field(ge=0, le=1000)] = 60
    """Least delay of the audio playout buffer, milliseconds. Less is closer to live, more rides out
    jitter."""
    playout_max_ms: Annotated[int, Field(ge=20, le=5000)] = 400
    """Most it may grow to on a bad network, milliseconds."""
    register_expires: Count = 600
    """Registration asked for, seconds."""
    send: Literal["ask", "now"] = "ask"
    """Start sending at once or wait for the user."""
    receive: Literal["ask", "now"] = "ask"
    """Start receiving at once or wait for the user."""

    @property
    def size(self) -> tuple[int, int]:
        """`video_size` as (width, height) in pixels."""
        width, _, height = self.video_size.partition("x")
        return int(width), int(height)
