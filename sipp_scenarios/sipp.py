"""Runs SIPp (Debian package sip-tester) with one of our scenario files and reads back what went over the wire."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from sipp_scenarios.ports import free_ports
from sipp_scenarios.scenarios import SCENARIOS

Transport = Literal["udp", "tcp"]
Found = TypeVar("Found")


class SippError(AssertionError):
    """The scenario did not run as written, or SIPp is missing; the text holds SIPp's errors and the last messages."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who calls: a number and its password."""

    number: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Traced:
    """One SIP message as SIPp saw it, `at` Unix seconds."""

    sent: bool
    text: str
    at: float

    @property
    def start_line(self) -> str:
        """The request or status line."""
        return self.text.split("\n", 1)[0].strip()

    def header(self, name: str) -> str:
        """The value of a header, "" when it is not there."""
        found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*?)\s*$", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Load:
    """How many calls, how fast (calls a second), how many at once, and how long each is held (seconds)."""

    calls: int = 1
    rate: float = 10.0
    at_once: int = 50
    hold: float = 5.0


class Sipp:
    """One SIPp process; use it as a context manager, or `run()` for a scenario that ends by itself."""

    def __init__(
        self,
        scenario: str,
        server: str,
        rows: Sequence[tuple[Account, str]],
        *,
        load: Load | None = None,
        transport: Transport = "udp",
        local_port: int | None = None,
        host: str | None = None,
        media_ports: tuple[int, int] = (9, 9),
        keys: dict[str, str] | None = None,
        trace: bool = True,
        through: str | None = None,
    ) -> None:
        """`rows` are who calls whom (account, dialled number), taken in turn; `server` is HOST:PORT.

        `host` is the local address, the loopback's usual one unless given. `media_ports` are the audio and video ports
        of the offer. `trace` keeps every message (not for load). `through` is HOST:PORT where all
        is sent instead of to the server.
        """
        program = shutil.which("sipp")
        if program is None:
            raise SippError("sipp is not installed: apt-get install sip-tester")
        load, self.host = load or Load(), host or local_host(server)
        self.scenario, self._trace = scenario, trace
        self.folder = Path(tempfile.mkdtemp(prefix=f"sipp-{scenario}-"))
        self.local_port = local_port or free_ports()
        lines = [f"{account.number};{_login(account)};{escaped(target)}" for account, target in rows]
        (self.folder / f"{scenario}.xml").write_text(SCENARIOS[scenario].xml(load.hold))
        (self.folder / "rows.csv").write_text("\n".join(["SEQUENTIAL", *lines, ""]))
        every_key = {"audio_port": str(media_ports[0]), "video_port": str(media_ports[1]), **(keys or {})}
        options = {
            "-sf": f"{scenario}.xml",
            "-inf": "rows.csv",
            "-i": self.host,
            "-p": str(self.local_port),
            "-mi": self.host,
            "-mp": str(free_ports(4)),
            "-m": str(load.calls),
            "-r": f"{load.rate:g}",
            "-l": str(load.at_once),
            "-t": "u1" if transport == "udp" else "t1",
            "-error_file": "errors.txt",
            "-screen_file": "screen.txt",
            "-message_file": "messages.txt",
        }
        flags = ["-nostdin", "-trace_err", "-trace_screen", *(["-trace_msg"] if trace else [])]
        flags += [] if trace else ["-trace_stat", "-stf", "stat.csv", "-fd", "3600", "-trace_rtt", "-rtt_freq", "1"]
        self._command = [program, server, *flags, *(["-rsa", through] if through else [])]
        self._command += [word for option in options.items() for word in option]
        self._command += [word for name, value in every_key.items() for word in ("-key", name, value)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if error is not None and not isinstance(error, SippError):
            error.add_note(self._story())
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def process_id(self) -> int:
        """Of the SIPp that runs."""
        return self._process.pid

    def finished(self, within: float) -> list[Traced]:
        """Waits for the last call and returns the messages. Raises SippError if one call did not go as written."""
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise SippError(f"{self.scenario}: not over after {within:g} s\n{self._story()}") from None
        if status != 0:
            raise SippError(f"{self.scenario}: failed (SIPp says {status})\n{self._story()}")
        return self.messages()

    def failed(self, within: float) -> int:
        """Waits for the last call of a load (`trace` off) and returns how many did not go as written."""
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise SippError(f"{self.scenario}: not over after {within:g} s\n{self._story()}") from None
        lines = self._read("stat.csv").splitlines()
        if status not in (0, 1) or len(lines) < 2:
            raise SippError(f"{self.scenario}: SIPp says {status}\n{self._story()}")
        return int(lines[-1].split(";")[lines[0].split(";").index("FailedCall(C)")])

    def response_times(self) -> list[float]:
        """Of a load (`trace` off): milliseconds from each first request to the answer wanted, sorted."""
        times = next(iter(self.folder.glob("*_rtt.csv")), None)
        lines = times.read_text().splitlines()[1:] if times else []
        return sorted(float(line.split(";")[1]) for line in lines if line.count(";") >= 2)

    def hang_up(self) -> None:
        """Tells a phone that talks, or is subscribed, that the holding time is over (UDP). Raises SippError."""
        self.tell("HANGUP")

    def tell(self, word: str) -> None:
        """Sends the phone a request that its scenario waits for, in the dialog that was answered. Raises SippError."""
        last = self.received("SIP/2.0 200")
        headers = [f"From: {last.header('To')}", f"To: {last.header('From')}", f"Call-ID: {last.header('Call-ID')}"]
        start = [f"{word} sip:phone SIP/2.0", f"Via: SIP/2.0/UDP {self.host}:9;branch=z9hG4bK{time.monotonic_ns()}"]
        text = "\r\n".join([*start, *headers, f"CSeq: 999 {word}", "Content-Length: 0", "", ""])
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), (self.host, self.local_port))

    def messages(self) -> list[Traced]:
        """Every SIP message sent and received so far, in order."""
        text = self._read("messages.txt")
        parts = re.split(r"^-{40,} (.*)\n(?:UDP|TCP) message (sent|received) .*\n\n", text, flags=re.MULTILINE)
        return [
            Traced(sent == "sent", body, datetime.fromisoformat(at.strip()).timestamp())
            for at, sent, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
        ]

    def received(self, start: str, within: float = 10.0) -> Traced:
        """Waits for the first message received whose start line begins so, e.g. "SIP/2.0 200" or "BYE"."""
        return self.wait(
            f"message {start!r}",
            within,
            lambda: next((m for m in self.messages() if not m.sent and m.start_line.startswith(start)), None),
        )

    def quiet(self, seconds: float, within: float = 20.0) -> None:
        """Waits until nothing was sent or received for so long. Raises SippError."""
        self.wait("silence", within, lambda: time.time() - self.messages()[-1].at > seconds or None)

    def wait(self, what: str, within: float, look: Callable[[], Found | None]) -> Found:
        """Looks until there is something. Raises SippError when time is up or SIPp has ended without it."""
        deadline = time.monotonic() + within
        while True:
            ended = self._process.poll() is not None
            found = look()
            if found is not None:
                return found
            if ended or time.monotonic() > deadline:
                raise SippError(f"{self.scenario}: no {what}\n{self._story()}")
            time.sleep(0.02)

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _story(self) -> str:
        errors = self._read("errors.txt")[-3000:]
        if not errors and self._process.poll() is not None and self._process.stderr is not None:
            errors += self._process.stderr.read().decode(errors="replace")[-2000:]
        trace = "\n".join(f"{'->' if m.sent else '<-'} {m.start_line}" for m in self.messages()[-30:])
        return f"{errors}\n{trace}"


def run(sipp: Sipp, within: float = 30.0) -> list[Traced]:
    """Runs a scenario to its end. Raises SippError."""
    with sipp:
        return sipp.finished(within)


def local_host(server: str) -> str:
    """Our address from which a HOST:PORT is reached."""
    host, _, port = server.rpartition(":")
    with socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host.strip("[]"), int(port)))
        return str(probe.getsockname()[0])


def escaped(dialled: str) -> str:
    """A dialled string as user part of a SIP URI: `#` must be escaped (RFC 3261 section 25.1)."""
    return dialled.replace("#", "%23")


def _login(account: Account) -> str:
    return f"[authentication username={account.number} password={account.password}]"
