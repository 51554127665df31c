"""The work: loads of SIPp from several client addresses, and what they cost the server.

Every load runs in rounds and the cheapest counts: what else the machine does only ever makes it dearer. The server's
time when idle is taken off.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from bench.sip_load.servers import BenchError, Server
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, SippError, run

Work = Literal["register", "answered", "relayed", "golive", "watch"]
CLIENTS: Final = tuple(f"127.0.0.{host}" for host in range(2, 6))
"""Addresses the load comes from: a shipped server takes only so many requests a second from one."""
RATES: Final[dict[Work, float]] = {"register": 80, "answered": 20, "relayed": 20, "golive": 10, "watch": 20}
"""Calls a second from each client. At a trickle one would mostly measure how cold the processor's caches are."""
HOLD: Final = 0.1
"""Seconds a call is held."""
PATIENCE: Final = 60.0
AT_ONCE: Final = 300
IDLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One result: CPU milliseconds for each registration or call, and how many failed."""

    server: str
    work: Work
    cpu_ms: float
    failed: int
    offered_per_s: float


@dataclass(frozen=True, slots=True)
class Meter:
    """Puts one server under load. `accounts` are shared among the clients, so that no number calls twice at once."""

    name: str
    server: Server
    accounts: Sequence[Account]
    count: int
    rounds: int
    idle: float

    def row(self, work: Work, load: Callable[[int], int]) -> Row:
        """The cheapest of the rounds; failures of all rounds together."""
        rounds = [self._round(load) for _ in range(self.rounds)]
        best = min(cpu for cpu, _ in rounds)
        return Row(self.name, work, round(best, 3), sum(failed for _, failed in rounds), RATES[work] * len(CLIENTS))

    def _round(self, load: Callable[[int], int]) -> tuple[float, int]:
        before, began = self.server.cpu_seconds(), time.monotonic()
        failed = load(self.count)
        spent = self.server.cpu_seconds() - before - self.idle * (time.monotonic() - began)
        return 1000 * spent / self.count, failed

    def registrations(self, count: int) -> int:
        """Digest registrations, every number in turn. How many failed."""
        return self._clients("register", "register", count, [("", {"expires": "600"})] * len(CLIENTS))

    def calls(self, work: Work, scenario: str, targets: Sequence[str]) -> Callable[[int], int]:
        """Calls to `targets`, one for each client."""
        return lambda count: self._clients(work, scenario, count, [(target, {}) for target in targets])

    def _clients(self, work: Work, scenario: str, count: int, jobs: Sequence[tuple[str, dict[str, str]]]) -> int:
        share = Load(count // len(CLIENTS), RATES[work], AT_ONCE, hold=HOLD)

        def client(place: int) -> int:
            target, keys = jobs[place]
            rows = [(account, target) for account in self.accounts[place :: len(CLIENTS)]]
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
                return sipp.failed(share.calls / share.rate + PATIENCE)

        with ThreadPoolExecutor(len(CLIENTS)) as clients:
            return sum(clients.map(client, range(len(CLIENTS))))

    @contextmanager
    def callees(self, accounts: Sequence[Account], calls: int) -> Iterator[list[str]]:
        """One phone a client, registered, which answers `calls` calls; their numbers."""
        with ExitStack() as phones:
            for account, host in zip(accounts, CLIENTS, strict=True):
                port = free_ports()
                registering = Sipp(
                    "register",
                    self.server.address,
                    [(account, "")],
                    local_port=port,
                    host=host,
                    keys={"expires": "3600"},
                )
                run(registering)
                load = Load(calls, 100, AT_ONCE)
                phones.enter_context(
                    Sipp(
                        "answer",
                        self.server.address,
                        [(account, "")],
                        load=load,
                        local_port=port,
                        host=host,
                        trace=False,
                    )
                )
            yield [account.number for account in accounts]


def metered(name: str, server: Server, accounts: Sequence[Account], count: int, rounds: int) -> Meter:
    """A meter that knows what the server uses when idle, after a short warm-up."""
    warm = Meter(name, server, accounts, 0, 1, 0.0)
    try:
        warm.registrations(40)
    except SippError as error:
        raise BenchError(f"{name} does not register anybody: {error}") from None
    before = server.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return Meter(name, server, accounts, count, rounds, (server.cpu_seconds() - before) / IDLE_SECONDS)
