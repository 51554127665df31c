"""The store as `dialcast` opens it: one database with everything dialcast must not forget, a port for each concern."""

import asyncio
import math
import secrets
import time
from pathlib import Path
from typing import Self

import structlog
from sqlalchemy import URL, Connection, func, insert, select

from provisioning import schema
from provisioning.cache import Cache
from provisioning.call_records import CallFile, CallRecordStore
from provisioning.call_store import BroadcastStore, DialogStore, NodeStore
from provisioning.channel_store import ChannelStore
from provisioning.config import Config
from provisioning.database import Database, StoreError, private_directory
from provisioning.subscriber_store import CredentialStore, DiversionStore, LocationStore

_FACTS = schema.Rows(schema.facts)
DATABASE = "dialcast.db"
"""In the data directory, where `store.url` names no other."""
PURGE_EVERY = 3600.0
"""Seconds between two looks for registrations long expired."""

log = structlog.get_logger()


class SecretStore:
    """Server-held facts, e.g. the key of handovers, made once and kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def secret(self, name: str) -> bytes:
        """The 32-byte secret of this name, created at first use."""
        return bytes.fromhex(await self._kept(f"secret {name}", secrets.token_hex(32)))

    async def as_id(self) -> str:
        """This installation's application server name, random, created at first use."""
        return await self._kept("as_id", f"as-{secrets.token_hex(6)}")

    async def _kept(self, name: str, fresh: str) -> str:
        def write(connection: Connection) -> str:
            found = connection.scalar(select(schema.facts.c.value).where(schema.facts.c.name == name))
            if found is None:
                connection.execute(insert(schema.facts), {"name": name, "value": fresh})
            return fresh if found is None else found

        return await self._database.run(write)


class Store:
    """An open database and its ports. Belongs to the event loop it was opened on."""

    def __init__(self, database: Database, entries: int, lifetime: float, call_file: Path | None = None) -> None:
        self._database = database
        self._caches = [Cache[object](entries, lifetime) for _ in range(5)]
        credentials, location, diversions, broadcasts, channels = self._caches
        self.credentials = CredentialStore(database, credentials)
        self.location = LocationStore(database, location)
        self.diversions = DiversionStore(database, diversions)
        self.broadcasts = BroadcastStore(database, broadcasts)
        self.channels = ChannelStore(database, channels)
        self.dialogs = DialogStore(database)
        self.nodes = NodeStore(database)
        self.secrets = SecretStore(database)
        self.call_records = CallRecordStore(database, CallFile(call_file) if call_file is not None else None)
        self._purging: asyncio.Task[None] | None = None
        database.on_foreign_change = self._forget

    @classmethod
    async def open(cls, config: Config, purge_every: float = PURGE_EVERY) -> Self:
        """Open (at first: make) the configured database. Raises StoreError with what is wrong in one line.

        Registrations long expired are removed now, and every so many seconds for as long as it is open.
        """
        settings = config.store
        if settings.url is None:
            private_directory(config.data_path)
            url: str | URL = URL.create("sqlite", database=str(config.data_path / DATABASE))
        else:
            url = settings.url.get_secret_value()
        watch_interval = max(settings.cache_seconds / 2, 0.05)
        database = await Database.open(url, settings.commit_interval_ms / 1000, watch_interval)
        ageless = database.notices_changes and settings.cache_seconds > 0
        call_file = config.operations.call_file
        store = cls(
            database,
            settings.cache_entries,
            math.inf if ageless else settings.cache_seconds,
            config.data_path / call_file if call_file is not None else None,
        )
        await store.location.purge(time.time())
        store._purging = asyncio.create_task(store._purge(purge_every))
        return store

    async def close(self) -> None:
        """Finish what was asked before, then close the database."""
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.gather(self._purging, return_exceptions=True)
        await self.call_records.close()
        await self._database.close()

    @property
    def waiting(self) -> int:
        """Operations waiting for the database."""
        return self._database.waiting

    async def probe(self) -> float:
        """Write something durably; how many seconds that took. Raises StoreError."""
        begun = time.monotonic()
        row = {"name": "probed_at", "value": str(time.time())}
        await self._database.run(lambda connection: _FACTS.put(connection, row))
        return time.monotonic() - begun

    async def registered(self, now: float) -> tuple[int, int]:
        """How many numbers have a phone registered, and how many phones that are."""
        bindings = schema.bindings.c
        standing = select(func.count(bindings.aor.distinct()), func.count()).where(bindings.expires_at > now)
        numbers, contacts = await self._database.run(lambda connection: tuple(connection.execute(standing).one()))
        return numbers, contacts

    async def _purge(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await self.location.purge(time.time())
            except StoreError as error:
                log.debug("registrations.not_purged", error=str(error))  # whatever else asks the store tells louder

    def _forget(self) -> None:
        for cache in self._caches:
            cache.clear()
