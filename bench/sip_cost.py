"""`python -m bench.sip_cost`: CPU time of the application server per registration and per call, under SIPp.

A server of its own runs with shipped defaults; its process's user and system time (/proc/PID/stat) is read before and
after each load, the time it takes when idle subtracted. Each load runs in rounds and the cheapest counts: what else the
machine does only ever makes it dearer. A registration is REGISTER, 401, REGISTER, 200; a code call is
INVITE, 407, ACK, INVITE, 200, ACK, BYE, 200; a watching call also has the 181, the leg at the relay, and its removal.
"""

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sipp_scenarios.behaviours import Call
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, run

TICKS = os.sysconf("SC_CLK_TCK")
SUBSCRIBERS = [Account(str(number), f"dialcast-{number}") for number in range(1002, 1010)]
BROADCASTER = Account("1001", "dialcast-1001")
CLIENTS = [f"127.0.0.{host}" for host in range(2, 6)]
"""Addresses the load comes from: the shipped limit of requests a second is one address's."""
REGISTRATIONS_PER_SECOND = 80.0
CALLS_PER_SECOND = 20.0
"""From each client. At a trickle one would mostly measure how cold the processor's caches are."""
IDLE_SECONDS = 2.0
FORWARDED_AFTER = 3.0
"""Seconds after which the server has forwarded a stock phone's number that is live."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of the application server for `count` repetitions, idle time subtracted."""

    what: str
    count: int
    cpu_ms: float

    @property
    def each_ms(self) -> float:
        """Milliseconds of CPU per repetition."""
        return self.cpu_ms / self.count


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens and the process id of its application server."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far (proc(5): fields 14 and 15 of stat, in clock ticks)."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / TICKS


@contextmanager
def running(data: Path) -> Iterator[Server]:
    """`dialcast up` with shipped defaults on free loopback ports."""
    command = [sys.executable, "-m", "dialcast", "up", "--bind", "127.0.0.1", "--sip-port", "0", "--log-format", "json"]
    log = data / "events.jsonl"
    with log.open("wb") as events:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data / "server")], stdout=subprocess.PIPE, stderr=events
        )
        try:
            assert process.stdout is not None
            ready = re.search(rb"sip=udp:([^,]+),", process.stdout.readline())
            if ready is None:
                raise SystemExit(f"the server did not start: {log.read_text()[-2000:]}")
            started = next(e for e in map(json.loads, log.open()) if _is_application_server(e))
            yield Server(ready[1].decode(), int(started["pid"]))
        finally:
            process.terminate()
            process.wait(15)


def _is_application_server(event: dict[str, object]) -> bool:
    return event.get("event") == "process.started" and event.get("name") == "as"


@dataclass(frozen=True, slots=True)
class Meter:
    """Attributes CPU to loads; `idle` is CPU seconds a second without any."""

    server: Server
    count: int
    rounds: int
    idle: float

    def cost(self, what: str, load: Callable[[int], None]) -> Cost:
        """The cheapest of the rounds, `count` repetitions each."""
        return min((self._round(what, load) for _ in range(self.rounds)), key=lambda cost: cost.cpu_ms)

    def _round(self, what: str, load: Callable[[int], None]) -> Cost:
        before, began = self.server.cpu_seconds(), time.monotonic()
        load(self.count)
        spent = self.server.cpu_seconds() - before - self.idle * (time.monotonic() - began)
        return Cost(what, self.count, 1000 * spent)


def registrations(server: Server) -> Callable[[int], None]:
    """Digest registrations of eight numbers in turn."""

    def load(count: int) -> None:
        _sipp(server, "register", "", Load(count, REGISTRATIONS_PER_SECOND, 200), {"expires": "600"})

    return load


def calls(server: Server, scenario: str, target: str) -> Callable[[int], None]:
    """Calls by eight numbers in turn, held for a tenth of a second where the caller hangs up."""

    def load(count: int) -> None:
        _sipp(server, scenario, target, Load(count, CALLS_PER_SECOND, 200, hold=0.1), {})

    return load


def _sipp(server: Server, scenario: str, target: str, load: Load, keys: dict[str, str]) -> None:
    """The load, shared among the clients, each with two numbers of its own."""
    share = replace(load, calls=load.calls // len(CLIENTS))

    def client(place: int) -> None:
        rows = [(account, target) for account in SUBSCRIBERS[place :: len(CLIENTS)]]
        media = free_ports(2), free_ports(2)
        sipp = Sipp(
            scenario,
            server.address,
            rows,
            load=share,
            keys=keys,
            host=CLIENTS[place],
            media_ports=media,
            trace=False,
        )
        run(sipp, share.calls / share.rate + 60)

    with ThreadPoolExecutor(len(CLIENTS)) as clients:
        list(clients.map(client, range(len(CLIENTS))))


def measure_all(count: int, rounds: int, data: Path) -> list[Cost]:
    """Every figure, after a short warm-up."""
    with running(data) as server:
        registrations(server)(50)
        before = server.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        meter = Meter(server, count, rounds, (server.cpu_seconds() - before) / IDLE_SECONDS)
        costs = [
            meter.cost("digest REGISTER", registrations(server)),
            meter.cost("code call (*#21#, reads)", calls(server, "code", "*#21#")),
            meter.cost("code call (*21*1001#, writes)", calls(server, "code", "*21*1001#")),
        ]
        calls(server, "code", "##21#")(len(SUBSCRIBERS))
        seconds = rounds * (count / CALLS_PER_SECOND / len(CLIENTS) + 10) + 30
        with Call("go_live", server.address, BROADCASTER, "8888", hold=seconds, voice=_tone(data)) as live:
            live.answered()
            time.sleep(FORWARDED_AFTER)
            costs.append(meter.cost("watching call", calls(server, "watch", "1001")))
    return costs


def _tone(folder: Path) -> Path:
    path = folder / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<20h", *[8000] * 10, *[-8000] * 10) * 400)
    return path


def main() -> None:
    """Prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m bench.sip_cost", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=500, help="repetitions in a round (500)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of that many, the cheapest counts (3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_all(options.count, options.rounds, Path(folder))
    if options.json:
        print(json.dumps([{**asdict(cost), "each_ms": round(cost.each_ms, 3)} for cost in costs]))
        return
    print(f"{'':<32}{'count':>8}{'CPU ms':>10}{'each ms':>10}")
    for cost in costs:
        print(f"{cost.what:<32}{cost.count:>8}{cost.cpu_ms:>10.0f}{cost.each_ms:>10.2f}")


if __name__ == "__main__":
    main()
