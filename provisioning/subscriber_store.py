"""What is stored about each subscriber: credentials, registrations, diversions; ports of the service logic.

Each write resumes after its commit. What the path of a request reads comes from caches that committed writes keep
current, and that are emptied when another process changed the database (see `database`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, select

from protocols.records import Binding, DiversionRules, Diversions, Overlay, Subscriber
from provisioning import schema
from provisioning.cache import Cache
from provisioning.database import Database
from provisioning.rows import (
    binding_row,
    diversions_row,
    key_of,
    subscriber_row,
    to_binding,
    to_diversions,
    to_overlay,
    to_subscriber,
)
from provisioning.schema import MAX_AOR_LENGTH, Rows

V = TypeVar("V")
RulesChange = Callable[[DiversionRules | None], DiversionRules | None]
EXPIRED_KEPT = 60.0
"""Seconds an expired binding stays stored, so that clocks may differ a little."""
PURGED_AT_ONCE = 500
"""Bindings one transaction of a purge removes, so that no registration waits for it."""
_NO_DIVERSIONS = Diversions()


class CachedReads:
    """A database, and a cache in front of it for what is read by address of record."""

    def __init__(self, database: Database, cache: Cache[Any]) -> None:
        self._database = database
        self._cache = cache

    async def _read(self, aor: str, absent: V, load: Callable[[Connection], V]) -> V:
        if found := self._cache.get(aor):
            cached: V = found[0]
            return cached
        if len(aor) > MAX_AOR_LENGTH:  # nobody's, and not worth the memory a stranger would fill with them
            return absent
        return await self._database.run(load, then=lambda value: self._cache.put(aor, value))


def _best_first(bindings: list[Binding]) -> tuple[Binding, ...]:
    return tuple(sorted(bindings, key=lambda binding: -binding.q))


class CredentialStore(CachedReads):
    """Who may authenticate, and with what."""

    _rows = Rows(schema.subscribers)
    _find = select(schema.subscribers).where(schema.subscribers.c.aor == bindparam("aor"))
    _all = select(schema.subscribers).order_by(schema.subscribers.c.aor)

    async def find(self, aor: str) -> Subscriber | None:
        """The subscriber with this address of record, or None."""

        def load(connection: Connection) -> Subscriber | None:
            row = connection.execute(self._find, {"aor": aor}).one_or_none()
            return to_subscriber(row) if row else None

        return await self._read(aor, None, load)

    async def all(self) -> Sequence[Subscriber]:
        """Every subscriber, by address of record."""
        return await self._database.run(
            lambda connection: [to_subscriber(row) for row in connection.execute(self._all)]
        )

    async def put(self, subscriber: Subscriber, *, new: bool = False) -> bool:
        """Write the account; with `new`, only if there is none yet (False: there is)."""

        def write(connection: Connection) -> bool:
            if new and connection.execute(self._find, {"aor": subscriber.aor}).one_or_none():
                return False
            self._rows.put(connection, subscriber_row(subscriber))
            return True

        def written(done: bool) -> None:
            if done:
                self._cache.change(subscriber.aor, lambda _: subscriber)

        return await self._database.run(write, written)

    async def remove(self, aor: str) -> bool:
        """Delete the account with its registrations, diversions and channel settings; False when there is none."""

        def write(connection: Connection) -> bool:
            for table in (schema.bindings, schema.diversions, schema.overlays, schema.channels):
                connection.execute(delete(table).where(table.c.aor == aor))
            return connection.execute(delete(schema.subscribers).where(schema.subscribers.c.aor == aor)).rowcount > 0

        return await self._database.run(write, lambda _: self._database.on_foreign_change())


class LocationStore(CachedReads):
    """The location service of RFC 3261 section 10."""

    _rows = Rows(schema.bindings)
    _of = select(schema.bindings).where(schema.bindings.c.aor == bindparam("aor"))
    _drop = delete(schema.bindings).where(
        schema.bindings.c.aor == bindparam("aor"), schema.bindings.c.contact_key == bindparam("contact_key")
    )
    _expired = (
        select(schema.bindings.c.aor, schema.bindings.c.contact_key)
        .where(schema.bindings.c.expires_at < bindparam("before"))
        .order_by(schema.bindings.c.expires_at)
        .limit(PURGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    """What another server registers anew or purges at this moment (PostgreSQL) is left to it."""

    async def bindings(self, aor: str, now: float) -> Sequence[Binding]:
        """Bindings that have not expired at `now` (Unix seconds), best q first."""
        return tuple(binding for binding in await self._known(aor) if binding.expires_at > now)

    async def replace(self, aor: str, put: Sequence[Binding], drop: Sequence[str]) -> None:
        """Add or refresh the bindings in `put` (by their `key`) and remove the keys in `drop`, atomically."""
        long_expired = time.time() - EXPIRED_KEPT
        stale = (binding.key for binding in await self._known(aor) if binding.expires_at < long_expired)
        gone = {*drop, *stale}.difference(binding.key for binding in put)
        rows = [binding_row(aor, binding) for binding in put]

        def write(connection: Connection) -> None:
            for key in gone:
                connection.execute(self._drop, {"aor": aor, "contact_key": key_of(key)})
            for row in rows:
                self._rows.put(connection, row)

        def changed(known: tuple[Binding, ...]) -> tuple[Binding, ...]:
            kept = {binding.key: binding for binding in known if binding.key not in gone}
            return _best_first([*(kept | {binding.key: binding for binding in put}).values()])

        await self._database.run(write, lambda _: self._cache.change(aor, changed))

    async def purge(self, now: float) -> int:
        """Delete what expired long before `now` (Unix seconds), in small steps; how many bindings those were. Numbers
        that never register again leave nothing behind."""

        def step(connection: Connection) -> int:
            found = connection.execute(self._expired, {"before": now - EXPIRED_KEPT}).all()
            if found:
                connection.execute(self._drop, [row._asdict() for row in found])
            return len(found)

        removed = 0
        while count := await self._database.run(step):
            removed += count
        return removed

    async def _known(self, aor: str) -> tuple[Binding, ...]:
        def load(connection: Connection) -> tuple[Binding, ...]:
            return _best_first([to_binding(row) for row in connection.execute(self._of, {"aor": aor})])

        return await self._read(aor, (), load)


class DiversionStore(CachedReads):
    """Communication diversion (TS 24.604): the user's own rules, and the broadcast overlay above them."""

    _own_rows = Rows(schema.diversions)
    _overlay_rows = Rows(schema.overlays)
    _own = select(schema.diversions).where(schema.diversions.c.aor == bindparam("aor"))
    _own_for_update = _own.with_for_update()
    _overlay = select(schema.overlays).where(schema.overlays.c.aor == bindparam("aor"))

    async def get(self, aor: str) -> Diversions:
        """The settings of `aor`; empty when it has none."""

        def load(connection: Connection) -> Diversions:
            own = connection.execute(self._own, {"aor": aor}).one_or_none()
            overlay = connection.execute(self._overlay, {"aor": aor}).one_or_none()
            if not own and not overlay:
                return _NO_DIVERSIONS
            return Diversions(to_diversions(own) if own else None, to_overlay(overlay) if overlay else None)

        return await self._read(aor, _NO_DIVERSIONS, load)

    async def change(self, aor: str, change: RulesChange) -> DiversionRules | None:
        """Give the user's own rules to `change` and store what it returns (None: none), as one step; that is returned.

        What it raises is raised here, and nothing is stored. It runs in the writer's thread, perhaps twice.
        """

        def write(connection: Connection) -> DiversionRules | None:
            row = connection.execute(self._own_for_update, {"aor": aor}).one_or_none()
            own = change(to_diversions(row) if row else None)
            if own is not None:
                self._own_rows.put(connection, diversions_row(aor, own))
            elif row:
                connection.execute(delete(schema.diversions).where(schema.diversions.c.aor == aor))
            return own

        def written(own: DiversionRules | None) -> None:
            self._cache.change(aor, lambda known: replace(known, own=own))

        return await self._database.run(write, written)

    async def set_overlay(self, aor: str, overlay: Overlay) -> None:
        """Put the broadcast's forwarding above the user's own."""
        row = {"aor": aor, "target": overlay.target, "group_id": overlay.group_id, "epoch": overlay.epoch}
        await self._write(
            aor,
            lambda connection: self._overlay_rows.put(connection, row),
            lambda known: replace(known, overlay=overlay),
        )

    async def clear_overlay(self, aor: str, epoch: int | None = None) -> None:
        """Withdraw the overlay (only if it belongs to `epoch`, when given)."""
        statement = delete(schema.overlays).where(schema.overlays.c.aor == aor)
        if epoch is not None:
            statement = statement.where(schema.overlays.c.epoch == epoch)

        def changed(known: Diversions) -> Diversions:
            ours = known.overlay and epoch in (None, known.overlay.epoch)
            return replace(known, overlay=None) if ours else known

        await self._write(aor, lambda connection: connection.execute(statement), changed)

    async def overlays(self) -> Sequence[tuple[str, Overlay]]:
        """All overlays, so that a starting server can remove those without a live group."""
        return await self._database.run(
            lambda connection: [(row.aor, to_overlay(row)) for row in connection.execute(select(schema.overlays))]
        )

    async def _write(
        self, aor: str, write: Callable[[Connection], object], changed: Callable[[Diversions], Diversions]
    ) -> None:
        await self._database.run(write, lambda _: self._cache.change(aor, changed))
