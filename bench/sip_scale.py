"""`python -m bench.sip_scale`: do registrations and calls cost more where there are more of them, and how much memory?

Servers with 1,000, 10,000 and 100,000 subscribers registered in their stores run side by side on one core, beside one
with 1,000 that holds 10,000 calls open: viewers of thirteen broadcasts. Each in turn gets the same registrations, code
calls and calls to a phone, by accounts spread evenly over all it has; what these read is in its cache by then. Nobody
sends media, so for once `relay.leg_timeout` and `relay.unanswered_timeout` are an hour; all else is as shipped.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.machine import BenchError, described, keep_off_core, tell
from bench.sip_load.__main__ import Row, measured
from bench.sip_load.servers import SERVER_CORE, Server, dialcast
from bench.sip_load.works import CALLERS, FORWARDED_AFTER, Meter, Work, account, accounts, metered
from protocols.records import Binding
from provisioning.config import Config
from provisioning.store import Store
from provisioning.subscribers import make_subscriber
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Load, Sipp, SippError

WORKS: Final[tuple[Work, ...]] = ("register", "answered", "relayed")
SETTINGS: Final = {"relay": {"leg_timeout": 3600, "unanswered_timeout": 3600}}
CALLED: Final = frozenset(accounts()[CALLERS:])
"""Those who are called are not registered beforehand: a call would ring phones that are not there."""
BROADCASTS: Final = 13
ADDRESSES: Final = 8
CALLS_PER_SECOND: Final = 15.0
"""From each address: what a shipped server takes from one."""
TOUCHED: Final = 4_000
TRANSACTIONS_OVER: Final = 36.0
AN_HOUR: Final = 3600.0
AIM_PER_CENT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes: of one binding on disk and in the server's memory, of one call held in both."""

    binding_disk: float
    binding_memory: float
    dialog_disk: float
    dialog_memory: float


async def _preload(data: Path, count: int) -> float:
    """Subscribers and bindings, by the store's own means; bytes on disk a binding."""
    config = Config.model_validate({"data_dir": str(data)})
    database = data / "dialcast.db"
    sizes = []
    for bindings in (False, True):
        store = await Store.open(config)
        for first in range(0, count, 1000):
            wanted = [account(place) for place in range(first, min(first + 1000, count))]
            if bindings:
                away = [one for one in wanted if one not in CALLED]
                await asyncio.gather(*(store.location.replace(*_binding(one.number, config.domain)) for one in away))
            else:
                made = [make_subscriber(config, f"{one.number}@{config.domain}", one.password) for one in wanted]
                await asyncio.gather(*(store.credentials.put(one) for one in made))
        await store.close()
        sizes.append(database.stat().st_size)
    return (sizes[1] - sizes[0]) / count


def _binding(number: str, domain: str) -> tuple[str, list[Binding], list[str]]:
    """A phone as it registers: the arguments of `LocationStore.replace`."""
    aor, now = f"{number}@{domain}", time.time()
    flow = json.dumps(["udp", "127.0.0.1", 5060, "127.0.0.1", 9, 0, "another-run"], separators=(",", ":"))
    contact = f"sip:{number}@127.0.0.1:9;transport=UDP"
    return aor, [Binding(aor, contact, f"{number}@127.0.0.1", 1, now + 7200, flow=flow, received_at=now)], []


def _hold_calls(server: Server, dialogs: int, stack: ExitStack) -> None:
    """Broadcasts, and so many viewers altogether, who stay. Raises BenchError when they do not come about."""

    def phones(scenario: str, rows: list[tuple[int, str]], calls: int, host: str) -> None:
        media = free_ports(2), free_ports(2)
        load = Load(calls, CALLS_PER_SECOND, calls, hold=AN_HOUR)
        named = [(account(place), target) for place, target in rows]
        stack.enter_context(Sipp(scenario, server.address, named, load=load, host=host, media_ports=media, trace=False))

    live = range(CALLERS + 10, CALLERS + 10 + BROADCASTS)
    viewers = range(live.stop, 1000)
    phones("go_live", [(place, "8888") for place in live], BROADCASTS, "127.0.0.10")
    _until(server, "dialcast_sip_dialogs", BROADCASTS, 30)
    time.sleep(FORWARDED_AFTER)
    for place in range(ADDRESSES):
        rows = [(viewer, account(channel).number) for channel in live for viewer in viewers[place::ADDRESSES]]
        phones("watch", rows, dialogs // ADDRESSES, f"127.0.0.{11 + place}")
    _until(server, "dialcast_sip_dialogs", BROADCASTS + dialogs // ADDRESSES * ADDRESSES, 60 + dialogs / 40)


def _until(server: Server, gauge: str, wanted: int, within: float) -> None:
    deadline = time.monotonic() + within
    while (held := server.gauge(gauge)) < wanted:
        tell(f"{held:.0f} of {wanted} calls held")
        if time.monotonic() > deadline:
            raise BenchError(f"only {held:.0f} of {wanted} calls are held after {within:.0f} s")
        time.sleep(2)


def _binding_memory(meter: Meter, bindings: int) -> float:
    """Bytes a registration takes in the server's cache, nonce and all: what the second of two equal loads adds, each by
    accounts that were not heard of before, once the transactions are over; the first made room for those."""
    resident = []
    share = min(TOUCHED, bindings // 2)
    for first in (0, share):
        callers = tuple(account(place) for place in range(first, first + share))
        with replace(meter, callers=callers).ready("register", share) as work:
            if failed := work.load(share):
                raise BenchError(f"{failed} of {share} registrations failed")
        time.sleep(TRANSACTIONS_OVER)
        resident.append(meter.server.resident_bytes())
    return (resident[1] - resident[0]) / share


def _spread(meter: Meter, bindings: int, count: int) -> Meter:
    """The same with `count` accounts spread evenly over those there are."""
    return replace(meter, callers=tuple(account(place) for place in range(0, bindings, max(1, bindings // count))))


def scaled(
    bindings: Sequence[int], dialogs: int, works: Sequence[Work], count: int, rounds: int
) -> Iterator[Row | Sizes]:
    """Sizes, then every row; `server` names what the server has."""
    with ExitStack() as stack:
        meters: list[Meter] = []
        for number, held in [*((number, 0) for number in bindings), (bindings[0], dialogs)]:
            tell(f"{number} bindings, {held} calls")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "data").mkdir(mode=0o700)
            binding_disk = asyncio.run(_preload(folder / "data", number))
            server = stack.enter_context(dialcast(folder, [], SETTINGS))
            meter = metered(f"{number} bindings" + (f", {held} calls" if held else ""), server)
            before = server.resident_bytes()
            if held:
                disk = _bytes(folder)
                _hold_calls(server, held, stack)
                dialog = (_bytes(folder) - disk) / held, (server.resident_bytes() - before) / held
            elif number == max(bindings):
                binding = binding_disk, _binding_memory(meter, number)
            meters.append(_spread(meter, number, CALLERS))
        yield Sizes(*binding, *dialog)
        for meter in meters:  # so that each has in its cache what it will be asked for
            with meter.ready("register", CALLERS) as work:
                work.load(CALLERS)
        meters = [metered_again(meter) for meter in meters]
        yield from measured(meters, works, count, rounds)


def metered_again(meter: Meter) -> Meter:
    """With what it takes when idle now, its calls held."""
    began, before = time.monotonic(), meter.server.cpu_seconds()
    time.sleep(5)
    return replace(meter, idle=(meter.server.cpu_seconds() - before) / (time.monotonic() - began))


def _bytes(folder: Path) -> int:
    """Of the database, its log included."""
    return sum(path.stat().st_size for path in (folder / "data").glob("dialcast.db*"))


def main() -> int:
    """Prints a table; exit status 1 when a call failed, 2 when something is missing. Missing the aim is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench.sip_scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bindings", default="1000,10000,100000", help="numbers of registrations, 1000 at least")
    parser.add_argument("--dialogs", type=int, default=10_000, help="calls held, 10,000 at most (10000)")
    parser.add_argument("--works", default=",".join(WORKS), help=f"which work ({','.join(WORKS)})")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of 400 (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON as well")
    options = parser.parse_args()
    works = [work for work in WORKS if work in options.works.split(",")]
    bindings = [*map(int, options.bindings.split(","))]
    machine, rows, sizes = described(), list[Row](), dict[str, float]()
    keep_off_core(SERVER_CORE)
    base: dict[str, float] = {}
    try:
        for found in scaled(bindings, options.dialogs, works, 400, options.rounds):
            tell()
            if isinstance(found, Sizes):
                sizes = {name: round(getattr(found, name)) for name in Sizes.__slots__}
                print(f"bytes a binding: {found.binding_disk:.0f} on disk, {found.binding_memory:.0f} in memory")
                print(f"bytes a call held: {found.dialog_disk:.0f} on disk, {found.dialog_memory:.0f} in memory")
                print(f"{'work':<12}{'server':<32}{'CPU ms':>8}{'best':>8}{'change':>9}{'failed':>8}", flush=True)
                continue
            rows.append(found)
            change = 100 * (found.cpu_ms / base.setdefault(found.work, found.cpu_ms) - 1)
            figures = f"{found.cpu_ms:>8.2f}{found.best_cpu_ms:>8.2f}{change:>+8.1f}%{found.failed:>8}"
            missed = "  misses the aim" if change > AIM_PER_CENT else ""
            verdict = missed if found.counts else "  does not count"
            print(f"{found.work:<12}{found.server:<32}{figures}{verdict}", flush=True)
    except (BenchError, SippError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        results = [
            {"server": row.server, "work": row.work, "cpu_ms": row.cpu_ms, "failed": row.failed}
            | {"change_per_cent": round(100 * (row.cpu_ms / base[row.work] - 1), 1)}
            for row in rows
        ]
        story = {"results": results, "bytes": sizes, "machine": machine}
        options.json.write_text(json.dumps(story, indent=2) + "\n")
    return 0 if all(row.counts for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
