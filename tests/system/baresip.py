"""Drives a real baresip, the stock phone of the tests: settings folder, control connection, what it saw and heard.

Nothing in its settings knows of dialcast: an account, a camera (a video file), a microphone (a sound file) and the
modules of Debian's package. It is controlled over `ctrl_tcp` (JSON in netstrings); `sndfile` records what it heard,
`snapshot` keeps a picture that it saw.
"""

import itertools
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sipp_scenarios.ports import free_ports

CONFIG = """\
poll_method epoll
{interface}
sip_listen 127.0.0.1:{sip_port}
audio_path {folder}/no-tones
audio_player aufile,{folder}/played.wav
audio_source {microphone}
audio_alert aufile,{folder}/alert.wav
audio_level no
ausrc_srate {rate}
auplay_srate 8000
ausrc_channels {channels}
auplay_channels 1
video_source {camera}
video_display fakevideo,nil
video_size {width}x{height}
video_bitrate 500000
video_fps 15.00
statmode_default off
rtp_ports {rtp_port}-{rtp_end}
jitter_buffer_delay 5-10
module_path /usr/lib/baresip/modules
module amr.so
module g711.so
module avcodec.so
module avformat.so
module ausine.so
module aufile.so
module fakevideo.so
module sndfile.so
module snapshot.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control_port}
snd_path {folder}
"""

Found = TypeVar("Found")


class BaresipError(AssertionError):
    """baresip did not do in time what the test waits for; carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What baresip's video decoder has shown so far in this call."""

    width: int
    height: int
    frames: int
    keyframes: int


class Baresip:
    """One running baresip with one account; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        number: str,
        *,
        registrar: str | None = None,
        password: str = "",
        clip: Path | None = None,
        size: tuple[int, int] = (352, 288),
        voice: Path | None = None,
        auto_answer: bool = False,
        transport: str = "udp",
        loopback_in_sdp: bool = True,
        ca: Path | None = None,
        buddies: Sequence[str] = (),
    ) -> None:
        """Writes the settings; `registrar` is HOST:PORT, None for a phone that is called by its address.

        `clip` is its camera and `size` the clip's, `voice` an 8 kHz mono WAV. Without `loopback_in_sdp` it names the
        machine's own address for media while it signals from 127.0.0.1, as a phone behind a NAT does.
        `buddies` are SIP URIs whose presence it follows.
        """
        if shutil.which("baresip") is None:
            raise BaresipError("baresip is not installed: apt-get install baresip baresip-ffmpeg")
        self.number, self.folder = number, folder
        self.sip_port = free_ports(2)  # its TLS listener takes the port after
        self.control_port = free_ports()
        self.log = ""
        self.events: list[dict[str, Any]] = []
        self._replies: dict[str, str] = {}
        self._tokens = map(str, itertools.count(1))
        self._changed = threading.Condition()
        rtp_port = free_ports(20)
        folder.mkdir(parents=True)
        config = CONFIG.format(
            interface="net_interface 127.0.0.1" if loopback_in_sdp else "",
            folder=folder,
            sip_port=self.sip_port,
            microphone=f"aufile,{voice}" if voice else "ausine,440",
            rate=8000 if voice else 48000,
            channels=1 if voice else 2,
            camera=f"avformat,{clip}" if clip else "fakevideo,nil",
            width=size[0],
            height=size[1],
            rtp_port=rtp_port,
            rtp_end=rtp_port + 19,
            control_port=self.control_port,
        )
        if buddies:
            config += "module_app contact.so\nmodule_app presence.so\n"
            lines = [f"<{uri}>;presence=p2p\n" for uri in buddies]
            (folder / "contacts").write_text("".join(lines))
        if ca is not None:
            config += f"sip_cafile {ca}\nsip_verify_server yes\n"
        (folder / "config").write_text(config)
        account = f"<sip:{number}@{registrar or f'127.0.0.1:{self.sip_port}'};transport={transport}>"
        if password:
            account += f";auth_user={number};auth_pass={password}"
        account += f";regint={60 if registrar else 0};answermode={'auto' if auto_answer else 'manual'}\n"
        (folder / "accounts").write_text(account)

    @property
    def uri(self) -> str:
        """Where it is called without a registrar."""
        return f"sip:{self.number}@127.0.0.1:{self.sip_port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["baresip", "-f", str(self.folder), "-v"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        self.wait_for_log("baresip is ready", 15)
        self._control = socket.create_connection(("127.0.0.1", self.control_port), timeout=5)
        self._control.settimeout(None)
        threading.Thread(target=self._read_control, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, BaresipError):
            error.add_note(f"baresip {self.number}:\n{self.log[-3000:]}")
        self._control.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it as a crash would: no BYE, nothing."""
        self._process.kill()
        self._process.wait()

    def command(self, command: str, params: str = "", within: float = 5.0) -> str:
        """Runs one command of baresip's menu, such as `dial` or `hangup`, and returns what it prints."""
        token = next(self._tokens)
        body = json.dumps({"command": command, "params": params, "token": token}).encode()
        self._control.sendall(b"%d:%s," % (len(body), body))
        return self._wait(f"the reply to {command!r}", within, lambda: self._replies.get(token))

    def registered(self, within: float = 10.0) -> None:
        """Waits until the registrar took its registration, which may be before we could hear events."""
        self.wait_for_log(r"200 OK \(\) \[\d+ binding", within)

    def dial(self, target: str) -> None:
        """Calls a number (completed with its account's domain) or a SIP URI; what it did before is forgotten."""
        with self._changed:
            self.events.clear()
        self.command("dial", target)

    def answer(self) -> None:
        """Takes the ringing call."""
        self.command("accept")

    def established(self, within: float = 15.0) -> None:
        """Waits until the call is up."""
        self.wait_for("CALL_ESTABLISHED", within)

    def hang_up(self, within: float = 10.0) -> None:
        """Ends the call."""
        self.command("hangup")
        self.closed(within)

    def closed(self, within: float = 10.0) -> str:
        """Waits until the call is over, whoever ended it, and returns the reason baresip names."""
        return str(self.wait_for("CALL_CLOSED", within).get("param", ""))

    def wait_for(self, kind: str, within: float) -> dict[str, Any]:
        """Waits for the control event `kind` (CALL_RINGING, CALL_PROGRESS, ...), which may have come already."""
        return self._wait(
            f"event {kind}", within, lambda: next((e for e in self.events if e.get("type") == kind), None)
        )

    def wait_for_log(self, pattern: str, within: float) -> re.Match[str]:
        """Waits until its log matches a regular expression."""
        return self._wait(f"log {pattern!r}", within, lambda: re.search(pattern, self.log))

    def picture(self) -> Picture | None:
        """What it shows right now; None until the first picture was decoded."""
        text = self.command("video_debug")
        shown = re.search(r"vidisp: \S+ (\d+) x (\d+) frames=(\d+)\s+n_keyframes=(\d+)", text)
        if shown is None or int(shown[3]) == 0:
            return None
        return Picture(*map(int, shown.groups()))

    def sees_frames(self, frames: int, within: float) -> Picture:
        """Waits until it has shown that many frames in this call."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            shown = self.picture()
            if shown is not None and shown.frames >= frames:
                return shown
            time.sleep(0.1)
        raise BaresipError(f"baresip {self.number} showed {self.picture()}, not {frames} frames in {within} s")

    def lost_fragments(self) -> int:
        """Fragments of pictures that its decoder missed in calls that have ended."""
        return sum(map(int, re.findall(r"decoder stats \(keyframes:\d+, lost_fragments:(\d+)\)", self.log)))

    def snapshot(self, within: float = 5.0) -> Path:
        """A PNG of the picture it shows now."""
        for old in self.folder.glob("snapshot-recv-*.png"):
            old.unlink()
        self.command("snapshot")
        return self._wait("a snapshot", within, self._whole_snapshot)

    def heard(self) -> Path:
        """The recording (WAV) of what the far end said in the last call that has ended."""
        recordings = sorted(self.folder.glob("dump-*-dec.wav"))
        if not recordings:
            raise BaresipError(f"baresip {self.number} recorded nothing\n{self.log[-3000:]}")
        return recordings[-1]

    def _whole_snapshot(self) -> Path | None:
        return next((p for p in self.folder.glob("snapshot-recv-*.png") if b"IEND" in p.read_bytes()[-12:]), None)

    def _wait(self, what: str, within: float, look: Callable[[], Found | None]) -> Found:
        deadline = time.monotonic() + within
        with self._changed:
            while (found := look()) is None:
                if not self._changed.wait(min(0.2, deadline - time.monotonic())) and time.monotonic() > deadline:
                    raise BaresipError(f"baresip {self.number}: no {what} in {within} s\n{self.log[-3000:]}")
            return found

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.log += line.decode(errors="replace")
                self._changed.notify_all()

    def _read_control(self) -> None:
        buffer = b""
        while chunk := self._receive():
            buffer += chunk
            while (netstring := re.match(rb"(\d+):", buffer)) and len(buffer) > netstring.end() + int(netstring[1]):
                end = netstring.end() + int(netstring[1])
                message = json.loads(buffer[netstring.end() : end])
                buffer = buffer[end + 1 :]
                with self._changed:
                    if message.get("event"):
                        self.events.append(message)
                    else:
                        self._replies[str(message.get("token"))] = str(message.get("data", ""))
                    self._changed.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._control.recv(65536)
        except OSError:
            return b""
