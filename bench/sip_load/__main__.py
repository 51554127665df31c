"""`python -m bench.sip_load`: CPU time of SIP servers per registration and per call, side by side in one run.

dialcast with shipped defaults, Kamailio with its logic in its own language, and Kamailio with its logic in Python do
the same work under the same SIPp scenarios, each alone on one processor core. A registration is REGISTER, 401,
REGISTER, 200; an answered call is INVITE, 407, ACK, INVITE, 200, ACK, BYE, 200 with a stored dialog; a relayed call
rings another phone; going live and watching are dialcast's alone. A row counts only without a failed call.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from bench.sip_load.servers import BenchError, Server, dialcast, kamailio
from bench.sip_load.works import CLIENTS, Meter, Row, metered
from sipp_scenarios.behaviours import Call
from sipp_scenarios.sipp import Account

Running = Callable[[Path, list[Account]], AbstractContextManager[Server]]
SERVERS: Final[dict[str, Running]] = {
    "dialcast": dialcast,
    "kamailio": partial(kamailio, tongue="native"),
    "kamailio-python": partial(kamailio, tongue="scripted"),
}
CALLERS: Final = 200
FORWARDED_AFTER: Final = 3.0
"""Seconds after which the server has forwarded a stock phone's number that is live."""


def accounts(count: int) -> list[Account]:
    """Subscribers of the benchmark."""
    return [Account(str(200_000 + place), f"bench-{place}") for place in range(count)]


def measured(name: str, running: Running, count: int, rounds: int) -> Iterator[Row]:
    """Every row of one server."""
    everybody = accounts(CALLERS + len(CLIENTS) + 1)
    callers, callees, broadcaster = everybody[:CALLERS], everybody[CALLERS:-1], everybody[-1]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), everybody) as server:
        meter = metered(name, server, callers, count, rounds)
        yield meter.row("register", meter.registrations)
        yield meter.row("answered", meter.calls("answered", "answered", ["*#21#"] * len(CLIENTS)))
        with meter.callees(callees, rounds * count) as numbers:
            yield meter.row("relayed", meter.calls("relayed", "call", numbers))
        if name == "dialcast":
            yield from _broadcasts(meter, broadcaster)


def _broadcasts(meter: Meter, broadcaster: Account) -> Iterator[Row]:
    yield meter.row("golive", meter.calls("golive", "go_live", ["8888"] * len(CLIENTS)))
    with Call("go_live", meter.server.address, broadcaster, "8888", hold=3600) as live:
        live.answered()
        time.sleep(FORWARDED_AFTER)
        yield meter.row("watch", meter.calls("watch", "watch", [broadcaster.number] * len(CLIENTS)))


def main() -> int:
    """Prints a table as the rows come; exit status 1 when a call failed, 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.sip_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of 200 instead of three of 800")
    parser.add_argument("--servers", default=",".join(SERVERS), help=f"which servers ({','.join(SERVERS)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON as well")
    options = parser.parse_args()
    count, rounds = (200, 1) if options.quick else (800, 3)
    names = options.servers.split(",")
    if unknown := [name for name in names if name not in SERVERS]:
        parser.error(f"no such server: {unknown[0]} (there are {', '.join(SERVERS)})")
    rows: list[Row] = []
    print(f"{'server':<18}{'work':<12}{'CPU ms':>8}{'failed':>8}{'offered/s':>11}")
    try:
        for name in names:
            for row in measured(name, SERVERS[name], count, rounds):
                rows.append(row)
                print(
                    f"{row.server:<18}{row.work:<12}{row.cpu_ms:>8.2f}{row.failed:>8}{row.offered_per_s:>11.0f}",
                    flush=True,
                )
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.write_text(json.dumps({"results": [asdict(row) for row in rows]}, indent=2) + "\n")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
