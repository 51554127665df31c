"""The media side of a stock phone beside SIPp: plain RTP out of FFmpeg's own muxer, and whatever comes in, decoded.

It shares no code with the rest of dialcast, so that what it sends and understands proves something. It knows nothing
of joins. It sends a keyframe every two seconds whatever it is asked, or only when it is asked, as `keyframes` says.
Times are seconds of CLOCK_MONOTONIC.
"""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer, OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from sipp_scenarios.ports import free_ports

FRAME: Final = 160
"""Samples in 20 ms at 8 kHz."""
KEYFRAME_SECONDS: Final = 2
NEVER: Final = 3600
"""Seconds; longer than a call."""
START_CODE: Final = b"\0\0\0\1"
ENCODERS: Final = {"AMR": "libopencore_amrnb", "PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}


@dataclass(frozen=True, slots=True)
class Stream:
    """One accepted m-line of an answer."""

    kind: str
    host: str
    port: int
    payload_type: int
    encoding: str
    parameters: str


def streams(sdp: str) -> dict[str, Stream]:
    """The accepted m-lines of an answer by kind (audio, video), each with its first payload type."""
    sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
    found: dict[str, Stream] = {}
    for section in sections[1:]:
        line = re.match(r"m=(\w+) (\d+) \S+ (\d+)", section)
        if line is None or line[2] == "0":
            continue
        address = re.search(r"^c=IN IP[46] (\S+)", section, re.MULTILINE) or re.search(r"c=IN IP[46] (\S+)", sdp)
        encoding = re.search(rf"^a=rtpmap:{line[3]} (\w+)", section, re.MULTILINE)
        parameters = re.search(rf"^a=fmtp:{line[3]} (.*?)\s*$", section, re.MULTILINE)
        static = {"0": "PCMU", "8": "PCMA"}.get(line[3], "")
        found[line[1]] = Stream(
            line[1],
            address[1] if address else "",
            int(line[2]),
            int(line[3]),
            encoding[1] if encoding else static,
            parameters[1] if parameters else "",
        )
    return found


@dataclass(slots=True)
class Received:
    """RTP packets of one medium in order of arrival: (time, whole packet)."""

    packets: list[tuple[float, bytes]] = field(default_factory=list)

    def sequence(self) -> list[int]:
        """Their sequence numbers."""
        return [struct.unpack_from("!H", packet, 2)[0] for _, packet in self.packets]

    def lost(self) -> int:
        """Numbers missing between the first and the last packet."""
        numbers = self.sequence()
        return sum(((b - a) & 0xFFFF) - 1 for a, b in pairwise(numbers) if 0 < ((b - a) & 0xFFFF) < 0x8000)

    def sources(self) -> set[int]:
        """The SSRCs seen."""
        return {struct.unpack_from("!I", packet, 8)[0] for _, packet in self.packets}

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Each packet's RTP timestamp and payload."""
        for _, packet in self.packets:
            start = 12 + 4 * (packet[0] & 15)
            if packet[0] & 0x10:
                start += 4 + 4 * struct.unpack_from("!H", packet, start + 2)[0]
            end = len(packet) - (packet[-1] if packet[0] & 0x20 else 0)
            yield struct.unpack_from("!I", packet, 4)[0], packet[start:end]


class Media:
    """Two pairs of ports, audio and video, on a loopback address; use it as a context manager round the call."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.keyframes: Literal["in time", "when asked"] = "in time"
        """What is said before `send` holds."""

    def __enter__(self) -> Self:
        self.received = {"audio": Received(), "video": Received()}
        self.control: list[tuple[float, bytes]] = []
        """RTCP packets in order of arrival: (time, whole packet)."""
        self._open = True
        self._sockets: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        for kind in self.received:
            port = free_ports(2)
            self._sockets[kind] = (_bound(self._host, port), _bound(self._host, port + 1))
            self._start(partial(self._receive, kind))
            self._start(partial(self._receive_control, kind))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for thread in self._threads:
            thread.join(5)
        for pair in self._sockets.values():
            for one in pair:
                one.close()
        if error is None and self.errors:
            raise self.errors[0]

    @property
    def ports(self) -> tuple[int, int]:
        """The audio and the video port of our offer."""
        return self._port("audio"), self._port("video")

    def send(self, answer: dict[str, Stream], clip: Path | None, voice: Path | None) -> None:
        """Sends the clip's picture and the voice, both from their start and over and over, until closed."""
        if clip is not None and "video" in answer:
            self._start(lambda: self._send_picture(answer["video"], clip))
        if voice is not None and "audio" in answer:
            self._start(lambda: self._send_sound(answer["audio"], voice))

    def pictures(self) -> list[av.VideoFrame]:
        """The pictures received so far, decoded."""
        decoder = CodecContext.create("h264", "r")
        assert isinstance(decoder, VideoCodecContext)
        frames: list[av.VideoFrame] = []
        for unit in _access_units(self.received["video"]):
            frames += decoder.decode(av.Packet(unit))
        return frames + decoder.decode(None)

    def sound(self, stream: Stream) -> bytes:
        """The sound received so far as 8 kHz signed 16-bit samples; `stream` is the audio m-line of the answer."""
        name = {"AMR": "amrnb", "PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}[stream.encoding]
        decoder = CodecContext.create(name, "r")
        assert isinstance(decoder, AudioCodecContext)
        decoder.sample_rate, decoder.layout = 8000, "mono"
        to_int16 = AudioResampler(format="s16", layout="mono", rate=8000)
        samples = b""
        for _, payload in self.received["audio"].payloads():
            # Octet-aligned AMR: the mode request's octet goes, the table of contents with its one frame stays.
            coded = payload[1:] if stream.encoding == "AMR" else payload
            for frame in decoder.decode(av.Packet(coded)):
                for converted in to_int16.resample(frame):
                    samples += bytes(converted.planes[0])[: 2 * converted.samples]
        return samples

    def _port(self, kind: str) -> int:
        return int(self._sockets[kind][0].getsockname()[1])

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except (OSError, ValueError, av.FFmpegError) as error:
                self.errors.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _receive(self, kind: str) -> None:
        rtp = self._sockets[kind][0]
        rtp.settimeout(0.1)
        while self._open:
            try:
                packet = rtp.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                continue  # an ICMP error of something we sent
            if len(packet) >= 12 and packet[0] >> 6 == 2:
                self.received[kind].packets.append((time.monotonic(), packet))

    def _receive_control(self, kind: str) -> None:
        rtcp = self._sockets[kind][1]
        rtcp.settimeout(0.1)
        while self._open:
            with suppress(TimeoutError, ConnectionError):
                packet = rtcp.recv(65536)
                self.control.append((time.monotonic(), packet))

    def picture_wanted(self, since: float) -> bool:
        """True once we were asked for a full picture by PLI or FIR (RFC 4585 section 6.3.1, RFC 5104 section 4.3.1)."""
        return any(_asks_picture(packet) for at, packet in self.control if at > since)

    def _send_picture(self, stream: Stream, clip: Path) -> None:
        options = {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1"}
        options |= {"sc_threshold": "0"} if self.keyframes == "when asked" else {}
        with av.open(str(clip)) as source, _rtp_muxer(self._sockets["video"], stream) as muxer:
            rate = source.streams.video[0].average_rate or Fraction(15)
            output = muxer.add_stream("libx264", rate, options)
            output.width, output.height = source.streams.video[0].width, source.streams.video[0].height
            output.pix_fmt, output.bit_rate = "yuv420p", 500_000
            output.gop_size = int(rate * (KEYFRAME_SECONDS if self.keyframes == "in time" else NEVER))
            started = keyframe_at = time.monotonic()
            for number, frame in enumerate(_looped(source)):
                if not self._wait_until(started + float(number / rate)):
                    return
                picture = frame.reformat(format="yuv420p")
                picture.pts, picture.time_base, picture.pict_type = number, 1 / rate, PictureType.NONE
                if self.keyframes == "when asked" and self.picture_wanted(keyframe_at):
                    keyframe_at, picture.pict_type = time.monotonic(), PictureType.I
                muxer.mux(output.encode(picture))

    def _send_sound(self, stream: Stream, voice: Path) -> None:
        with _rtp_muxer(self._sockets["audio"], stream) as muxer:
            output = muxer.add_stream(ENCODERS[stream.encoding], 8000)
            assert isinstance(output, AudioStream)
            output.layout = "mono"
            if stream.encoding == "AMR":
                output.bit_rate = 12_200
            started = time.monotonic()
            for number, frame in enumerate(_speech(voice)):
                if not self._wait_until(started + number * FRAME / 8000):
                    return
                frame.pts, frame.time_base = number * FRAME, Fraction(1, 8000)
                muxer.mux(output.encode(frame))

    def _wait_until(self, moment: float) -> bool:
        while self._open and (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self._open


class _Datagrams:
    """What FFmpeg's RTP muxer writes to: one packet a call, RTCP (RFC 5761 section 4) to the port after."""

    def __init__(self, sockets: tuple[socket.socket, socket.socket], stream: Stream) -> None:
        self._rtp, self._rtcp = sockets
        self._host, self._port = stream.host, stream.port

    def write(self, packet: bytes) -> int:
        control = 192 <= packet[1] <= 223
        one, port = (self._rtcp, self._port + 1) if control else (self._rtp, self._port)
        with suppress(ConnectionError):  # an ICMP error of an earlier packet
            one.sendto(packet, (self._host, port))
        return len(packet)


def _rtp_muxer(sockets: tuple[socket.socket, socket.socket], stream: Stream) -> OutputContainer:
    options = {"payload_type": str(stream.payload_type), "packetsize": "1200"}
    return av.open(_Datagrams(sockets, stream), "w", format="rtp", options=options)


def _looped(source: InputContainer) -> Iterator[av.VideoFrame]:
    while True:
        yield from source.decode(video=0)
        source.seek(0)


def _speech(voice: Path) -> Iterator[av.AudioFrame]:
    """The voice over and over in frames of 20 ms."""
    while True:
        resampler = AudioResampler(format="s16", layout="mono", rate=8000, frame_size=FRAME)
        with av.open(str(voice)) as source:
            for frame in source.decode(audio=0):
                yield from resampler.resample(frame)


def _access_units(received: Received) -> Iterator[bytes]:
    """Annex B access units of single NAL units, STAP-A and FU-A (RFC 6184), one for each RTP timestamp."""
    unit, at = b"", None
    for timestamp, payload in received.payloads():
        if at is not None and timestamp != at:
            yield unit
            unit = b""
        at = timestamp
        kind = payload[0] & 31
        if kind == 24:
            offset = 1
            while offset + 2 < len(payload):
                size = int.from_bytes(payload[offset : offset + 2])
                unit += START_CODE + payload[offset + 2 : offset + 2 + size]
                offset += 2 + size
        elif kind == 28:
            if payload[1] & 0x80:
                unit += START_CODE + bytes([payload[0] & 0xE0 | payload[1] & 31])
            unit += payload[2:]
        else:
            unit += START_CODE + payload
    yield unit


def _asks_picture(compound: bytes) -> bool:
    while len(compound) >= 4:
        if compound[1] == 206 and compound[0] & 31 in (1, 4):
            return True
        compound = compound[4 * (1 + struct.unpack_from("!H", compound, 2)[0]) :]
    return False


def _bound(host: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((host, port))
    return one
