"""Runs `dialcast up` on free loopback ports for a test: addresses from its ready line, events, a way to kill parts."""

import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from evented import Evented

from sipp_scenarios.own_server import START_SECONDS
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account

PASSWORDS = {str(number): f"dialcast-{number}" for number in range(1001, 1010)}
"""The sample subscribers of a server without configuration."""


def account(number: str) -> Account:
    """A sample subscriber, for SIPp."""
    return Account(number, PASSWORDS[number])


class Server(Evented):
    """A dialcast server with the sample subscribers 1001-1009; use it as a context manager."""

    def __init__(
        self,
        data: Path,
        *,
        bind: str = "127.0.0.1",
        config: Path | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int | None = None,
    ) -> None:
        """`settings` overrides single keys, as SECTION.FIELD: {"relay.leg_timeout": "3"}."""
        # Not any port: while the server is down that was killed, a stranger could be given it.
        arguments = ["up", "--bind", bind, "--sip-port", str(free_ports()), "--data-dir", str(data)]
        if config is not None:
            arguments += ["--config", str(config)]
        if workers is not None:
            arguments += ["--workers", str(workers)]
        overrides = {"log.format": "json", **(settings or {})}
        environment = {f"DIALCAST_{key.replace('.', '__').upper()}": value for key, value in overrides.items()}
        super().__init__(*arguments, environment=environment)
        self.data = data

    def __enter__(self) -> Self:
        super().__enter__()
        begun = time.monotonic()
        try:
            ready = self.wait("ready line", START_SECONDS, lambda: next(filter(None, map(_ready, self.output)), None))
        except BaseException:
            self.kill_all()
            raise
        self.seconds_to_start = time.monotonic() - begun
        """That is with both parts, one after the other."""
        self.addresses, self.service = ready
        self.udp, self.tcp = self.addresses["udp"], self.addresses["tcp"]
        return self

    @property
    def address(self) -> str:
        """HOST:PORT of SIP over UDP."""
        return self.udp

    def uri(self, number: str) -> str:
        """The SIP URI of one of its numbers."""
        return f"sip:{number}@{self.udp}"

    def part(self, name: str) -> int:
        """The process id of the running `as` or `relay`, or of the worker `relay1`."""
        self.event("process.started", name=name)
        return int(self.all_events("process.started", name=name)[-1]["pid"])

    def kill_part(self, name: str) -> int:
        """Kills one part as a crash would and returns its process id; the supervisor starts it again."""
        killed = self.part(name)
        os.kill(killed, signal.SIGKILL)
        return killed

    def restarted(self, name: str, killed: int, within: float = START_SECONDS) -> int:
        """Waits until the part whose process `killed` was runs again, the `as` until it serves; its new process id."""

        def serving() -> int | None:
            (pid, place), *_ = [
                (int(event["pid"]), place)
                for place, event in reversed(list(enumerate(self.events)))
                if event["event"] == "process.started" and event["name"] == name
            ]
            ready = name != "as" or any(event["event"] == "server.started" for event in self.events[place:])
            return pid if pid != killed and ready else None

        return self.wait(f"new {name}", within, serving)


def _ready(line: str) -> tuple[dict[str, str], str] | None:
    """HOST:PORT by transport, and the service number."""
    found = re.fullmatch(r"ready sip=(\S+) service=(\d+)(?: .*)?", line)
    return (dict(entry.split(":", 1) for entry in found[1].split(",")), found[2]) if found else None
