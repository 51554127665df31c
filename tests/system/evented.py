"""A subprocess of dialcast whose standard error is a log of JSON lines: collected, waited for, and stopped for sure."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

ROOT = Path(__file__).resolve().parents[2]
Found = TypeVar("Found")


class ProcessError(AssertionError):
    """The process did not do in time what the test waits for; carries the end of its output."""


class Evented:
    """One running `dialcast` command; use it as a context manager."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.arguments: Sequence[str] = arguments
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self.events: list[dict[str, Any]] = []
        self.output: list[str] = []
        """Lines of standard output."""
        self.noise: list[str] = []
        """Lines of standard error that are no events: tracebacks, a library's chatter."""
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dialcast", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=reader, daemon=True) for reader in (self._read_output, self._read_events)
        ]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, ProcessError):
            error.add_note(self._story())
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill_all()
                if error is None:
                    raise ProcessError(f"{self.arguments} did not stop within 10 s\n{self._story()}") from None
        self._kill_orphans()

    def kill_all(self) -> None:
        """Ends it and everything it started at once, as a power cut would."""
        self._kill_orphans()
        self.process.wait()

    def stop(self, within: float = 10.0) -> int:
        """SIGTERM; the exit status. Raises ProcessError when it is not out in time."""
        self.process.terminate()
        return self.exited(within)

    def exited(self, within: float) -> int:
        """Waits for its own end; the exit status."""
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.arguments} still runs after {within} s\n{self._story()}") from None
        for reader in self._readers:
            reader.join(2)
        return status

    def type_line(self, text: str) -> None:
        """Types a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def event(self, name: str, within: float = 10.0, /, **fields: Any) -> dict[str, Any]:
        """Waits for the first event `name` with these fields, which may have come already."""
        wanted = f"event {name} {fields or ''}"
        return self.wait(wanted, within, lambda: next(iter(self.all_events(name, **fields)), None))

    def all_events(self, name: str, /, **fields: Any) -> list[dict[str, Any]]:
        """The events `name` with these fields so far."""
        return [e for e in self.events if e.get("event") == name and fields.items() <= e.items()]

    def forget(self, name: str) -> None:
        """Drops the events `name` so far, so that the next one is waited for."""
        with self._changed:
            self.events = [event for event in self.events if event["event"] != name]

    def wait(self, what: str, within: float, look: Callable[[], Found | None]) -> Found:
        """Waits until `look` returns something; raises ProcessError when time is up or the process has ended."""
        deadline = time.monotonic() + within
        with self._changed:
            while (found := look()) is None:
                over = time.monotonic() > deadline
                gone = self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
                if over or gone:
                    why = f"it ended with {self.process.poll()}" if gone else f"{within} s are over"
                    raise ProcessError(f"{self.arguments}: no {what}: {why}\n{self._story()}")
                self._changed.wait(0.1)
            return found

    def _story(self) -> str:
        events = [json.dumps(event) for event in self.events[-40:]]
        return "\n".join([f"--- {' '.join(self.arguments)}", *self.output[-10:], *events, *self.noise[-60:]])

    def _kill_orphans(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()

    def _read_events(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = _event(line)
            with self._changed:
                if event is None:
                    self.noise.append(line.decode(errors="replace").rstrip())
                else:
                    self.events.append(event)
                self._changed.notify_all()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None
