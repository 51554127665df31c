"""Two of everything for a test: PostgreSQL, Kamailio as edge, application servers and relays, each a real process.

Each has a loopback address of its own, as hosts would; the phones are on 127.0.0.1.
"""

import glob
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from evented import ROOT, Evented, ProcessError

from sipp_scenarios.own_server import START_SECONDS
from sipp_scenarios.ports import free_ports

EDGE_CONFIGURATION = ROOT / "docs" / "kamailio" / "kamailio.cfg"
EDGE_HOST = "127.0.0.5"
SERVER_HOSTS = ("127.0.0.6", "127.0.0.7")
LEASE = 3
"""Seconds; less than what is shipped, to save time."""
POSTGRES_USER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""


class PostgreSQL:
    """A database server of its own, on a free port; `url` is what `store.url` wants.

    Its files are not in pytest's folder, which is for root alone.
    """

    def __init__(self) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        if not found:
            raise ProcessError("PostgreSQL is not installed: apt-get install postgresql")
        self._bin = Path(found[-1]).parent
        self._folder = Path(tempfile.mkdtemp(prefix="dialcast-postgresql-"))
        self._as_user = ["runuser", "-u", POSTGRES_USER, "--"] if os.geteuid() == 0 else []
        self.port = free_ports()
        self.url = f"postgresql+psycopg://{POSTGRES_USER}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        if self._as_user:
            shutil.chown(self._folder, POSTGRES_USER)
        data = self._folder / "data"
        made = subprocess.run(
            [*self._as_user, self._bin / "initdb", "-D", data, "-U", POSTGRES_USER, "-A", "trust", "-N"],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise ProcessError(f"initdb: {made.stderr.decode()}")
        self.start()
        return self

    def start(self) -> None:
        """Begin to serve, again after `kill`."""
        settings = ["-p", str(self.port), "-k", "", "-h", "127.0.0.1", "-c", "fsync=off"]
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._bin / "postgres", "-D", self._folder / "data", *settings], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise ProcessError(f"PostgreSQL did not start: {(self._folder / 'postgres.log').read_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a crash would; what was committed is there again after `start`."""
        # pg_ctl tells postgres itself: runuser would not pass a signal on.
        subprocess.run(
            [*self._as_user, self._bin / "pg_ctl", "stop", "-D", self._folder / "data", "-m", "immediate", "-w"],
            capture_output=True,
            check=False,
        )
        self._process.wait(10)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder)


class Edge:
    """Kamailio with the configuration we ship, in front of application servers (HOST:PORT each)."""

    def __init__(self, folder: Path, servers: Sequence[str], *switches: str) -> None:
        """`switches` are more definitions of the configuration."""
        program = shutil.which("kamailio")
        if program is None:
            raise ProcessError("kamailio is not installed: apt-get install kamailio")
        folder.mkdir()
        (folder / "dispatcher.list").write_text("".join(f"1 sip:{server}\n" for server in servers))
        self.address = f"{EDGE_HOST}:{free_ports()}"
        """The same port by UDP and TCP."""
        self.serving = b"SIP/2.0 2"
        """How its answer to OPTIONS begins once it is ready."""
        self._log = folder / "kamailio.log"
        self._command = [program, "-DD", "-f", str(EDGE_CONFIGURATION), "-m", "64", "-Y", str(folder)]
        self._command += ["-A", "WITH_TCP", "-A", f"EDGE_TCP=tcp:{self.address}", "-A", f"EDGE=udp:{self.address}"]
        for switch in (f'SERVERS="{folder}/dispatcher.list"', *switches):
            self._command += ["-A", switch]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        host, _, port = self.address.partition(":")
        deadline = time.monotonic() + 15
        while not _options(host, int(port)).startswith(self.serving):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__(None, None, None)
                raise ProcessError(f"kamailio did not start: {self._log.read_text()[-3000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self._log.read_text()[-3000:])
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _options(host: str, port: int) -> bytes:
    """What the edge answers to OPTIONS: it passes them on. Nothing if it takes long."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        probe.settimeout(0.3)
        here = f"127.0.0.1:{probe.getsockname()[1]}"
        lines = [
            f"OPTIONS sip:{host}:{port} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{time.monotonic_ns()};rport",
            "Max-Forwards: 70",
            f"From: <sip:probe@{here}>;tag=1",
            f"To: <sip:{host}:{port}>",
            f"Call-ID: {time.monotonic_ns()}",
            "CSeq: 1 OPTIONS",
            "Content-Length: 0",
        ]
        probe.sendto("\r\n".join([*lines, "", ""]).encode(), (host, port))
        try:
            return probe.recv(2000)
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.1)
            return b""


class Relay(Evented):
    """`dialcast relay`; `control` is the address application servers dial."""

    def __init__(self, ports: int) -> None:
        settings = {"RELAY__PORT_MIN": str(ports), "RELAY__PORT_MAX": str(ports + 999), "LOG__FORMAT": "json"}
        settings |= {"CONTROL__TOKEN": "cluster", "OPERATIONS__RELAY_PORT": "0"}
        super().__init__("relay", environment={f"DIALCAST_{key}": value for key, value in settings.items()})

    def __enter__(self) -> Self:
        super().__enter__()
        self.control = self.wait(
            "ready line", START_SECONDS, lambda: next(filter(None, map(_control, self.output)), None)
        )
        return self


class ApplicationServer(Evented):
    """`dialcast as` on a loopback address of its own, with the store and the relays of the others."""

    def __init__(self, name: str, host: str, store: str, relays: Sequence[str], data: Path) -> None:
        self.address = f"{host}:{free_ports()}"
        settings = {
            "AS_ID": name,
            "CLUSTER__LEASE": str(LEASE),
            "DATA_DIR": str(data),
            "DOMAIN_ALIASES": f"[{EDGE_HOST}]",
            "SIP__BIND": host,
            "SIP__PORT": self.address.rpartition(":")[2],
            "SIP__EDGE_PROXIES": f"[{EDGE_HOST}]",
            "STORE__URL": store,
            "CONTROL__CONNECT": f"[{', '.join(repr(relay) for relay in relays)}]",
            "CONTROL__TOKEN": "cluster",
            "LOG__FORMAT": "json",
            "OPERATIONS__AS_PORT": "0",
            "XCAP__PORT": "0",
        }
        super().__init__("as", environment={f"DIALCAST_{key}": value for key, value in settings.items()})

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait(
            "ready line", START_SECONDS, lambda: next((line for line in self.output if line.startswith("ready ")), None)
        )
        return self


class Cluster:
    """Two application servers behind the edge, two relays, one database; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            database = self.database = stack.enter_context(PostgreSQL())
            self.relays = [stack.enter_context(Relay(ports)) for ports in (21_000, 22_000)]
            controls = [relay.control for relay in self.relays]
            self.servers = [
                stack.enter_context(
                    ApplicationServer(f"as{place}", host, database.url, controls, self._folder / f"as{place}")
                )
                for place, host in enumerate(SERVER_HOSTS, 1)
            ]
            self.edge = stack.enter_context(
                Edge(self._folder / "kamailio", [server.address for server in self.servers])
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _control(line: str) -> str | None:
    found = re.search(r"ready control=(\S+)", line)
    return found[1] if found else None
