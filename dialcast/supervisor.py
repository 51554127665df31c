"""`dialcast up`: one application server and its relays as child processes, each restarted when it dies.

`dialcast relay` with several workers: these alone. The children print one ready line on stdout; the ports they took are
kept over restarts. Each holds the read end of a pipe whose other end is ours, so that none outlives a supervisor that
was killed.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import structlog

from dialcast.reload import Reloader, Source
from dialcast.standby import Spare
from dialcast.workers import worker_settings
from provisioning.config import Config

STABLE_AFTER = 5.0
"""Seconds after which a part that dies is restarted at once again, without back-off."""
RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)
STOP_PATIENCE = {"as": 8.5, "relay": 1.0}
"""Seconds a part may take to stop before it is killed; together less than 10."""

RELOADED = "reloaded"
"""What a part prints that was told to reload by hand: the others shall too."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Part:
    """One supervised child."""

    kind: Literal["as", "relay"]
    name: str
    environment: dict[str, str]
    spare: Spare | None = None
    """What is in reserve for it."""
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    reloaded: asyncio.Event = field(default_factory=asyncio.Event)
    ahead: bool = False
    """It has read its configuration again already, by hand."""
    started_at: float = 0.0

    async def start(self) -> None:
        """Start the process; its ready line arrives later."""
        self.started_at = time.monotonic()
        spare = self.spare if self.ready.done() else None
        taken = spare.take(self.name, self.environment) if spare is not None else None
        self.process = taken or await _spawn(self.environment, self.kind, "--supervised", self.name)
        log.info("process.started", name=self.name, pid=self.process.pid)

    async def run_once(self) -> int:
        """Relay the ready line, wait for the end; the exit status."""
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.strip() == RELOADED.encode():
                self.ahead = True
                self.reloaded.set()
            elif not self.ready.done():
                self.ready.set_result(line.decode().strip())
        return await self.process.wait()

    def reload(self) -> None:
        """SIGHUP, if it runs and has not reloaded by itself."""
        if self.process is not None and self.process.returncode is None and not self.ahead:
            self.process.send_signal(signal.SIGHUP)
        self.ahead = False

    async def stop(self) -> None:
        """SIGTERM, then after patience SIGKILL."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_PATIENCE[self.kind])
        except TimeoutError:
            log.warning("process.killed", name=self.name, pid=self.process.pid)
            self.process.kill()
            await self.process.wait()


class Supervisor:
    """Keeps its parts running until told to stop; `reloader` reads the configuration for the supervisor itself."""

    def __init__(self, environment: dict[str, str], config: Config, source: Source, *, alone: bool) -> None:
        """With `alone` there are relays only, which somebody else's application servers dial."""
        workers = config.relay.workers
        if not alone:
            environment = environment | {"DIALCAST_CONTROL__TOKEN": secrets.token_urlsafe(32)}
        self._spare = Spare(partial(_spawn, environment, "relay", "--standby"))
        names = [f"relay{at + 1}" for at in range(workers)] if workers > 1 else ["relay"]
        self._relays = [
            Part("relay", name, environment | worker_settings(config, at), self._spare) for at, name in enumerate(names)
        ]
        self._as = None if alone else Part("as", "as", environment)
        self._stopping = asyncio.Event()
        self._hung_up = self._as.reloaded if self._as is not None else asyncio.Event()
        """Set by SIGHUP, or by the server's word that its operator wants the same."""
        self._reloader = Reloader(config, source, self._pass_on)

    async def run(self) -> int:
        """Start all, print the ready line, keep them up; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_all)
        following = asyncio.create_task(self._reloader.follow(self._hung_up))
        keepers: list[asyncio.Task[int]] = []
        try:
            if (ready := await self._started(keepers)) is None:
                return await self._failed(keepers)
            print(ready, flush=True)
            self._spare.renew()
            stopped = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({stopped, *keepers}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            return await self._failed(keepers)
        finally:
            self._stopping.set()
            following.cancel()
            if self._as is not None:
                await self._as.stop()
            await self._spare.stop()
            await asyncio.gather(*(relay.stop() for relay in self._relays))
            for keeper in keepers:
                keeper.cancel()

    async def _started(self, keepers: list[asyncio.Task[int]]) -> str | None:
        """The ready line, once all parts run; None when one cannot, or nobody wants them any more."""
        controls, metrics = [], []
        keepers += [asyncio.create_task(self._keep(relay)) for relay in self._relays]
        for relay in self._relays:
            if (address := await self._first_ready(relay, keepers)) is None:
                return None
            control, _, served = address.removeprefix("ready control=").partition(" metrics=")
            relay.environment["DIALCAST_RELAY__CONTROL_PORT"] = control.rpartition(":")[2]
            controls.append(control)
            metrics += [served] if served else []
        told = f"metrics={','.join(metrics)}"
        if self._as is None:
            return f"ready control={','.join(controls)}" + (f" {told}" if metrics else "")
        self._as.environment["DIALCAST_CONTROL__CONNECT"] = json.dumps(controls)
        keepers.append(asyncio.create_task(self._keep(self._as)))
        if (ready := await self._first_ready(self._as, keepers)) is None:
            return None
        self._as.environment["DIALCAST_SIP__PORT"] = ready.partition(",")[0].rpartition(":")[2].split()[0]
        return f"{ready} relay-{told}" if metrics else ready

    def _reload_all(self) -> None:
        """The file may be another by now than the one a part has read by itself."""
        if self._as is not None:
            self._as.ahead = False
        self._hung_up.set()

    async def _pass_on(self, config: Config) -> None:
        """The file is good: the parts read it too, each what concerns it."""
        for part in (*self._relays, *([self._as] if self._as is not None else [])):
            part.reload()

    async def _first_ready(self, part: Part, keepers: list[asyncio.Task[int]]) -> str | None:
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        waiting: set[asyncio.Future[Any]] = {part.ready, stopped, *keepers}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return part.ready.result() if part.ready.done() else None

    async def _failed(self, keepers: list[asyncio.Task[int]]) -> int:
        """The status of the part that gave up, 0 after a regular stop."""
        return next((keeper.result() for keeper in keepers if keeper.done()), 0)

    async def _keep(self, part: Part) -> int:
        """Run the part again and again; returns only when it could not even start the first time, or when stopping."""
        attempt = 0
        while True:
            await part.start()
            status = await part.run_once()
            if self._stopping.is_set():
                return 0
            if not part.ready.done():
                return status or 1
            if time.monotonic() - part.started_at > STABLE_AFTER:
                attempt = 0
            delay = RESTART_DELAYS[min(attempt, len(RESTART_DELAYS) - 1)]
            attempt += 1
            log.warning("process.died", name=part.name, status=status, restart_in_s=delay)
            await asyncio.sleep(delay)


async def supervise(environment: dict[str, str], config: Config, source: Source, *, alone: bool = False) -> int:
    """Run all parts, with these settings in their environment, until told to stop; the exit status.

    With `alone` only the relays.
    """
    return await Supervisor(environment, config, source, alone=alone).run()


async def _spawn(environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dialcast", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        # Ctrl-C reaches the whole group; the parts are stopped in order by us alone.
        start_new_session=False,
        preexec_fn=_ignore_interrupt,
    )


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload; it has read the file by then
