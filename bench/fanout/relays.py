"""The relays that are compared: each started, given a broadcaster and its viewers, and measured as a whole process.

All addresses are of 127.0.0.1. A broadcaster sends video from one port and audio from another; viewer i gets video at
`first + 2 i` and audio at the port behind it.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from protocols.control import AddViewer, Event, Hello, LegInfo, LegSpec, MediaKind, MediaSpec, OpenGroup
from protocols.net import Address
from provisioning.config import Config
from sip_app.broadcast.relay_link import RelayLink

HOST: Final = "127.0.0.1"
RELAY_CORE: Final = 0
GROUP: Final = "1001@bench"
VIDEO_TYPE, AUDIO_TYPE = 96, 0
START_WITHIN: Final = 20.0
STOP_WITHIN: Final = 10.0


class BenchError(Exception):
    """The benchmark cannot run; the text names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Places:
    """Ports of one run: whence the broadcaster sends, where the first viewer receives, and how many there are."""

    source_video: int
    source_audio: int
    first_viewer: int
    viewers: int


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that is ready: where the broadcaster is to send, and the processes whose CPU and memory count."""

    video: int
    audio: int
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """User and system time so far of every thread, to the nanosecond (clock_getcpuclockid(3))."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids)

    def resident_bytes(self) -> int:
        """Memory that is really there (VmRSS)."""
        found = (re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in self.pids)
        return sum(1024 * int(match[1]) for match in found if match)


@dataclass(frozen=True, slots=True)
class Relay:
    """One of those compared. `rewrites`: each viewer gets a stream of its own, with its SSRC and numbers."""

    start: Callable[[Path, Places], AbstractContextManager[Running]]
    rewrites: bool


def compiled(name: str, folder: Path) -> Path:
    """A program of the benchmark, compiled into this folder unless it is there."""
    program, source = folder / name, Path(__file__).parent / f"{name}.c"
    if not program.exists():
        command = ["cc", "-std=gnu11", "-O2", "-o", str(program), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise BenchError("there is no C compiler: apt-get install gcc") from None
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{name}.c does not compile: {error.stderr.strip()[:500]}") from None
    return program


@contextmanager
def limit(folder: Path, places: Places, ports: tuple[int, int]) -> Iterator[Running]:
    """Nothing but the system calls."""
    command = [str(compiled("limit", folder)), *map(str, (*ports, places.first_viewer, places.viewers))]
    with _process(command, rb"ready") as (process, _):
        yield Running(*ports, (process.pid,))


@contextmanager
def dialcast(folder: Path, places: Places, engine: Literal["native", "plain"]) -> Iterator[Running]:
    """`dialcast relay`, told by its control link what an application server would tell it."""
    relay = {"engine": engine, "leg_timeout": 3600, "unanswered_timeout": 3600}
    settings = {"relay": relay, "operations": {"as_port": 0, "relay_port": 0}, "data_dir": str(folder / "data")}
    written = folder / f"{engine}.yaml"
    written.write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "dialcast", "relay", "--config", str(written)]
    with _process(command, rb"control=\S+:(\d+)") as (process, port), _opened(int(port), places) as (video, audio):
        yield Running(video, audio, (process.pid,))


RELAYS: Final[dict[str, Relay]] = {
    "dialcast": Relay(partial(dialcast, engine="native"), rewrites=True),
    "python": Relay(partial(dialcast, engine="plain"), rewrites=True),
}


@contextmanager
def _process(command: list[str], ready: bytes) -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """Started on the core of relays, and what it said first that matters."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {RELAY_CORE})  # its threads are born there
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        match = re.search(ready, said)
        if match is None:
            raise BenchError(f"{' '.join(command[:4])} did not start: {said!r}")
        yield process, match[1] if match.groups() else b""
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Listener:
    """Of a control link that needs nothing told."""

    async def relay_up(self, link: RelayLink) -> None:
        """Nothing to reconcile."""

    def relay_down(self, link: RelayLink) -> None:
        """It is dialled again."""

    def relay_event(self, event: Event) -> None:
        """Joined, keyframe wanted: the broadcaster of a benchmark sends what it sends."""


@contextmanager
def _opened(control: int, places: Places) -> Iterator[tuple[int, int]]:
    """A group with its viewers, on a thread that keeps the control link up; the ports the broadcaster sends to."""
    begun: list[tuple[int, int] | BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def hold() -> None:
        reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
        link = RelayLink(reactor, Address(HOST, control), Hello("bench", 1, ""), Config().control)
        link.start(_Listener())
        try:
            await asyncio.wait_for(link.settled.wait(), START_WITHIN)
            info = await link.call(OpenGroup(GROUP, 1, _source(places)), LegInfo)
            for viewer in range(places.viewers):
                await link.call(AddViewer(GROUP, 1, _viewer(places, viewer)), LegInfo)
            ports = {medium.kind: medium.rtp.port for medium in info.media}
            begun.append((ports["video"], ports["audio"]))
            ready.set()
            await asyncio.to_thread(over.wait)
        except BaseException as error:
            begun.append(error)
            raise
        finally:
            ready.set()
            await link.stop()

    thread = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
    thread.start()
    ready.wait()
    if not begun or isinstance(begun[0], BaseException):
        raise BenchError(f"the relay did not take the group: {begun[0] if begun else 'no answer'}")
    try:
        yield begun[0]
    finally:
        over.set()
        thread.join(STOP_WITHIN)


def _medium(kind: MediaKind, port: int, *, source: bool) -> MediaSpec:
    codec, payload_type, rate = ("H264", VIDEO_TYPE, 90_000) if kind == "video" else ("PCMU", AUDIO_TYPE, 8000)
    here = Address(HOST, port)
    spec = MediaSpec(kind, codec, payload_type, rate, not source, source, here, Address(HOST, port), rtcp_mux=True)
    return replace(spec, fmtp="packetization-mode=1;profile-level-id=42e01f") if kind == "video" else spec


def _source(places: Places) -> LegSpec:
    video = _medium("video", places.source_video, source=True)
    return LegSpec("source", "1001", HOST, (_medium("audio", places.source_audio, source=True), video))


def _viewer(places: Places, number: int) -> LegSpec:
    port = places.first_viewer + 2 * number
    media = _medium("audio", port + 1, source=False), _medium("video", port, source=False)
    return LegSpec(f"viewer-{number}", str(2000 + number), HOST, media)
