"""One run: viewers, a relay, broadcasters, and what came of it; and the rows that runs make."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fanout.peers import RELAYS
from bench.fanout.peers.process import (
    RELAY_CORE,
    SOURCE_PORTS,
    VIEWER_PORTS,
    Places,
    Running,
    compiled,
    ports_in_a_row,
)
from bench.fanout.traffic import RECORDED_SECONDS, TRAFFIC, record
from bench.machine import BenchError

READ_ALL: Final = 100
READ_SOME: Final = 20
"""Viewers judged: all of up to 100, 20 and the last of more; the kernel discards, and counts, what the others get."""
FIRST: Final = 1.0
"""Seconds of sending in which nothing is counted but what is lost: all broadcasters begin at once, as they never do."""
SETTLE: Final = 0.5
TICK: Final = os.sysconf("SC_CLK_TCK")
SPARE_PACKETS: Final = 200_000
"""Room for times of sending, more than any recorded video has in a run."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the broadcaster's send to the kernel's receipt, video of the first and of the last viewer.

    Without a viewer's first second.
    """

    first_p50: float
    last_p50: float
    last_p99: float


@dataclass(frozen=True, slots=True)
class Row:
    """A relay with so many viewers a group: medians over the runs. `valid` only if every judged packet was right."""

    relay: str
    viewers: int
    groups: int
    source: str
    cpu_us_per_packet: float
    """User and system time for each packet that had to be delivered."""
    spread: tuple[float, float]
    """The same of the cheapest and of the dearest run."""
    softirq_us_per_packet: float
    """Time the relay's core spent in soft interrupts, by the kernel's clock tick: a part of the above, not more."""
    loss_pct: float
    """Of the worst run, over all viewers."""
    valid: bool
    rewrites: bool
    encrypts: bool
    latency_ms: Latency
    rss_bytes: int
    source_late_ms: float
    """How long after its time the last packet was sent, in the worst run: a busy machine paces nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one relay."""

    cpu_us: float
    softirq_us: float
    loss_pct: float
    valid: bool
    latency: Latency
    rss_bytes: int
    late_ms: float


@dataclass(frozen=True, slots=True)
class Work:
    """What every relay of a run is given to do."""

    viewers: int
    groups: int
    source: str
    profile: str
    seconds: float


def measured(name: str, work: Work, folder: Path) -> Run:
    """Start everything, send for so long, judge. BenchError when the relay does not do as it is told."""
    relay = RELAYS[name]
    total = work.groups * work.viewers
    sources = ports_in_a_row(2 * work.groups, *SOURCE_PORTS)
    places = Places(sources, ports_in_a_row(2 * total, *VIEWER_PORTS), work.groups, work.viewers, work.profile)
    with _viewers(places, work, folder) as found:
        with relay.start(folder, places) as running:
            _write_keys(folder / "keys", running)
            with _broadcast(running, places, work, folder) as told:
                begun = told()
                cpu, softirq = running.cpu_seconds(), _softirq()
                sent = told()
            time.sleep(SETTLE)
            cpu, softirq = running.cpu_seconds() - cpu, _softirq() - softirq
            resident = running.resident_bytes()
        seen = found()
    wanted = work.viewers * (sent["video"] + sent["audio"])
    counted = wanted - work.viewers * (begun["video"] + begun["audio"])
    loss = 100 * (1 - (seen["packets"] + seen["unread"]) / wanted)
    right = seen["strange"] == seen["broken"] == seen["lost"] == 0
    own_names = seen["names"] == seen["judged"] or not relay.rewrites
    latency = Latency(seen["first_p50"], seen["last_p50"], seen["last_p99"])
    return Run(
        cpu_us=1e6 * cpu / counted,
        softirq_us=1e6 * softirq / counted,
        loss_pct=round(loss, 4),
        valid=right and own_names and seen["packets"] + seen["unread"] == wanted,
        latency=latency,
        rss_bytes=resident,
        late_ms=max(0.0, sent["late_ms"]),
    )


@contextmanager
def _viewers(places: Places, work: Work, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Viewers that wait, and a function that ends them and tells what they saw."""
    total = places.groups * places.viewers
    judged = total if total <= READ_ALL else READ_SOME
    program = compiled("viewers", folder, *(("-DSRTP", "-lsrtp2") if work.profile else ()))
    numbers = (places.first_viewer, places.groups, places.viewers, judged, TRAFFIC[work.source].frames)
    command = [str(program), *map(str, numbers)]
    if trace := _trace(work, folder):
        command += ["-t", *map(str, trace)]
    if work.profile:
        command += ["-k", str(folder / "keys")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdin is not None
        assert watching.stdout is not None
        output, ending = watching.stdout, watching.stdin

        def found() -> dict[str, Any]:
            ending.close()
            return dict(json.loads(output.read()))

        try:
            if output.readline() != "ready\n":
                raise BenchError("the viewers did not start")
            yield found
        finally:
            ending.close()


def _trace(work: Work, folder: Path) -> tuple[Path, Path] | None:
    """Recorded video, and the file in which the times of sending are shared; None where payloads bear their own."""
    traffic = TRAFFIC[work.source]
    if not traffic.bitrate:
        return None
    trace, times = folder / f"{work.source}.trace", folder / "times"
    if not trace.exists():
        record(traffic, trace)
    room = int(SPARE_PACKETS * (1 + (FIRST + work.seconds) / RECORDED_SECONDS))
    times.write_bytes(bytes(8 * room))
    return trace, times


@contextmanager
def _broadcast(running: Running, places: Places, work: Work, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Sends for a first second, and then as long as wanted; a function waits for the end of each, and tells how many
    packets were sent by then and how late the last was."""
    traffic = TRAFFIC[work.source]
    numbers = (FIRST + work.seconds, traffic.frames, traffic.packets, traffic.bytes, traffic.sounds)
    command = [str(compiled("source", folder)), *map(str, numbers)]
    if traffic.bitrate:
        command += [str(folder / f"{work.source}.trace"), str(folder / "times")]
    lines = []
    for group, inlet in enumerate(running.inlets):
        port = places.source(group)
        lines.append(f"{inlet.video} {inlet.audio} {port} {port + 1} {inlet.video_ssrc} {inlet.audio_ssrc}\n")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as source:
        assert source.stdin is not None
        assert source.stdout is not None
        with source.stdin as broadcasters:
            broadcasters.writelines(lines)
        output = source.stdout

        def told() -> dict[str, Any]:
            line = output.readline()
            if not line:
                raise BenchError("the broadcasters failed, and said why")
            return dict(json.loads(line))

        yield told


def _write_keys(path: Path, running: Running) -> None:
    lines = (f"{place} {key.profile} {key.master_key_and_salt.hex()}\n" for place, key in running.keys.items())
    path.write_text("".join(lines))


def _softirq() -> float:
    """Seconds the relays' core spent in soft interrupts: loopback delivers there, whoever is charged."""
    lines = Path("/proc/stat").read_text().splitlines()
    return int(lines[1 + RELAY_CORE].split()[7]) / TICK


def row(name: str, work: Work, runs: Sequence[Run]) -> Row:
    """The medians."""
    costs = [run.cpu_us for run in runs]
    middle = statistics.median
    return Row(
        relay=name,
        viewers=work.viewers,
        groups=work.groups,
        source=work.source,
        cpu_us_per_packet=round(middle(costs), 3),
        spread=(round(min(costs), 3), round(max(costs), 3)),
        softirq_us_per_packet=round(middle(run.softirq_us for run in runs), 3),
        loss_pct=max(run.loss_pct for run in runs),
        valid=all(run.valid for run in runs),
        rewrites=RELAYS[name].rewrites,
        encrypts=bool(work.profile) and RELAYS[name].encrypts,
        latency_ms=Latency(
            *(
                round(middle(getattr(run.latency, field) for run in runs), 3)
                for field in ("first_p50", "last_p50", "last_p99")
            )
        ),
        rss_bytes=int(middle(run.rss_bytes for run in runs)),
        source_late_ms=max(run.late_ms for run in runs),
    )
