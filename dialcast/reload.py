"""SIGHUP and `dialcast reload`: the configuration is read again and takes effect where it can, without losing a call.

A file with a mistake changes nothing; what needs a restart is named and left as it is (`provisioning.reload`).
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dialcast.logs import set_level
from provisioning.config import Config
from provisioning.loader import ConfigError
from provisioning.reload import Reload, reloaded

Source = Callable[[], Config]
"""Reads the configuration where the process got it: file, environment, command line. Raises ConfigError."""
log = structlog.get_logger()


class Reloader:
    """Holds the configuration a process runs with. `apply` gives its parts a new one, or raises and changes none."""

    def __init__(self, config: Config, source: Source, apply: Callable[[Config], Awaitable[None]]) -> None:
        self.config = config
        self._source = source
        self._apply = apply
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Reload:
        """Read it again and live by it. Raises ConfigError; what happened is logged either way."""
        async with self._one_at_a_time:
            try:
                result = reloaded(self.config, self._source())
                await self._apply(result.config)
            except (ConfigError, OSError) as error:
                log.error("config.rejected", error="; ".join(str(error).splitlines()))
                raise ConfigError(*str(error).splitlines()) from None
            self.config = result.config
            set_level(result.config.log.level)
            log.info("config.reloaded", changed=list(result.changed))
            if result.restart:
                log.warning("config.restart_needed", keys=list(result.restart))
            return result

    async def follow(self, hung_up: asyncio.Event) -> None:
        """Reload whenever the event is set, for as long as the process runs."""
        while True:
            await hung_up.wait()
            hung_up.clear()
            try:
                await self.reload()
            except ConfigError:
                continue  # said above; the configuration in force stays
