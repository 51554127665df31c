"""Janus VideoRoom: a group is a room with one remote publisher, which speaks plain RTP, forwarded to each viewer.

A publisher's streams come to one port and are told apart by SSRC: 1000 and ten more for each further stream
(`add_remote_publisher`, Janus 1.1). A forwarder is given the SSRC its viewer gets; it keeps the numbers.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

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

FIRST_SSRC, SSRC_STEP = 1000, 10
FIRST_PORT, LAST_PORT = 20_000, 29_999
ANSWER_WITHIN: Final = 5.0
OWN_SSRC: Final = 100_000
"""Of the first viewer."""
LIBRARIES: Final = Path("/usr/lib/x86_64-linux-gnu/janus")
PUBLISHER: Final = 7


@contextmanager
def janus(folder: Path, places: Places) -> Iterator[Running]:
    """Debian's Janus with the VideoRoom plugin only, told through its Unix socket."""
    api = folder / "janus.api"
    settings = folder / "janus.conf"
    settings.mkdir(exist_ok=True)
    (settings / "janus.jcfg").write_text(_settings(settings))
    (settings / "janus.plugin.videoroom.jcfg").write_text("")
    (settings / "janus.transport.pfunix.jcfg").write_text(
        f'general: {{ enabled = true\n json = "plain"\n path = "{api}" }}\n'
    )
    command = ["janus", "-C", str(settings / "janus.jcfg"), "-F", str(settings), "-r", f"{FIRST_PORT}-{LAST_PORT}"]
    with (
        started(command, "Unix Sockets transport plugin initialized", folder) as (pid, _),
        _Room(api, folder / "bench.api") as room,
    ):
        yield Running([room.group(places, group) for group in range(places.groups)], pid)


def _settings(folder: Path) -> str:
    libraries = next(iter(Path("/usr/lib").glob("*/janus")), LIBRARIES)
    plugins = (path.name for path in (libraries / "plugins").glob("*.so") if "videoroom" not in path.name)
    transports = (path.name for path in (libraries / "transports").glob("*.so") if "pfunix" not in path.name)
    return (
        f'general: {{ configs_folder = "{folder}"\n plugins_folder = "{libraries / "plugins"}"\n'
        f' transports_folder = "{libraries / "transports"}"\n debug_level = 4\n session_timeout = 0 }}\n'
        f'plugins: {{ disable = "{",".join(plugins)}" }}\ntransports: {{ disable = "{",".join(transports)}" }}\n'
    )


@dataclass(slots=True)
class _Room:
    """A session with the VideoRoom plugin, one JSON message a packet."""

    api: Path
    own: Path
    _socket: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    _names: Iterator[int] = field(default_factory=lambda: count(OWN_SSRC))
    _where: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "_Room":
        self.own.unlink(missing_ok=True)
        self._socket.bind(str(self.own))
        self._socket.settimeout(ANSWER_WITHIN)
        self._socket.connect(str(self.api))
        self._where["session_id"] = self._ask(janus="create")["data"]["id"]
        attached = self._ask(janus="attach", plugin="janus.plugin.videoroom", **self._where)
        self._where["handle_id"] = attached["data"]["id"]
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()

    def group(self, places: Places, group: int) -> Inlet:
        """A room, its publisher, and a forwarder for each viewer."""
        room = group + 1
        self._tell(request="create", room=room, videocodec="h264", audiocodec="pcmu", publishers=2)
        streams = [
            {"type": "video", "mindex": 0, "mid": "0", "codec": "h264"},
            {"type": "audio", "mindex": 1, "mid": "1", "codec": "pcmu"},
        ]
        there = self._tell(request="add_remote_publisher", room=room, id=PUBLISHER, port=0, iface=HOST, streams=streams)
        for viewer in range(places.viewers):
            port = places.viewer(group, viewer)
            forwarded = [
                {"mid": "0", "port": port, "ssrc": next(self._names), "pt": VIDEO_TYPE},
                {"mid": "1", "port": port + 1, "ssrc": next(self._names), "pt": AUDIO_TYPE},
            ]
            self._tell(request="rtp_forward", room=room, publisher_id=PUBLISHER, host=HOST, streams=forwarded)
        port = there["port"]
        return Inlet(port, port, FIRST_SSRC, FIRST_SSRC + SSRC_STEP)

    def _tell(self, **body: object) -> Any:
        told = self._ask(janus="message", body=body, **self._where).get("plugindata", {}).get("data", {})
        if "error" in told:
            raise BenchError(f"Janus refuses {body['request']}: {told['error']}")
        return told

    def _ask(self, **message: object) -> Any:
        self._socket.send(json.dumps({"transaction": "bench", **message}).encode())
        try:
            said = json.loads(self._socket.recv(1 << 20))
        except TimeoutError:
            raise BenchError(f"Janus does not answer {message['janus']}") from None
        if said["janus"] == "error":
            raise BenchError(f"Janus refuses {message['janus']}: {said['error']['reason']}")
        return said
