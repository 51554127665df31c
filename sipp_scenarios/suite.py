"""Plays behaviours, several at once where they have accounts and addresses of their own, and says how they went."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, Literal

from sipp_scenarios.behaviours import CATALOGUE, Behaviour
from sipp_scenarios.own_server import Target, settled
from sipp_scenarios.sipp import Account, SippError, local_host
from sipp_scenarios.world import Skipped, Wishes, World

ACCOUNTS: Final = 6
"""Numbers one behaviour gets for itself."""
LEFTOVERS: Final = "leaves_nothing"
LEFTOVER_SECONDS: Final = 75.0
"""The last request of a phone that has gone is given up after 64*T1, and so is the BYE to it."""
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one behaviour went. `seconds` it took; `remark` is what was measured, why it failed or was skipped."""

    name: str
    kind: str
    shows: str
    by: str
    outcome: Outcome
    seconds: float
    remark: str


@dataclass(slots=True)
class Places:
    """Accounts and loopback addresses, lent to one behaviour at a time."""

    target: Target
    _free: list[Account] = field(init=False)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _hosts: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self._free = list(self.target.accounts)

    @contextmanager
    def lent(self, wishes: Wishes, accounts: int) -> Iterator[World]:
        """The world of one behaviour."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._free) >= accounts)
            mine, self._free = self._free[:accounts], self._free[accounts:]
            place = next(self._hosts)
        here = local_host(self.target.udp)
        hosts = (f"127.20.{place}.1", f"127.20.{place}.2") if here.startswith("127.") else (here, here)
        try:
            yield World(self.target, *hosts, tuple(mine), wishes)
        finally:
            with self._lock:
                self._free += mine
                self._lock.notify_all()


def play(
    names: Sequence[str], target: Target, wishes: Wishes, at_once: int, report: Callable[[Result], None]
) -> list[Result]:
    """Plays behaviours by name and reports each as it ends; then looks whether the server holds what it held before."""
    chosen = [CATALOGUE[name] for name in names]
    before = target.gauges()
    places = Places(target)
    at_once = min(at_once, max(1, len(target.accounts) // ACCOUNTS))
    quick = sorted((entry for entry in chosen if entry.kind != "load"), key=lambda entry: not entry.slow)
    with ThreadPoolExecutor(at_once) as pool:
        running: list[Future[Result]] = [pool.submit(_play, entry, places, wishes, report) for entry in quick]
        results = [future.result() for future in running]
    results += [_play(entry, places, wishes, report) for entry in chosen if entry.kind == "load"]
    order = {name: place for place, name in enumerate(names)}
    results.sort(key=lambda result: order[result.name])
    if target.metrics:
        results.append(_leftovers(target, before))
        report(results[-1])
    return results


def _play(entry: Behaviour, places: Places, wishes: Wishes, report: Callable[[Result], None]) -> Result:
    accounts = len(places.target.accounts) if entry.kind == "load" else min(ACCOUNTS, len(places.target.accounts))
    with places.lent(wishes, accounts) as world:
        began = time.monotonic()
        outcome: Outcome = "passed"
        try:
            remark = entry.play(world) or ""
            if entry.kind == "misbehaviour":
                world.served()
        except Skipped as reason:
            outcome, remark = "skipped", str(reason)
        except (SippError, OSError) as error:
            outcome, remark = "failed", str(error)
        seconds = round(time.monotonic() - began, 1)
    result = Result(entry.name, entry.kind, entry.shows, entry.by, outcome, seconds, remark)
    report(result)
    return result


def _leftovers(target: Target, before: dict[str, float]) -> Result:
    began = time.monotonic()
    left = settled(target, before, LEFTOVER_SECONDS)
    remark = ", ".join(f"{name} +{value:g}" for name, value in sorted(left.items())) or "all gauges as before"
    shows = "No dialog, transaction, subscription, registration, connection, group or port is held any more."
    seconds = round(time.monotonic() - began, 1)
    return Result(
        LEFTOVERS, "misbehaviour", shows, "RFC 3261 section 17", "failed" if left else "passed", seconds, remark
    )


def written(results: Sequence[Result], path: Path) -> None:
    """Writes the results as JSON: {"results": [{name, kind, shows, by, outcome, seconds, remark}]}."""
    path.write_text(json.dumps({"results": [asdict(result) for result in results]}, indent=1) + "\n")
