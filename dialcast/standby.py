"""A relay in reserve: a process that has loaded everything and waits to be told who it is.

Loading takes a second of a core, several on a busy host, and the viewers of a relay that died look at a frozen picture
meanwhile. So the supervisor keeps one spare, which is a relay within milliseconds; it costs its memory, about 50 MB.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

RENEW_AFTER = 5.0
"""Seconds after a spare was used until there is another: what it was needed for has the processor first."""

Spawn = Callable[[], Awaitable[asyncio.subprocess.Process]]


class Spare:
    """The supervisor's side: at most one process in reserve, started by `spawn`."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._process: asyncio.subprocess.Process | None = None
        self._renewal: asyncio.Task[None] | None = None

    def renew(self, after: float = RENEW_AFTER) -> None:
        """Have another one soon."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._start(after))

    def take(self, name: str, environment: dict[str, str]) -> asyncio.subprocess.Process | None:
        """The spare, told that it is this part with these settings; None where there is none."""
        process, self._process = self._process, None
        self.renew()
        if process is None or process.returncode is not None or process.stdin is None:
            return None
        process.stdin.write(json.dumps({"name": name, "environment": environment}).encode() + b"\n")
        return process

    async def stop(self) -> None:
        """There will be no more, and the one there is goes."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _start(self, after: float) -> None:
        await asyncio.sleep(after)
        self._process = await self._spawn()


def wait_for_turn() -> str:
    """The spare's side: load what a relay needs, then wait; the name it is given, its settings in the environment.

    Ends the process when the supervisor has gone.
    """
    import media_relay.server  # noqa: F401

    line = b""
    while not line.endswith(b"\n"):
        if not (data := os.read(sys.stdin.fileno(), 65536)):
            sys.exit(0)
        line += data
    turn = json.loads(line)
    os.environ.update(turn["environment"])
    return str(turn["name"])
