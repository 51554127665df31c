"""The relay as a service on the running asyncio loop: engine, relay, control link, and the timers that drive them."""

import asyncio
import secrets
import time

import structlog

from media_relay.control_server import ControlServer
from media_relay.engine.choice import kind_of, new_engine
from media_relay.relay import Relay
from protocols.control import Command, Reply
from protocols.net import Address
from provisioning.config import Config

TICK = 0.1
"""Least seconds between two looks at timers; they are all far longer."""

log = structlog.get_logger()


class RelayServer:
    """Start and stop of one relay."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engine = new_engine(config.relay.engine)
        instance = secrets.token_hex(8)
        host = config.relay.advertised_host or config.relay.bind
        self._control = ControlServer(config.control, host, instance, self._execute)
        self.relay = Relay(config.relay, self._engine, self._control.emit, self._control.connected)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tick_not_before = 0.0
        self._wake: asyncio.TimerHandle | None = None

    async def start(self) -> Address:
        """Begin to serve; the control link's bound address. OSError when it cannot be bound."""
        self._loop = asyncio.get_running_loop()
        relay = self._config.relay
        bound = await self._control.start(Address(relay.control_host, relay.control_port))
        self._loop.add_reader(self._engine.fileno(), self._ready)
        self._ticking()
        log.info("relay.started", control=str(bound), media=relay.bind, engine=kind_of(self._engine))
        return bound

    def reconfigure(self, config: Config) -> None:
        """Take what may change while media flows."""
        self._config = config
        self.relay.reconfigure(config.relay)

    @property
    def listening(self) -> bool:
        """True while application servers can connect."""
        return self._control.listening

    @property
    def links(self) -> int:
        """How many application servers are connected."""
        return self._control.links

    async def stop(self) -> None:
        """Close all groups, sockets and links."""
        if self._loop is None:
            return
        for timer in (self._tick, self._wake):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._engine.fileno())
        await self._control.stop()
        self.relay.close()
        self._engine.close()
        log.info("relay.stopped")

    def _execute(self, as_id: str, command: Command) -> Reply:
        reply = self.relay.execute(as_id, command, time.monotonic())
        log.debug("control.command", as_id=as_id, command=type(command).__name__)
        self._ready()
        return reply

    def _ready(self) -> None:
        assert self._loop is not None
        now = time.monotonic()
        try:
            due = self.relay.step(now)
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            if due is not None:
                self._wake = self._loop.call_later(max(0.0, due - now), self._ready)
        finally:  # whatever failed, timers go on
            self._tick_when_due(now)

    def _ticking(self) -> None:
        assert self._loop is not None
        now = time.monotonic()
        self._tick = None
        self._tick_not_before = now + TICK
        try:
            self.relay.tick(now)
        finally:
            self._ready()

    def _tick_when_due(self, now: float) -> None:
        assert self._loop is not None
        wait = max(self.relay.next_tick(), self._tick_not_before) - now
        if self._tick is not None:
            if self._tick.when() <= self._loop.time() + wait + TICK / 2:
                return
            self._tick.cancel()
        self._tick = self._loop.call_later(max(0.0, wait), self._ticking)
