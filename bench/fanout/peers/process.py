"""What all relays of the benchmark share: where everybody is, and a process on a core of its own that is measured."""

import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.machine import BenchError, cpu_seconds, resident_bytes, stop
from protocols.srtp import Srtp

HOST: Final = "127.0.0.1"
RELAY_CORE: Final = 0
VIDEO_TYPE, AUDIO_TYPE = 96, 0
VIDEO_SSRC, AUDIO_SSRC = 0x1001, 0x1002
STOP_WITHIN: Final = 10.0
VIEWER_PORTS, SOURCE_PORTS, INLET_PORTS = (2_000, 10_000), (10_000, 15_000), (15_000, 20_000)
"""Below those that relays take by themselves. Inlets are of relays that have to be told where to receive."""


@dataclass(frozen=True, slots=True)
class Places:
    """Ports of one run, and how many there are of everybody.

    A broadcaster has two ports, video and audio, and so has a viewer; those of one group stand together.
    """

    first_source: int
    first_viewer: int
    groups: int
    viewers: int
    """Viewers of each group."""
    profile: str = ""
    """The SRTP profile of what viewers get, "" for none."""

    def source(self, group: int) -> int:
        """The port a group's video comes from; audio comes from the port behind it."""
        return self.first_source + 2 * group

    def place(self, group: int, viewer: int) -> int:
        """A viewer's video among all streams; its audio is the one behind it."""
        return 2 * (group * self.viewers + viewer)

    def viewer(self, group: int, viewer: int) -> int:
        """The port a viewer gets its video at; it gets audio at the port behind it."""
        return self.first_viewer + self.place(group, viewer)


@dataclass(frozen=True, slots=True)
class Inlet:
    """Where a group's broadcaster is to send, and as which sources if the relay insists."""

    video: int
    audio: int
    video_ssrc: int = VIDEO_SSRC
    audio_ssrc: int = AUDIO_SSRC


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that is ready: an inlet for each group, its process, and with which key each stream is encrypted."""

    inlets: Sequence[Inlet]
    pid: int
    keys: Mapping[int, Srtp] = field(default_factory=dict)
    """By place."""

    def cpu_seconds(self) -> float:
        """User and system time so far of every thread, of child processes too, to the nanosecond.

        A soft interrupt that a relay's own sending causes runs in its time and is charged to it, unless the kernel
        accounts for interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING).
        """
        return cpu_seconds(self._pids())

    def resident_bytes(self) -> int:
        """Memory that is really there, child processes included."""
        return resident_bytes(self._pids())

    def _pids(self) -> list[int]:
        pids = [self.pid]
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return pids


@dataclass(frozen=True, slots=True)
class Relay:
    """One of those compared. `rewrites`: each viewer gets a stream of its own, with its SSRC."""

    start: Callable[[Path, Places], AbstractContextManager[Running]]
    rewrites: bool
    encrypts: bool = False
    """It can, and does when asked."""
    program: str = ""
    """What has to be installed, from these packages."""
    packages: str = ""


def compiled(name: str, folder: Path, *more: str) -> Path:
    """A program of the benchmark, compiled into this folder unless it is there."""
    program, source = folder / "".join([name, *more]), Path(__file__).parents[1] / f"{name}.c"
    if not program.exists():
        command = ["cc", "-std=gnu11", "-O2", "-o", str(program), str(source), *more]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise BenchError("there is no C compiler: apt-get install gcc") from None
        except subprocess.CalledProcessError as error:
            hint = ": apt-get install libsrtp2-dev" if "srtp" in error.stderr else ""
            raise BenchError(f"{name}.c does not compile{hint}: {error.stderr.strip()[:500]}") from None
    return program


def ports_in_a_row(count: int, low: int, high: int) -> int:
    """The first of so many neighbouring UDP ports from `low` to below `high` that nobody has; even."""
    for _attempt in range(100):
        first = random.randrange(low, max(low + 1, high - count), 2)
        if all(map(_is_free, range(first, first + count))):
            return first
    raise BenchError(f"no {count} neighbouring free ports from {low} to {high}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def missing(relay: Relay) -> str | None:
    """How a relay that is not on this machine comes there, None for one that is."""
    if not relay.program or shutil.which(relay.program):
        return None
    return f"there is no {relay.program} here: apt-get install {relay.packages}"


@contextmanager
def started(command: Sequence[str], ready: str, folder: Path, within: float = 20.0) -> Iterator[tuple[int, str]]:
    """A process on the core of relays: its id, and what the group in `ready` matched in its output."""
    output = folder / f"{Path(command[0]).name}.log"
    with output.open("wb") as log:
        # Pinned before it is the relay, so that all its threads are.
        process = subprocess.Popen(
            ["taskset", "-c", str(RELAY_CORE), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process.pid, _said(process, output, ready, time.monotonic() + within)
        if process.poll() is not None:
            raise BenchError(f"{Path(command[0]).name} died: {_tail(output)}")
    finally:
        stop(process, STOP_WITHIN)


def _said(process: "subprocess.Popen[bytes]", output: Path, ready: str, until: float) -> str:
    while time.monotonic() < until and process.poll() is None:
        if match := re.search(ready, output.read_text(errors="replace")):
            return match[1] if match.groups() else ""
        time.sleep(0.05)
    raise BenchError(f"{output.stem} did not start: {_tail(output)}")


def _tail(output: Path) -> str:
    return output.read_text(errors="replace")[-400:].strip()
