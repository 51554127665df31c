"""`python -m bench.sip_load`: CPU time of SIP servers per registration and per call, side by side in one run.

dialcast with shipped defaults, Kamailio with its logic in its own language, and Kamailio with its logic in Python do
the same work under the same SIPp scenarios. All are started at once on one processor core, SIPp has the others; rounds
alternate between the servers, so that what else the machine does hits all alike. A registration is REGISTER, 401,
REGISTER, 200; an answered call is INVITE, 407, ACK, INVITE, 200, ACK, BYE, 200 with a setting read from the database
(`servers` says what differs); a relayed call rings another phone; going live and watching are dialcast's alone. CPU ms
is the median of the rounds, best the cheapest one. A row counts only if no call failed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.machine import BenchError, described, keep_off_core, tell
from bench.sip_load.servers import SERVER_CORE, Running, dialcast, kamailio
from bench.sip_load.works import CLIENTS, RATES, Meter, Work, accounts, metered
from sipp_scenarios.sipp import SippError

SERVERS: Final[dict[str, Running]] = {
    "dialcast": dialcast,
    "kamailio": partial(kamailio, tongue="native"),
    "kamailio-python": partial(kamailio, tongue="scripted"),
}
OURS_ALONE: Final = ("golive", "watch")


@dataclass(frozen=True, slots=True)
class Row:
    """One result: CPU milliseconds for each registration or call, and how many failed; with any it does not count."""

    server: str
    work: Work
    cpu_ms: float
    best_cpu_ms: float
    failed: int
    offered_per_s: float
    counts: bool


def measured(meters: Sequence[Meter], works: Sequence[Work], count: int, rounds: int) -> Iterator[Row]:
    """Every row, work by work; `rounds` rounds of `count`, turn by turn."""
    for work in works:
        with ExitStack() as stack:
            taking_part = {
                meter: stack.enter_context(meter.ready(work, rounds * count))
                for meter in meters
                if meter.name == "dialcast" or work not in OURS_ALONE
            }
            costs: dict[Meter, list[tuple[float, int]]] = {meter: [] for meter in taking_part}
            for number in range(rounds):
                for meter, ready in taking_part.items():
                    tell(f"{work}, round {number + 1} of {rounds}: {meter.name}")
                    costs[meter].append(meter.cost(ready.load, count))
            for meter, ready in taking_part.items():
                failed = ready.missed() + sum(failed for _, failed in costs[meter])
                cpu_ms = [cost for cost, _ in costs[meter]]
                offered = RATES[work] * len(CLIENTS)
                median, best = round(statistics.median(cpu_ms), 3), round(min(cpu_ms), 3)
                yield Row(meter.name, work, median, best, failed, offered, failed == 0)


def main() -> int:
    """Prints a table as the rows come; exit status 1 when a call failed, 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.sip_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds of 160 instead of five of 800")
    parser.add_argument("--servers", default=",".join(SERVERS), help=f"which servers ({','.join(SERVERS)})")
    parser.add_argument("--works", default=",".join(RATES), help=f"which work ({','.join(RATES)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON as well")
    options = parser.parse_args()
    names, works = options.servers.split(","), [work for work in RATES if work in options.works.split(",")]
    if unknown := {*names} - {*SERVERS} | {*options.works.split(",")} - {*RATES}:
        parser.error(f"there is no {unknown.pop()}: servers are {', '.join(SERVERS)}, works {', '.join(RATES)}")
    count, rounds = (160, 3) if options.quick else (800, 5)
    rows: list[Row] = []
    machine = described()
    keep_off_core(SERVER_CORE)
    try:
        with ExitStack() as stack:
            meters = []
            for name in names:
                tell(f"starting {name}")
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                meters.append(metered(name, stack.enter_context(SERVERS[name](folder, accounts()))))
            tell()
            print(f"{'server':<18}{'work':<12}{'CPU ms':>8}{'best':>8}{'failed':>8}{'offered/s':>11}", flush=True)
            for row in measured(meters, works, count, rounds):
                rows.append(row)
                figures = f"{row.cpu_ms:>8.2f}{row.best_cpu_ms:>8.2f}{row.failed:>8}{row.offered_per_s:>11.0f}"
                tell()
                print(f"{row.server:<18}{row.work:<12}{figures}{'' if row.counts else '  does not count'}", flush=True)
    except (BenchError, SippError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        results = {"results": [asdict(row) for row in rows], "rounds": rounds, "count": count, "machine": machine}
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(row.counts for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
