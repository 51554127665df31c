"""`python -m bench.fanout`: CPU time of relays for each packet delivered, beside the bare system calls, in one run.

A broadcaster sends 30 frames a second of 10 packets of 1,200 bytes, each frame at once, and 50 packets of audio a
second; viewers outside the measured processor judge what they get: one stream, numbers without a gap, the timestamps
and payloads that were sent, and nothing of another's. Runs alternate between the relays, so that what else the machine
does hits all alike; the median counts, and the ratio to `limit`, which does nothing but receive and send.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final, get_args

import structlog

from bench.fanout.peers import RELAYS
from bench.fanout.peers.process import RELAY_CORE, missing
from bench.fanout.runs import Row, Run, Work, measured, row
from bench.fanout.traffic import TRAFFIC
from bench.machine import BenchError, described, keep_off_core, tell
from protocols.srtp import Profile

RULES: Final = """
A relay that is not installed is left out with a word and does no harm to the exit status, one that cannot do the work
is left out with a word and makes it 1. Exit status: 0 when every row is valid, 1 when one is not or is lacking, 2 when
nothing can be measured. --srtp measures only relays that encrypt, and `limit` beside them in the clear.
Peers: apt-get install rtpengine-daemon janus gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good;
for --srtp libsrtp2-dev. CPU is user and system time of every process and thread of the relay, soft interrupts that its
sending causes among it; viewers and broadcasters run elsewhere. Nothing else should run on the machine.
"""
LATE_MS: Final = 20.0
"""From here on a row says that its broadcasters could not keep their pace."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a relay holds for each leg and for each group, from rows that differ in nothing else; None: not measured."""

    relay: str
    bytes_per_leg: int | None
    bytes_per_group: int | None


def main() -> int:
    """Prints a table as the rows come."""
    options = _options()
    asked = {name: (relay.program, "--version") for name, relay in RELAYS.items() if relay.program}
    machine = described(asked)
    wanted = {name: RELAYS[name] for name in options.relays}
    lacking = {name: word for name in wanted if (word := missing(wanted[name])) is not None}
    names = [name for name in wanted if name not in lacking]
    if options.srtp:
        names = [name for name in names if name == "limit" or RELAYS[name].encrypts]
    for name, word in lacking.items():
        print(f"{name} is left out: {word}", file=sys.stderr)
    if not names:
        print("no relay is left to measure", file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    keep_off_core(RELAY_CORE)
    found: list[Row] = []
    all_there = True
    print(_HEAD, flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for viewers, groups in product(options.viewers, options.groups):
                source = options.source or ("steady" if groups == 1 else "300k")
                work = Work(viewers, groups, source, options.srtp or "", options.seconds)
                taken, failed = _runs(names, work, options.runs, Path(folder))
                lacking |= failed
                for name, runs in taken.items():
                    if runs:
                        found.append(row(name, work, runs))
                        print(_line(found[-1], found), flush=True)
                    all_there &= bool(runs)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if options.json is not None and found:
            _write(options, machine, found, lacking)
    for each in memory(found):
        print(f"{each.relay}: {_bytes(each.bytes_per_leg)} a leg, {_bytes(each.bytes_per_group)} a group")
    return 0 if all_there and all(each.valid for each in found) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fanout",
        description=(__doc__ or "").split("\n")[0],
        epilog=RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    profiles = get_args(Profile)
    parser.add_argument("--viewers", type=_numbers, default="1,10,100,500,1000", help="a group (1,10,100,500,1000)")
    parser.add_argument("--groups", type=_numbers, default="1", help="numbers of groups, e.g. 300 with --viewers 3 (1)")
    parser.add_argument("--relays", type=_relays, default=",".join(RELAYS), help=f"which ({','.join(RELAYS)})")
    parser.add_argument(
        "--source", choices=TRAFFIC, help="what broadcasters send (steady; 300k with more groups than one)"
    )
    parser.add_argument("--srtp", nargs="?", const=profiles[0], choices=profiles, help="viewers get SRTP (no)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long is counted, after a first second (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON as well")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    if not all(number.isdecimal() and int(number) for number in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0")
    return [int(number) for number in text.split(",")]


def _relays(text: str) -> list[str]:
    names = text.split(",")
    if unknown := {*names} - {*RELAYS}:
        raise argparse.ArgumentTypeError(f"there is no {unknown.pop()}: relays are {', '.join(RELAYS)}")
    return names


def _runs(names: Sequence[str], work: Work, runs: int, folder: Path) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Of each relay, in turn; of one that cannot do the work none, but why."""
    lacking: dict[str, str] = {}
    found: dict[str, list[Run]] = {name: [] for name in names}
    able = list(names)
    plain = replace(work, profile="")  # the floor is measured in the clear: nobody could do with less
    for number in range(runs):
        for name in list(able):
            tell(f"{work.groups} x {work.viewers} viewers, {work.source}, run {number + 1} of {runs}: {name}")
            try:
                found[name].append(measured(name, work if RELAYS[name].encrypts else plain, folder))
            except BenchError as error:
                tell()
                lacking[f"{name}, {work.groups} x {work.viewers}"] = str(error)
                print(f"{name} is left out with {work.groups} x {work.viewers} viewers: {error}", file=sys.stderr)
                able.remove(name)
                found[name] = []
    tell()
    return found, lacking


_HEAD: Final = (
    f"{'relay':<11}{'groups':>7}{'viewers':>8}  {'source':<11}{'CPU us':>8}{'spread':>15}{'softirq':>8}{'ratio':>7}"
    f"{'lost %':>8}{'last p50':>10}{'p99 ms':>8}{'RSS MB':>8}"
)


def _line(this: Row, rows: Sequence[Row]) -> str:
    alike = (each for each in rows if each.relay == "limit" and _case(each) == _case(this))
    base = next((each.cpu_us_per_packet for each in alike), 0.0)
    ratio = f"{this.cpu_us_per_packet / base:.2f}" if base else ""
    late, (least, most) = this.latency_ms, this.spread
    remarks = [
        word
        for word, said in (
            ("not valid", not this.valid),
            ("same stream to all", not this.rewrites),
            ("encrypted", this.encrypts),
            (f"sent {this.source_late_ms:.0f} ms late", this.source_late_ms > LATE_MS),
        )
        if said
    ]
    return (
        f"{this.relay:<11}{this.groups:>7}{this.viewers:>8}  {this.source:<11}{this.cpu_us_per_packet:>8.2f}"
        f"{f'{least:.2f}-{most:.2f}':>15}{this.softirq_us_per_packet:>8.2f}{ratio:>7}{this.loss_pct:>8.2f}"
        f"{late.last_p50:>10.2f}{late.last_p99:>8.2f}{this.rss_bytes / 1e6:>8.1f}  {', '.join(remarks)}"
    )


def _case(each: Row) -> tuple[int, int, str]:
    return each.viewers, each.groups, each.source


def memory(rows: Sequence[Row]) -> Iterator[Memory]:
    """By the rows that are farthest apart: in viewers of one group, and in groups of as many viewers."""
    for relay in dict.fromkeys(each.relay for each in rows):
        mine = sorted((each for each in rows if each.relay == relay), key=lambda each: (each.viewers, each.groups))
        leg = group = None
        for low, high in product(mine, mine):
            if low.source == high.source and low.groups == high.groups and low.viewers < high.viewers:
                leg = (high.rss_bytes - low.rss_bytes) // (high.groups * (high.viewers - low.viewers))
        for low, high in product(mine, mine):
            if low.source == high.source and low.viewers == high.viewers and low.groups < high.groups:
                group = (high.rss_bytes - low.rss_bytes) // (high.groups - low.groups)
                group -= (leg or 0) * high.viewers
        if leg is not None or group is not None:
            yield Memory(relay, leg, group)


def _bytes(count: int | None) -> str:
    return "not measured" if count is None else f"{count / 1000:,.1f} kB"


def _write(options: argparse.Namespace, machine: dict[str, object], rows: list[Row], lacking: dict[str, str]) -> None:
    story = {
        "results": [asdict(each) for each in rows],
        "memory": [asdict(each) for each in memory(rows)],
        "left_out": lacking,
        "runs": options.runs,
        "seconds": options.seconds,
        "machine": machine,
    }
    options.json.write_text(json.dumps(story, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
