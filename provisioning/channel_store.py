"""What is stored about each broadcaster's channel: who may watch it; a port of the service logic."""

from collections.abc import Callable

from sqlalchemy import Connection, bindparam, select

from protocols.records import Channel
from provisioning import schema
from provisioning.rows import channel_row, to_channel
from provisioning.schema import Rows
from provisioning.subscriber_store import CachedReads

_OPEN = Channel()


class ChannelStore(CachedReads):
    """The settings of channels; one that never had any is open."""

    _rows = Rows(schema.channels)
    _of = select(schema.channels).where(schema.channels.c.aor == bindparam("aor"))

    async def get(self, aor: str) -> Channel:
        """The settings of a broadcaster's address of record; the default ones when there are none."""
        return await self._read(aor, _OPEN, lambda connection: self._load(connection, aor))

    async def change(self, aor: str, change: Callable[[Channel], Channel]) -> Channel:
        """Give the settings to `change` and store what it returns, as one step; that is returned.

        What it raises is raised here, and nothing is stored. It must only compute: it may run in another thread, twice.
        """

        def write(connection: Connection) -> Channel:
            changed = change(self._load(connection, aor))
            self._rows.put(connection, channel_row(aor, changed))
            return changed

        return await self._database.run(write, lambda changed: self._cache.change(aor, lambda _: changed))

    def _load(self, connection: Connection, aor: str) -> Channel:
        row = connection.execute(self._of, {"aor": aor}).one_or_none()
        return to_channel(row) if row else _OPEN
