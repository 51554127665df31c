"""A running `dialcast` process of the demonstration: its events as they come, a keyboard, a sure end."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

STOP_PATIENCE = 10.0
MAX_LINE = 1 << 20

Event = dict[str, Any]
Found = TypeVar("Found")


class DemoError(Exception):
    """The demonstration cannot go on; the message says what did not happen."""


class Actor:
    """One process: `name` as the ladder shows it, `events` all it has reported on stderr as JSON lines."""

    def __init__(self, name: str, *arguments: str, log: Path) -> None:
        self.name = name
        self.events: list[Event] = []
        self.output: list[str] = []
        self._arguments = arguments
        self._log = log
        self._news = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the process and begin to listen."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dialcast", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(self.process.stdout, self.output.append)),
            asyncio.create_task(self._read(self.process.stderr, self._event)),
        ]

    async def wait(self, event: str, within: float = 15.0, **fields: Any) -> Event:
        """The first event of that name with these fields, past or to come. DemoError when it does not come."""
        return await self._until(lambda: self.find(event, **fields), f"{event} {fields or ''}".strip(), within)

    async def line(self, prefix: str, within: float = 20.0) -> str:
        """The first line on stdout that starts so."""
        return await self._until(
            lambda: next((line for line in self.output if line.startswith(prefix)), None), f"line {prefix!r}", within
        )

    def find(self, event: str, **fields: Any) -> Event | None:
        """The first such event so far, or None."""
        wanted = fields.items()
        return next((known for known in self.events if known.get("event") == event and wanted <= known.items()), None)

    def press(self, key: str) -> None:
        """Type a key and Enter."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{key}\n".encode())

    async def ended(self, within: float = 20.0) -> int:
        """Wait for its own end; the exit status."""
        try:
            status = await asyncio.wait_for(self.process.wait(), within)
        except TimeoutError:
            raise DemoError(f"{self.name} did not end within {within:.0f} s; see {self._log}") from None
        await asyncio.gather(*self._readers)
        return status

    async def stop(self) -> None:
        """End it in any case."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_PATIENCE)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await asyncio.gather(*self._readers)

    async def _until(self, look: Callable[[], Found | None], what: str, within: float) -> Found:
        deadline = time.monotonic() + within
        async with self._news:
            while (found := look()) is None:
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.returncode is not None and all(r.done() for r in self._readers)):
                    raise DemoError(f"{self.name}: no {what} within {within:.0f} s; see {self._log}")
                try:
                    await asyncio.wait_for(self._news.wait(), min(left, 0.5))
                except TimeoutError:
                    continue
        return found

    async def _read(self, stream: asyncio.StreamReader, keep: Callable[[str], None]) -> None:
        with self._log.open("a") as log:
            while raw := await stream.readline():
                text = raw.decode(errors="replace").rstrip()
                log.write(f"{text}\n")
                log.flush()
                async with self._news:
                    keep(text)
                    self._news.notify_all()

    def _event(self, text: str) -> None:
        if text.startswith("{"):
            try:
                self.events.append(json.loads(text))
            except ValueError:
                return
