"""`python -m bench.soak [--minutes 2]`: does a server that was busy with everything at once keep anything afterwards?

Phones register and unregister, call each other, dial codes, go live, watch and subscribe; others cancel, never send
ACK, send garbage within and without calls, or open connections and say nothing. The load runs twice, first to warm up
caches, and after each time the server is left alone for longer than a transaction lives (32 s, RFC 3261 section 17).
What it holds is sampled all the while. What counts is what the second load added: transactions, dialogs, connections,
descriptors, threads, tasks, timers must be back where they were, memory within its bounds.
"""

import argparse
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine import described, tell
from sipp_scenarios.own_server import OwnServer, Target
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, SippError, run
from sipp_scenarios.wire import Datagrams, address, options

REST: Final = 40.0
LONGEST_REST: Final = 120.0
"""As long as it takes to give up a call whose phone vanished: silence, OPTIONS, the time to call again, BYE."""
WARM_UP: Final = 40.0
SAMPLE_EVERY: Final = 5.0
NEVER_ENDS: Final = 45.0
"""Seconds a call may take that the server must end: 32 s for its 200 without ACK, and some."""
MEMORY_BOUND: Final = 4e6, 4_000.0, 40e6
BLOCKS_BOUND: Final = 0.0, 20.0, 175_000.0
"""Bytes, and pieces of memory in Python, that may stay: some, some for each request, and how many at most. Nonces and
parsed header fields are remembered (20,000 and 4,096 of each kind): full after minutes, so a long soak is stricter."""
SLACK: Final = {"dialcast_asyncio_timers": 20.0, "process_open_fds": 2.0, "dialcast_asyncio_tasks": 2.0}
"""How many more there may be at the end, timers because of cancelled ones, tasks because a scrape is one."""
MEMORY: Final = "process_resident_memory_bytes"
BLOCKS: Final = "dialcast_python_blocks"
REQUESTS: Final = "dialcast_sip_requests_total"
HELD: Final = (
    *("dialcast_sip_transactions", "dialcast_sip_dialogs", "dialcast_sip_early_dialogs", "dialcast_sip_connections"),
    *("dialcast_broadcasts", "dialcast_viewers", "dialcast_subscriptions", "dialcast_store_waiting"),
    *("dialcast_relay_groups", "dialcast_relay_legs", "dialcast_relay_ports"),
    *("process_open_fds", "dialcast_threads", "dialcast_asyncio_tasks", "dialcast_asyncio_timers"),
)
"""What must be back where it was, of both processes."""

Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Phones:
    """One kind of caller: `rate` calls a second of a scenario, each held `hold` seconds."""

    scenario: str
    rate: float
    dialled: str = "nobody"
    hold: float = 0.2
    event: str = ""
    expires: int = 600


CALLED, CANCELLED, LIVE = range(3)
"""Places of the accounts that are called, called and then cancelled, and live all the while."""


def kinds(accounts: tuple[Account, ...]) -> list[Phones]:
    """Everything that happens at once."""
    return [
        Phones("register", 10),
        Phones("register", 5, expires=0),
        Phones("register_and_refresh", 2),
        Phones("answered", 4, "*#21#"),
        Phones("call", 4, accounts[CALLED].number),
        Phones("cancel", 2, accounts[CANCELLED].number),
        Phones("options", 2),
        Phones("go_live", 1, "8888", hold=0.5),
        Phones("watch", 3, accounts[LIVE].number, hold=0.5),
        Phones("subscribe", 2, accounts[LIVE].number, hold=0.5, event="dialog"),
        Phones("never_ack", 0.5, "*#21#"),
        Phones("watch_on_hold", 1, accounts[LIVE].number, hold=0.3),
        Phones("drop_200_then_cancel", 1, "*#21#"),
        Phones("prack_out_of_order", 1, accounts[LIVE].number),
        Phones("never_prack", 0.5, accounts[LIVE].number),
        Phones("bye_before_ack", 1, "8888"),
    ]


@contextmanager
def _load(target: Target, seconds: float, failed: dict[str, int]) -> Iterator[None]:
    """Every kind of phone for so long, each at an address and with accounts of its own; `failed` by scenario."""
    every = kinds(target.accounts)
    share = (len(target.accounts) - 3) // len(every)
    with ExitStack() as stack:
        running = []
        for place, kind in enumerate(every):
            accounts = target.accounts[3 + place * share : 3 + (place + 1) * share]
            phones = Sipp(
                kind.scenario,
                target.udp,
                [(account, kind.dialled) for account in accounts],
                load=Load(max(1, round(kind.rate * seconds)), kind.rate, 200, kind.hold),
                host=f"127.0.20.{place + 1}",
                media_ports=(free_ports(), free_ports()),
                keys={"expires": str(kind.expires), "event": kind.event},
                trace=False,
            )
            running.append(stack.enter_context(phones))
        stopped = threading.Event()
        nuisances = [threading.Thread(target=one, args=(target, stopped)) for one in (_garbage, _connections)]
        for nuisance in nuisances:
            nuisance.start()
        try:
            yield
            for kind, phones in zip(every, running, strict=True):
                failed[kind.scenario] = failed.get(kind.scenario, 0) + phones.failed(seconds + NEVER_ENDS)
        finally:
            stopped.set()
            for nuisance in nuisances:
                nuisance.join()


@contextmanager
def _others(target: Target) -> Iterator[None]:
    """Who is there all the while: a phone that answers, one that rings until it is cancelled, one that is live."""
    with ExitStack() as stack:
        for place, scenario in ((CALLED, "answer"), (CANCELLED, "ring_until_cancelled")):
            row, port, host = [(target.accounts[place], "")], free_ports(), f"127.0.21.{place + 1}"
            run(Sipp("register", target.udp, row, local_port=port, host=host, keys={"expires": "3600"}))
            load = Load(1_000_000, 100, 500)
            stack.enter_context(Sipp(scenario, target.udp, row, load=load, local_port=port, host=host, trace=False))
        live = Sipp(
            "go_live",
            target.udp,
            [(target.accounts[LIVE], "8888")],
            load=Load(hold=1e6),
            host="127.0.21.9",
            media_ports=(free_ports(), free_ports()),
        )
        stack.enter_context(live).received("SIP/2.0 200")
        run(Sipp("code", target.udp, [(target.accounts[LIVE], "*21*8888#")], host="127.0.21.9"))
        yield


def _garbage(target: Target, stopped: threading.Event) -> None:
    """Datagrams at random, and requests with holes in them."""
    dice = random.Random(3)
    with Datagrams("127.0.22.1") as sender:
        good = options(target.udp, sender.host, sender.port)
        while not stopped.wait(0.05):
            broken = bytearray(good)
            for _ in range(dice.randint(1, 20)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            sender.send(target.udp, dice.randbytes(dice.randint(1, 1400)), bytes(broken))


def _connections(target: Target, stopped: threading.Event) -> None:
    """Connections that are closed, reset, left half-way through a message, or served."""
    here, place = ("127.0.22.2", 0), address(target.tcp)
    good = options(target.tcp, here[0], 5060, transport="TCP")
    beginnings = (b"", good[:40], good, good + good[:60], b"\r\n\r\n")
    turn = 0
    while not stopped.wait(0.2):
        turn += 1
        try:
            with socket.create_connection(place, 2, here) as connection:
                connection.sendall(beginnings[turn % len(beginnings)])
                if turn % 2:  # a reset instead of a farewell
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            continue  # turned away, as may be


def sample(target: Target) -> Sample:
    """What both processes hold now, and how many requests they have had."""
    found: Sample = {}
    for name, value in target.samples():
        base = name.partition("{")[0]
        if base in HELD or base in (MEMORY, BLOCKS, REQUESTS):
            found[base] = found.get(base, 0.0) + value
    return found


def grown(before: Sample, after: Sample) -> dict[str, str]:
    """What is beyond its bound: the metric, and what it is beyond."""
    requests = after[REQUESTS] - before[REQUESTS]
    bounds = {name: before.get(name, 0.0) + SLACK.get(name, 0.0) for name in HELD}
    for name, (some, each, most) in ((MEMORY, MEMORY_BOUND), (BLOCKS, BLOCKS_BOUND)):
        bounds[name] = before[name] + min(some + each * requests, most)
    return {name: f"at most {bound:.0f}" for name, bound in bounds.items() if after.get(name, 0.0) > bound}


def _watched(target: Target, until: float, doing: str, samples: list[Sample], before: Sample | None = None) -> None:
    """Samples until then (monotonic seconds); longer, up to `LONGEST_REST`, while more is held than `before`."""
    while (left := until - time.monotonic()) > 0 or (
        before and grown(before, samples[-1]) and left > REST - LONGEST_REST
    ):
        time.sleep(min(SAMPLE_EVERY, left) if left > 0 else SAMPLE_EVERY)
        samples.append({"at": time.time(), **sample(target)})
        now = samples[-1]
        held = f"{now['dialcast_sip_transactions']:.0f} transactions, {now['dialcast_sip_dialogs']:.0f} dialogs"
        tell(f"{doing}: {held}, {now[MEMORY] / 1e6:.1f} MB")


def main() -> int:
    """Prints a table; exit status 1 when something has grown or a call failed, 2 when it could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the second load lasts (2)")
    parser.add_argument("--warm-up", type=float, default=WARM_UP, metavar="SECONDS", help=f"the first ({WARM_UP:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample as JSON as well")
    chosen = parser.parse_args()
    samples: list[Sample] = []
    failed: dict[str, int] = {}
    before: Sample = {}
    machine = described()
    total = chosen.warm_up + 60 * chosen.minutes + 2 * REST
    print(
        f"about {total / 60:.1f} minutes: {chosen.warm_up:g} s warm-up, {chosen.minutes:g} min load, a rest after each",
        flush=True,
    )
    try:
        with OwnServer() as target, _others(target):
            for doing, seconds in (("warm-up", chosen.warm_up), ("load", 60 * chosen.minutes)):
                over = time.monotonic() + seconds
                with _load(target, seconds, failed):
                    _watched(target, over, doing, samples)
                busiest = samples[-1]
                _watched(target, over + REST, f"rest after {doing}", samples, before)
                before = before or samples[-1]
            after = samples[-1]
    except SippError as error:
        print(error, file=sys.stderr)
        return 2
    beyond = grown(before, after)
    tell()
    print(f"{'':<34}{'before':>14}{'under load':>14}{'afterwards':>14}")
    for name in (*HELD, BLOCKS, MEMORY, REQUESTS):
        figures = "".join(f"{held.get(name, 0.0):>14.0f}" for held in (before, busiest, after))
        print(f"{name:<34}{figures}{'  GROWN: ' + beyond[name] if name in beyond else ''}")
    requests = after[REQUESTS] - before[REQUESTS]
    print(f"a request: {(after[BLOCKS] - before[BLOCKS]) / requests:.2f} Python blocks,", end=" ")
    print(f"{(after[MEMORY] - before[MEMORY]) / requests:.0f} bytes of memory")
    wrong = {scenario: count for scenario, count in failed.items() if count}
    if chosen.json is not None:
        story = {"samples": samples, "failed": failed, "grown": beyond, "machine": machine}
        chosen.json.write_text(json.dumps(story, indent=2) + "\n")
    print(verdict(beyond, wrong))
    return 1 if beyond or wrong else 0


def verdict(beyond: dict[str, str], wrong: dict[str, int]) -> str:
    """The last line: what is `beyond` its bound, and how many calls of which scenario went `wrong`."""
    told = []
    if wrong:
        told.append("calls that failed: " + ", ".join(f"{count} {scenario}" for scenario, count in wrong.items()))
    if beyond:
        told.append("left behind: " + ", ".join(f"{name} ({bound})" for name, bound in beyond.items()))
    return "; ".join(told) or "nothing left behind, no call failed"


if __name__ == "__main__":
    sys.exit(main())
