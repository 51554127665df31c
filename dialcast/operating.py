"""What the operator of one process gets, whichever it is: metrics and health by HTTP, the configuration reloaded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from dialcast.monitor import Finding, Monitor
from dialcast.reload import Reloader, Source
from provisioning.config import Config


class Operated(Protocol):
    """A process as its operator sees it."""

    async def health(self) -> dict[str, Finding]:
        """The state of its parts, each `ok` or not."""
        ...

    async def refresh(self) -> None:
        """Ask for the figures of a scrape that are not at hand."""
        ...

    async def apply(self, config: Config) -> None:
        """Live by this configuration from now on. Raises ConfigError or OSError, and then changes nothing."""
        ...


@contextlib.asynccontextmanager
async def operating(
    part: str, config: Config, port: int | None, operated: Operated, source: Source, hung_up: asyncio.Event
) -> AsyncIterator[tuple[Monitor, Reloader]]:
    """Serve the operator of one process for as long as the context lasts."""
    monitor = Monitor(part, operated.health, operated.refresh)
    monitor.lag_max = config.operations.loop_lag_max

    async def apply(changed: Config) -> None:
        await operated.apply(changed)
        monitor.lag_max = changed.operations.loop_lag_max

    reloader = Reloader(config, source, apply)
    await monitor.start(config.operations.bind, port)
    following = asyncio.create_task(reloader.follow(hung_up))
    try:
        yield monitor, reloader
    finally:
        following.cancel()
        await monitor.stop()
