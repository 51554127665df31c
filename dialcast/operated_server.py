"""An application server as its operator sees it: health, figures, changed settings, old records removed."""

import asyncio
import contextlib
import time

import structlog
from prometheus_client import REGISTRY

from dialcast.monitor import Finding
from provisioning.config import Config
from provisioning.metrics import WAITING
from provisioning.store import Store
from provisioning.subscribers import provision
from sip_app.broadcast.group import Broadcasting
from sip_app.collector import ServerCollector
from sip_app.server import ApplicationServer
from sip_app.xcap.server import XcapServer

COUNTED_FOR = 10.0
"""Seconds a count of the registrations serves: it costs the store a look at all of them."""
PRUNE_EVERY = 6 * 3600.0
_DAY = 86_400.0
log = structlog.get_logger()


class OperatedServer:
    """`dialcast.operating.Operated` for an application server."""

    def __init__(
        self, config: Config, store: Store, server: ApplicationServer, service: Broadcasting, xcap: XcapServer
    ) -> None:
        self._config = config
        self._store = store
        self._server = server
        self._service = service
        self._xcap = xcap
        self._registered = (0, 0)
        self._counted_at = float("-inf")
        WAITING.set_function(lambda: store.waiting)
        REGISTRY.register(ServerCollector(server, service, lambda: self._registered))

    async def health(self) -> dict[str, Finding]:
        """The store takes a write in time, a relay is there for new broadcasts, SIP is listened for."""
        relays = {str(link.address): link.up for link in self._service.link.links}
        addresses = self._server.addresses
        return {
            "store": await self._write_in_time(),
            "relay": {"ok": any(relays.values()), "up": relays},
            "sip": {"ok": bool(addresses), "addresses": [f"{name}:{address}" for name, address in addresses]},
        }

    async def refresh(self) -> None:
        """Count the registrations."""
        now = time.monotonic()
        if now - self._counted_at > COUNTED_FOR:
            self._counted_at = now
            with contextlib.suppress(OSError):  # /healthz is where a broken store shows
                self._registered = await self._store.registered(time.time())

    async def apply(self, config: Config) -> None:
        """See Operated."""
        await provision(self._store, config)
        self._config = config
        self._service.reconfigure(config)
        self._server.reconfigure(config)
        self._xcap.reconfigure(config)

    async def prune(self) -> None:
        """Remove call records past their time, now and then, for as long as the process runs."""
        while True:
            if days := self._config.operations.call_retention_days:
                try:
                    if removed := await self._store.call_records.prune(time.time() - days * _DAY):
                        log.info("record.pruned", calls=removed)
                except OSError as error:
                    log.error("record.not_pruned", error=str(error))
            await asyncio.sleep(PRUNE_EVERY)

    async def _write_in_time(self) -> Finding:
        try:
            seconds = await asyncio.wait_for(self._store.probe(), self._config.operations.health_timeout)
        except TimeoutError:
            return {"ok": False, "error": f"no write within {self._config.operations.health_timeout:g} s"}
        except OSError as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True, "write_s": round(seconds, 4)}
