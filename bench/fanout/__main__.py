"""`python -m bench.fanout`: CPU time of relays for each packet delivered, beside the bare system calls, in one run.

A broadcaster sends 30 frames a second of 10 packets of 1,200 bytes, each frame at once, and 50 packets of audio a
second; viewers outside the measured processor judge what they get: a stream of their own, numbers without a gap,
payloads as they were sent. Runs alternate between the relays, so that what else the machine does hits all alike; the
median counts, and the ratio to `limit`, which does nothing but receive and send.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.fanout.relays import RELAY_CORE, RELAYS, BenchError, Places, Relay, compiled, limit
from bench.machine import described, keep_off_core, tell
from sipp_scenarios.ports import free_ports

READ_ALL: Final = 100
READ_SOME: Final = 20
"""Viewers judged: all of up to 100, 20 of more; the kernel discards what the others get."""
SETTLE: Final = 0.5
PER_SECOND: Final = 30 * 10 + 50
TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the broadcaster's send to the kernel's receipt, video of the first and of the last viewer."""

    first_p50: float
    last_p50: float
    last_p99: float


@dataclass(frozen=True, slots=True)
class Row:
    """A relay with so many viewers: medians over the runs. It is `valid` only if every judged packet was right."""

    relay: str
    viewers: int
    groups: int
    cpu_us_per_packet: float
    softirq_us_per_packet: float
    spread: tuple[float, float]
    """The cheapest and the dearest run, CPU microseconds."""
    loss_pct: float
    valid: bool
    rewrites: bool
    encrypts: bool
    latency_ms: Latency
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one relay."""

    cpu_us: float
    softirq_us: float
    loss_pct: float
    valid: bool
    latency: Latency
    rss_bytes: int


def measured(name: str, viewers: int, seconds: float, folder: Path) -> Run:
    """Start everything, send for so long, judge."""
    first = _free_run(2 * viewers)
    places = Places(free_ports(), free_ports(), first, viewers)
    judged = viewers if viewers <= READ_ALL else READ_SOME
    command = [str(compiled("viewers", folder)), str(first), str(viewers), str(judged)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdin is not None
        assert watching.stdout is not None
        if watching.stdout.readline() != "ready\n":
            raise BenchError("the viewers did not start")
        started = (
            limit(folder, places, (free_ports(), free_ports()))
            if name == "limit"
            else _relay(name).start(folder, places)
        )
        with started as relay:
            ports = [relay.video, relay.audio, places.source_video, places.source_audio]
            broadcast = [str(compiled("source", folder)), *map(str, ports), str(seconds)]
            cpu, softirq = relay.cpu_seconds(), _softirq()
            said = subprocess.run(broadcast, check=True, capture_output=True, text=True).stdout
            time.sleep(SETTLE)
            cpu, softirq = relay.cpu_seconds() - cpu, _softirq() - softirq
            resident = relay.resident_bytes()
        watching.stdin.close()
        found = json.loads(watching.stdout.read())
    sent = json.loads(said)
    streams = found["judged"] // 2
    wanted = streams * (sent["video"] + sent["audio"])
    delivered = viewers * (sent["video"] + sent["audio"])
    right = found["strange"] == found["broken"] == 0
    own_names = found["names"] == found["judged"] if name != "limit" and _relay(name).rewrites else True
    loss = 100 * (1 - (found["video"] + found["audio"]) / wanted)
    latency = Latency(found["first_p50"], found["last_p50"], found["last_p99"])
    valid = right and own_names and abs(loss) < 1e-9
    return Run(1e6 * cpu / delivered, 1e6 * softirq / delivered, round(loss, 4), valid, latency, resident)


def _relay(name: str) -> Relay:
    return RELAYS[name]


def _softirq() -> float:
    """Seconds the relays' core spent in soft interrupts: loopback delivers there, whoever is charged."""
    line = Path("/proc/stat").read_text().splitlines()[1 + RELAY_CORE]
    return int(line.split()[7]) / TICK


def _free_run(count: int) -> int:
    """The first of so many ports in a row below the ephemeral ones; taken at random, as nobody else runs here."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return max(2000, low - count - 1000 - free_ports() % 1000)


def rows(names: Sequence[str], viewers: Sequence[int], runs: int, seconds: float, folder: Path) -> Iterator[Row]:
    """Every row, relays in turn."""
    for count in viewers:
        found: dict[str, list[Run]] = {name: [] for name in names}
        for number in range(runs):
            for name in names:
                tell(f"{count} viewers, run {number + 1} of {runs}: {name}")
                found[name].append(measured(name, count, seconds, folder))
        for name in names:
            yield _row(name, count, found[name])


def _row(name: str, viewers: int, runs: Sequence[Run]) -> Row:
    costs = [run.cpu_us for run in runs]
    middle = statistics.median
    return Row(
        relay=name,
        viewers=viewers,
        groups=1,
        cpu_us_per_packet=round(middle(costs), 3),
        softirq_us_per_packet=round(middle([run.softirq_us for run in runs]), 3),
        spread=(round(min(costs), 3), round(max(costs), 3)),
        loss_pct=max(run.loss_pct for run in runs),
        valid=all(run.valid for run in runs),
        rewrites=name != "limit" and _relay(name).rewrites,
        encrypts=False,
        latency_ms=Latency(
            *(
                round(middle([getattr(run.latency, field) for run in runs]), 3)
                for field in ("first_p50", "last_p50", "last_p99")
            )
        ),
        rss_bytes=int(middle([run.rss_bytes for run in runs])),
    )


def main() -> int:
    """Prints a table as the rows come; exit status 1 when a row is not valid, 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--viewers", default="1,10,100,500,1000", help="numbers of viewers (1,10,100,500,1000)")
    parser.add_argument("--relays", default="limit,dialcast,python", help="which (limit,dialcast,python)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the broadcaster sends (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON as well")
    options = parser.parse_args()
    names, viewers = options.relays.split(","), [int(number) for number in options.viewers.split(",")]
    if unknown := {*names} - {*RELAYS, "limit"}:
        parser.error(f"there is no {unknown.pop()}: relays are limit, {', '.join(RELAYS)}")
    found: list[Row] = []
    machine = described()
    keep_off_core(RELAY_CORE)
    print(
        f"{'relay':<12}{'viewers':>8}{'CPU us':>9}{'softirq':>9}{'ratio':>8}{'lost %':>8}{'p50':>8}{'p99':>8}",
        flush=True,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(names, viewers, options.runs, options.seconds, Path(folder)):
                found.append(row)
                base = next(
                    (r.cpu_us_per_packet for r in found if r.relay == "limit" and r.viewers == row.viewers), 0.0
                )
                ratio = f"{row.cpu_us_per_packet / base:>8.2f}" if base else f"{'':>8}"
                late = f"{row.latency_ms.last_p50:>8.2f}{row.latency_ms.last_p99:>8.2f}"
                figures = (
                    f"{row.cpu_us_per_packet:>9.2f}{row.softirq_us_per_packet:>9.2f}{ratio}{row.loss_pct:>8.2f}{late}"
                )
                tell()
                print(f"{row.relay:<12}{row.viewers:>8}{figures}{'' if row.valid else '  not valid'}", flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        story = {"results": [asdict(row) for row in found], "runs": options.runs, "machine": machine}
        options.json.write_text(json.dumps(story, indent=2) + "\n")
    return 0 if all(row.valid for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
