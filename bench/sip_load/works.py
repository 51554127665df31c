"""The work: loads of SIPp from several client addresses, and what one round of it costs a server.

A server's time when idle is taken off. Every answer must come: what failed is counted, on the answering side too.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from bench.machine import BenchError
from bench.sip_load.servers import Server
from sipp_scenarios.calls import Call
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, SippError, run

Work = Literal["register", "answered", "relayed", "golive", "watch"]
CLIENTS: Final = tuple(f"127.0.0.{host}" for host in range(2, 6))
"""Addresses the load comes from: a shipped server takes only so many requests a second from one."""
RATES: Final[dict[Work, float]] = {"register": 80, "answered": 20, "relayed": 20, "golive": 10, "watch": 20}
"""Calls a second from each client. At a trickle one would mostly measure how cold the processor's caches are."""
CALLERS: Final = 200
"""Accounts that take turns, so that none comes near what a shipped server lets one ask for in a minute (120)."""
HOLD: Final = 0.1
"""Seconds a call is held."""
PATIENCE: Final = 40.0
AT_ONCE: Final = 300
IDLE_SECONDS: Final = 3.0
WARM_UP: Final = 40
FORWARDED_AFTER: Final = 3.0
"""Seconds after which the server has forwarded a stock phone's number that is live."""

Round = Callable[[int], int]
"""Offers so many registrations or calls; how many failed."""


def accounts() -> list[Account]:
    """Subscribers of the benchmark: those who call, those who are called, and one who is live."""
    return [account(place) for place in range(CALLERS + len(CLIENTS) + 1)]


def account(place: int) -> Account:
    """The subscriber at this place of the list."""
    return Account(str(200_000 + place), f"bench-{place}")


@dataclass(frozen=True, slots=True)
class Ready:
    """Work that can begin. `missed`, asked after the last round, tells how many calls went wrong for who was called."""

    load: Round
    missed: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class Meter:
    """Puts one server under load. `callers` are shared among the clients, so that no number calls twice at once.

    `idle` is the share of a processor the server takes when nobody asks anything of it.
    """

    name: str
    server: Server
    callers: tuple[Account, ...]
    idle: float = 0.0

    def cost(self, load: Round, count: int) -> tuple[float, int]:
        """CPU milliseconds for each of `count`, and how many failed."""
        before, began = self.server.cpu_seconds(), time.monotonic()
        failed = load(count)
        spent = self.server.cpu_seconds() - before - self.idle * (time.monotonic() - began)
        return 1000 * spent / count, failed

    @contextmanager
    def ready(self, work: Work, calls: int) -> Iterator[Ready]:
        """Everything the work needs besides its callers, who will make `calls` calls in all."""
        everybody = accounts()
        match work:
            case "register":
                yield self._calls(work, "register", [""] * len(CLIENTS), {"expires": "600"})
            case "answered":
                yield self._calls(work, "answered", ["*#21#"] * len(CLIENTS))
            case "relayed":
                callees, load = everybody[CALLERS:-1], Load(calls // len(CLIENTS), 100, AT_ONCE)
                with self._answering(callees, load) as phones:
                    ready = self._calls(work, "call", [account.number for account in callees])
                    yield replace(ready, missed=lambda: sum(_failed(phone, 5.0, load.calls) for phone in phones))
            case "golive":
                yield self._calls(work, "go_live", ["8888"] * len(CLIENTS))
            case "watch":
                with Call("go_live", self.server.address, everybody[-1], "8888", hold=3600) as live:
                    live.answered()
                    time.sleep(FORWARDED_AFTER)
                    yield self._calls(work, "watch", [everybody[-1].number] * len(CLIENTS))

    def _calls(self, work: Work, scenario: str, targets: Sequence[str], keys: dict[str, str] | None = None) -> Ready:
        return Ready(lambda count: self._clients(work, scenario, count, targets, keys or {}))

    def _clients(self, work: Work, scenario: str, count: int, targets: Sequence[str], keys: dict[str, str]) -> int:
        """One SIPp for each client address, all at once; how many calls failed."""
        share = Load(count // len(CLIENTS), RATES[work], AT_ONCE, hold=HOLD)

        def client(place: int) -> int:
            rows = [(account, targets[place]) for account in self.callers[place :: len(CLIENTS)]]
            media = free_ports(2), free_ports(2)
            sipp = Sipp(
                scenario,
                self.server.address,
                rows,
                load=share,
                keys=keys,
                host=CLIENTS[place],
                media_ports=media,
                trace=False,
            )
            with sipp:
                return _failed(sipp, share.calls / share.rate + PATIENCE, share.calls)

        with ThreadPoolExecutor(len(CLIENTS)) as clients:
            return sum(clients.map(client, range(len(CLIENTS))))

    @contextmanager
    def _answering(self, callees: Sequence[Account], load: Load) -> Iterator[list[Sipp]]:
        """One phone a client, registered, which answers `load.calls` calls and ends."""
        address = self.server.address
        with ExitStack() as stack:
            phones = []
            for account, host in zip(callees, CLIENTS, strict=True):
                port, row = free_ports(), [(account, "")]
                run(Sipp("register", address, row, local_port=port, host=host, keys={"expires": "3600"}))
                phone = Sipp("answer", address, row, load=load, local_port=port, host=host, trace=False)
                phones.append(stack.enter_context(phone))
            yield phones


def _failed(sipp: Sipp, within: float, calls: int) -> int:
    """How many of a SIPp's calls failed; all of them if it does not come to an end."""
    try:
        return sipp.failed(within)
    except SippError as error:
        print(error, file=sys.stderr)
        return calls


def metered(name: str, server: Server) -> Meter:
    """A meter that knows what the server uses when idle, after a short warm-up."""
    meter = Meter(name, server, tuple(accounts()[:CALLERS]))
    with meter.ready("register", WARM_UP) as registrations:
        if registrations.load(WARM_UP):
            raise BenchError(f"{name} does not register everybody")
    before = server.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return Meter(name, server, meter.callers, (server.cpu_seconds() - before) / IDLE_SECONDS)
