"""The servers under load, each alone on one processor core: dialcast as shipped, and Kamailio in its two tongues.

Kamailio (Debian `kamailio`, `kamailio-sqlite-modules`, `kamailio-python3-modules`) does the same work with the same
guarantees: digest authentication from a database with counted nonces, registrations written through to it (`db_mode`
1), SQLite in WAL mode with its default `synchronous=FULL`, as dialcast has it. What differs: Kamailio keeps all
registrations in memory and commits each one by itself, dialcast commits together what comes within 10 ms; dialcast
hangs up a call to a service code, where Kamailio waits for the caller's BYE; only dialcast logs registrations and
codes and counts for `/metrics`; Kamailio has one worker.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Final

from bench.machine import BenchError, cpu_seconds, resident_bytes, stop
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account

CONFIGURATIONS: Final = Path(__file__).parent / "kamailio"
SCHEMAS: Final = Path("/usr/share/kamailio/db_sqlite")
REALM: Final = "dialcast.internal"
HOST: Final = "127.0.0.1"
SERVER_CORE: Final = 0
START_WITHIN: Final = 10.0
STOP_WITHIN: Final = 20.0


Running = Callable[[Path, list[Account]], AbstractContextManager["Server"]]
"""Starts a server with these accounts in a folder of its own."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens and which processes' CPU time and memory count as its own."""

    address: str
    pids: tuple[int, ...]
    metrics: str = ""
    """HOST:PORT of dialcast's own figures."""

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return cpu_seconds(self.pids)

    def gauge(self, name: str) -> float:
        """One of dialcast's figures."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def resident_bytes(self) -> int:
        """Memory that is really there."""
        return resident_bytes(self.pids)


@contextmanager
def dialcast(
    folder: Path, accounts: list[Account], settings: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[Server]:
    """`dialcast up` with shipped defaults but for free ports, and for `settings` by section; data in `folder`/data.

    The application server is alone on its core, and it alone is measured.
    """
    data = folder / "data"
    seeds = [{"number": account.number, "password": account.password} for account in accounts]
    ports = {"operations": {"as_port": 0, "relay_port": 0}, "xcap": {"port": 0}}
    written = {"subscribers": seeds, **ports, **(settings or {})}
    (folder / "dialcast.yaml").write_text(json.dumps(written))  # JSON is YAML
    command = [sys.executable, "-m", "dialcast", "up", "--config", str(folder / "dialcast.yaml"), "--sip-port", "0"]
    log = folder / "events.jsonl"
    with log.open("wb") as events:
        process = subprocess.Popen(
            [*command, "--log-format", "json", "--data-dir", str(data)], stdout=subprocess.PIPE, stderr=events
        )
        try:
            assert process.stdout is not None
            ready = re.search(rb"sip=udp:([^, ]+).* metrics=(\S+)", process.stdout.readline())
            if ready is None:
                raise BenchError(f"dialcast did not start: {log.read_text()[-2000:]}")
            started = (event for event in map(json.loads, log.open()) if event.get("event") == "process.started")
            pid = next(int(event["pid"]) for event in started if event.get("name") == "as")
            _pin(pid)
            yield Server(ready[1].decode(), (pid,), ready[2].decode())
        finally:
            stop(process, STOP_WITHIN)


@contextmanager
def kamailio(folder: Path, accounts: list[Account], tongue: str) -> Iterator[Server]:
    """Kamailio with the logic in `native` script or `scripted` in Python."""
    program = shutil.which("kamailio")
    if program is None or not SCHEMAS.is_dir():
        raise BenchError(
            "kamailio is missing: apt-get install kamailio kamailio-sqlite-modules kamailio-python3-modules"
        )
    port, database = free_ports(), folder / "kamailio.db"
    _database(database, accounts)
    words = {"HOST": HOST, "PORT": str(port), "DATABASE": str(database), "REALM": REALM, "FOLDER": str(folder)}
    words["COMMON"] = _filled("common.cfg", words)
    (folder / f"{tongue}.cfg").write_text(_filled(f"{tongue}.cfg", words))
    if tongue == "scripted":
        (folder / "scripted.py").write_text(_filled("scripted.py.in", words))
    command = [program, "-DD", "-f", f"{tongue}.cfg", "-m", "512", "-M", "16", "-w", str(folder)]
    with (folder / "kamailio.log").open("wb") as log:
        process = subprocess.Popen([*command, "-Y", str(folder)], cwd=folder, stdout=log, stderr=log)
        try:
            pids = _workers(process, folder / "kamailio.log")
            for pid in pids:
                _pin(pid)
            yield Server(f"{HOST}:{port}", pids)
        finally:
            stop(process, STOP_WITHIN)


def _filled(name: str, words: Mapping[str, str]) -> str:
    text = (CONFIGURATIONS / name).read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _database(path: Path, accounts: list[Account]) -> None:
    with sqlite3.connect(path) as connection:
        for part in ("standard", "auth_db", "usrloc"):
            connection.executescript((SCHEMAS / f"{part}-create.sql").read_text())
        connection.execute("create table forwardings (number text primary key, target text)")
        connection.execute("pragma journal_mode=wal")
        rows = [(account.number, REALM, _ha1(account)) for account in accounts]
        connection.executemany("insert into subscriber (username, domain, ha1) values (?, ?, ?)", rows)
    connection.close()


def _ha1(account: Account) -> str:
    return md5(f"{account.number}:{REALM}:{account.password}".encode()).hexdigest()


def _workers(process: subprocess.Popen[bytes], log: Path) -> tuple[int, ...]:
    """The main process and its children, once they stand."""
    deadline = time.monotonic() + START_WITHIN
    before: tuple[int, ...] = ()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if process.poll() is not None:
            raise BenchError(f"kamailio did not start: {log.read_text()[-2000:]}")
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = tuple(map(int, text.split()))
        if children and children == before:
            return (process.pid, *children)
        before = children
    raise BenchError(f"kamailio did not start within {START_WITHIN:g} s: {log.read_text()[-2000:]}")


def _pin(pid: int) -> None:
    """Every thread of the process to the server's core; SIPp has the others."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {SERVER_CORE})
