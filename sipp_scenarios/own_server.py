"""The server under test: one started for the suite on free loopback ports, or whatever `--server` names."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import yaml

from sipp_scenarios.sipp import Account, SippError

NUMBERS: Final = range(2001, 2201)
PRIVATE: Final = "7001"
"""The service number for broadcasts that only listed viewers see; nobody is listed."""
WITH_PIN: Final = "7002"
"""The service number whose viewers are asked for `PIN`."""
PIN: Final = "4711"
START_SECONDS: Final = 60.0
"""Starting takes three to five seconds of one core, mostly imports; where ten share two cores, half a minute."""
GAUGES: Final = (
    "dialcast_broadcasts",
    "dialcast_viewers",
    "dialcast_subscriptions",
    "dialcast_registered_contacts",
    "dialcast_sip_connections",
    "dialcast_sip_dialogs",
    "dialcast_sip_early_dialogs",
    "dialcast_sip_transactions",
    "dialcast_relay_groups",
    "dialcast_relay_legs",
    "dialcast_relay_ports",
)
"""What must be as it was once every phone has gone."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that phones call. `tcp`, `metrics` and `own` are of a server we started: its settings are known."""

    udp: str
    tcp: str
    accounts: tuple[Account, ...]
    metrics: tuple[str, ...] = ()
    own: bool = False

    def gauges(self) -> dict[str, float]:
        """What the server holds, by metric; empty where it cannot be asked."""
        held: dict[str, float] = {}
        for name, value in self.samples():
            base = name.partition("{")[0]
            if base in GAUGES:
                held[base] = held.get(base, 0.0) + value
        return held

    def counter(self, sample: str) -> float:
        """One sample of `/metrics` by its whole name with labels; 0 when it has not been counted."""
        return sum(value for name, value in self.samples() if name == sample)

    def samples(self) -> list[tuple[str, float]]:
        """Every sample of `/metrics`: name with labels, value."""
        found: list[tuple[str, float]] = []
        for place in self.metrics:
            with urllib.request.urlopen(f"http://{place}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            found += [
                (name, float(value)) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] != "#"
            ]
        return found


def sample_accounts(numbers: str, password: str | None) -> tuple[Account, ...]:
    """Accounts from `1001-1009` or `1001,1005`; passwords of sample subscribers follow from their numbers."""
    found: list[str] = []
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return tuple(Account(number, password or f"dialcast-{number}") for number in found)


class OwnServer:
    """`dialcast up` on free loopback ports with many subscribers; a context manager that gives the `Target`."""

    def __init__(self, changed: Mapping[str, object] | None = None) -> None:
        """`changed` are whole sections of the configuration, by name, to have instead of the suite's."""
        self._changed = changed or {}

    def __enter__(self) -> Target:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sipp-server-")))
            (folder / "server.yaml").write_text(yaml.safe_dump({**_settings(folder), **self._changed}))
            log = stack.enter_context((folder / "log.txt").open("w"))
            command = [sys.executable, "-m", "dialcast", "up", "--config", str(folder / "server.yaml")]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
            stack.callback(self._stop)
            ready = self._ready()
            if ready is None:
                raise SippError("the server did not start:\n" + (folder / "log.txt").read_text()[-2000:])
            self._stack = stack.pop_all()
        return ready

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _ready(self) -> Target | None:
        assert self._process.stdout is not None
        slow = threading.Timer(START_SECONDS, self._process.kill)
        slow.start()
        try:
            for line in self._process.stdout:
                if line.startswith("ready "):
                    words = dict(word.split("=", 1) for word in line.split()[1:])
                    sip = dict(entry.split(":", 1) for entry in words["sip"].split(","))
                    metrics = tuple(words[key] for key in ("metrics", "relay-metrics") if key in words)
                    accounts = sample_accounts(f"{NUMBERS[0]}-{NUMBERS[-1]}", None)
                    return Target(sip["udp"], sip["tcp"], accounts, metrics, own=True)
        finally:
            slow.cancel()
        return None

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _settings(folder: Path) -> dict[str, object]:
    """The shipped defaults, but for what a suite must not wait for, or could not see."""
    return {
        "data_dir": str(folder / "data"),
        "subscribers": [{"number": str(number), "password": f"dialcast-{number}"} for number in NUMBERS],
        "services": [
            {"number": "8888"},
            {"number": PRIVATE, "viewers": "listed"},
            {"number": WITH_PIN, "viewers": "listed", "pin": PIN},
        ],
        "sip": {"port": 0, "message_timeout": 2, "connection_first_message_timeout": 3},
        "xcap": {"port": None},
        "operations": {"as_port": 0, "relay_port": 0},
        "security": {"never_block": [], "failures_before_block": 5, "delay_max": 0},
        "log": {"level": "warning"},
    }


def settled(target: Target, before: dict[str, float], within: float) -> dict[str, float]:
    """Waits until the server holds no more than `before`; what it still holds beyond that, by metric."""
    deadline = time.monotonic() + within
    while True:
        now = target.gauges()
        beyond = {name: value - before.get(name, 0.0) for name, value in now.items() if value > before.get(name, 0.0)}
        if not beyond or time.monotonic() > deadline:
            return beyond
        time.sleep(0.5)
