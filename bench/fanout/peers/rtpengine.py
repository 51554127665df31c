"""rtpengine in userspace: a group is a call, published to it and subscribed to by each viewer (ng control protocol).

It forwards sources as they are: viewers get the broadcaster's SSRC and numbers. `codec: accept` is needed, or `publish`
finds no acceptable codec in an H.264 offer (10.5.3).
"""

import base64
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from bench.fanout.peers.bencode import Value, decoded, encoded
from bench.fanout.peers.process import (
    AUDIO_TYPE,
    HOST,
    VIDEO_TYPE,
    Inlet,
    Places,
    Running,
    started,
)
from bench.machine import BenchError
from protocols.srtp import KEY_BYTES, Profile, Srtp
from sipp_scenarios.ports import free_ports

FIRST_PORT, LAST_PORT = 20_000, 59_999
ANSWER_WITHIN: Final = 5.0
START_WITHIN: Final = 10.0
RTPMAP: Final = {"video": f"{VIDEO_TYPE} H264/90000", "audio": f"{AUDIO_TYPE} PCMU/8000"}


@contextmanager
def rtpengine(folder: Path, places: Places) -> Iterator[Running]:
    """Debian's daemon without its kernel module, one worker thread for the one core."""
    control = free_ports()
    command = [
        "rtpengine",
        *("--foreground", "--log-stderr", "--log-level=5", "--table=-1", "--num-threads=1"),
        *(f"--interface={HOST}", f"--listen-ng={HOST}:{control}", f"--pidfile={folder / 'rtpengine.pid'}"),
        *(f"--port-min={FIRST_PORT}", f"--port-max={LAST_PORT}", "--timeout=3600", "--silent-timeout=3600"),
        "--config-file=none",
    ]
    with started(command, "", folder) as (pid, _), _Control(control) as told:
        told.wait()
        inlets = [told.group(places, group) for group in range(places.groups)]
        yield Running(inlets, pid, told.keys)


@dataclass(slots=True)
class _Control:
    """The ng protocol over UDP: a cookie and a dictionary there, the same back."""

    port: int
    keys: dict[int, Srtp] = field(default_factory=dict)
    _socket: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    _asked: int = 0

    def __enter__(self) -> "_Control":
        self._socket.connect((HOST, self.port))
        self._socket.settimeout(ANSWER_WITHIN)
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()

    def wait(self) -> None:
        """Until the daemon takes commands: it does not say so."""
        until = time.monotonic() + START_WITHIN
        while True:
            try:
                self._ask("ping", {})
            except OSError:  # refused while nobody listens
                if time.monotonic() > until:
                    raise BenchError("rtpengine did not start") from None
                time.sleep(0.05)
            else:
                return

    def group(self, places: Places, group: int) -> Inlet:
        """Published, and subscribed to by all its viewers."""
        call: dict[str, Value] = {"call-id": f"group-{group}", "from-tag": "broadcaster"}
        there = _sdp(places.source(group), "sendonly")
        told = self._ask("publish", call, sdp=there, flags=["trust-address"], codec={"accept": ["H264", "PCMU"]})
        for viewer in range(places.viewers):
            call["to-tag"] = f"viewer-{viewer}"
            transport: dict[str, Value] = {"transport-protocol": "RTP/SAVP"} if places.profile else {}
            offer = self._ask("subscribe request", call | transport, DTLS="off")["sdp"]
            answer = _sdp(places.viewer(group, viewer), "recvonly")
            if places.profile:
                answer = self._keyed(answer, offer, places, places.place(group, viewer))
            self._ask("subscribe answer", call, sdp=answer, flags=["trust-address"])
        video, audio = map(int, re.findall(r"m=\w+ (\d+)", told["sdp"]))
        return Inlet(video, audio)

    def _keyed(self, answer: str, offer: str, places: Places, place: int) -> str:
        """The answer that takes the wanted profile of each medium's offer (RFC 4568), whose key is then used."""
        offered = re.findall(rf"a=crypto:(\d+) {places.profile} inline:([\w+/]+)", offer)
        if len(offered) != len(RTPMAP):
            raise BenchError(f"rtpengine does not offer {places.profile}")
        profile = cast("Profile", places.profile)
        media = answer.replace("RTP/AVP", "RTP/SAVP").split("m=")
        for number, (tag, inline) in enumerate(offered):
            self.keys[place + number] = Srtp(profile, base64.b64decode(inline + "=" * (-len(inline) % 4)))
            ours = base64.b64encode(bytes(KEY_BYTES[profile])).decode().rstrip("=")
            media[1 + number] += f"a=crypto:{tag} {profile} inline:{ours}\r\n"
        return "m=".join(media)

    def _ask(self, command: str, what: dict[str, Value], **more: Value) -> dict[str, str]:
        self._asked += 1
        cookie = b"%d " % self._asked
        self._socket.send(cookie + encoded({"command": command, "ICE": "remove", **what, **more}))
        try:
            said = self._socket.recv(65_536)
        except TimeoutError:
            raise BenchError(f"rtpengine does not answer {command}") from None
        told = decoded(said.removeprefix(cookie))
        if told.get("result") not in {"ok", "pong"}:
            raise BenchError(f"rtpengine refuses {command}: {told.get('error-reason')}")
        return told


def _sdp(port: int, direction: str) -> str:
    lines = ["v=0", f"o=- 1 1 IN IP4 {HOST}", "s=-", f"c=IN IP4 {HOST}", "t=0 0"]
    for number, (kind, rtpmap) in enumerate(RTPMAP.items()):
        payload_type = rtpmap.split()[0]
        lines += [
            f"m={kind} {port + number} RTP/AVP {payload_type}",
            f"a=rtpmap:{rtpmap}",
            f"a={direction}",
            "a=rtcp-mux",
        ]
    return "\r\n".join([*lines, ""])
