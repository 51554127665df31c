"""What is stored about live broadcasts and confirmed dialogs; ports of the service logic."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from protocols.records import Broadcast, Node, StoredDialog
from provisioning import schema
from provisioning.database import Database
from provisioning.rows import broadcast_row, dialog_row, key_of, to_broadcast, to_dialog
from provisioning.schema import Rows
from provisioning.subscriber_store import CachedReads


class BroadcastStore(CachedReads):
    """Which channels are live and who owns them."""

    _rows = Rows(schema.broadcasts)
    _of = select(schema.broadcasts).where(schema.broadcasts.c.aor == bindparam("aor"))
    _claim = update(schema.broadcasts).where(
        schema.broadcasts.c.aor == bindparam("key_aor"), schema.broadcasts.c.epoch == bindparam("old_epoch")
    )
    _held = _claim.where(schema.broadcasts.c.as_id == bindparam("from_as"))
    _next_epoch = (
        update(schema.epochs).where(schema.epochs.c.aor == bindparam("key_aor")).values(epoch=schema.epochs.c.epoch + 1)
    )

    async def claim(self, broadcast: Broadcast, now: float) -> Broadcast | None:
        """Claim the channel. None: it is ours now. Else: the live claim of another server that stands."""

        def write(connection: Connection) -> Broadcast | None:
            while True:
                standing = self._standing(connection, broadcast.channel)
                if standing is None:
                    connection.execute(insert(schema.broadcasts), broadcast_row(broadcast))
                    return None
                ours = standing.as_id == broadcast.as_id and standing.epoch <= broadcast.epoch
                if standing.lease_until > now and not ours:
                    return standing
                if self._rewrite(connection, broadcast, standing.epoch):
                    return None

        return await self._database.run(
            write, lambda standing: self._cache.put(broadcast.channel, standing or broadcast)
        )

    async def take_over(self, broadcast: Broadcast, from_as: str) -> bool:
        """Make `broadcast.as_id` the owner of this channel and epoch if `from_as` still is; True if that was so."""
        values = {"key_aor": broadcast.channel, "old_epoch": broadcast.epoch, "from_as": from_as}

        def write(connection: Connection) -> bool:
            return connection.execute(self._held, values | broadcast_row(broadcast)).rowcount > 0

        def written(done: bool) -> None:
            if done:
                self._cache.put(broadcast.channel, broadcast)

        return await self._database.run(write, written)

    async def next_epoch(self, channel: str) -> int:
        """A number larger than every epoch this channel ever had, durable."""

        def write(connection: Connection) -> int:
            if connection.execute(self._next_epoch, {"key_aor": channel}).rowcount == 0:
                connection.execute(insert(schema.epochs), {"aor": channel, "epoch": 1})
            found = select(schema.epochs.c.epoch).where(schema.epochs.c.aor == channel)
            return int(connection.execute(found).scalar_one())

        return await self._database.run(write)

    async def update(self, broadcast: Broadcast) -> bool:
        """Rewrite the claim of this channel and epoch (state, lease, media). False, and nothing is written, if another
        epoch stands or another server has it."""
        return await self.take_over(broadcast, broadcast.as_id)

    async def release(self, channel: str, epoch: int, as_id: str) -> None:
        """Remove the claim of this epoch if that server has it."""
        table = schema.broadcasts
        statement = delete(table).where(table.c.aor == channel, table.c.epoch == epoch, table.c.as_id == as_id)

        def changed(known: Broadcast | None) -> Broadcast | None:
            return None if known and (known.epoch, known.as_id) == (epoch, as_id) else known

        await self._database.run(
            lambda connection: connection.execute(statement), lambda _: self._cache.change(channel, changed)
        )

    async def get(self, channel: str) -> Broadcast | None:
        """The claim that stands for the channel, or None."""
        return await self._read(channel, None, lambda connection: self._standing(connection, channel))

    async def all(self) -> Sequence[Broadcast]:
        """Every claim that stands."""
        return await self._database.run(
            lambda connection: [to_broadcast(row) for row in connection.execute(select(schema.broadcasts))]
        )

    async def elsewhere(self, as_id: str) -> Mapping[str, int]:
        """The epochs of the broadcasts that others than `as_id` hold, by channel."""
        table = schema.broadcasts.c
        statement = select(table.aor, table.epoch).where(table.as_id != as_id, table.state.in_(("live", "lost")))
        return await self._database.run(
            lambda connection: {row.aor: row.epoch for row in connection.execute(statement)}
        )

    def _standing(self, connection: Connection, channel: str) -> Broadcast | None:
        row = connection.execute(self._of, {"aor": channel}).one_or_none()
        return to_broadcast(row) if row else None

    def _rewrite(self, connection: Connection, broadcast: Broadcast, old_epoch: int) -> bool:
        keys = {"key_aor": broadcast.channel, "old_epoch": old_epoch}
        return connection.execute(self._claim, keys | broadcast_row(broadcast)).rowcount > 0


class DialogStore:
    """Confirmed dialogs, so that a restarted server holds its calls again."""

    _rows = Rows(schema.dialogs, schema.dialogs.c.as_id)
    _drop = delete(schema.dialogs).where(
        schema.dialogs.c.dialog_key == bindparam("dialog_key"), schema.dialogs.c.as_id == bindparam("as_id")
    )
    _of = select(schema.dialogs).where(schema.dialogs.c.as_id == bindparam("as_id"))

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, dialog: StoredDialog) -> None:
        """Insert or rewrite one dialog. Raises StoreError if another server has taken it over."""
        row = dialog_row(dialog)
        await self._database.run(lambda connection: self._rows.put(connection, row))

    async def delete(self, dialog_id: str, as_id: str) -> None:
        """Forget one dialog if that server has it."""
        key = {"dialog_key": key_of(dialog_id), "as_id": as_id}
        await self._database.run(lambda connection: connection.execute(self._drop, key))

    async def find(self, dialog_id: str) -> StoredDialog | None:
        """One dialog, whoever owns it."""

        def read(connection: Connection) -> StoredDialog | None:
            found = select(schema.dialogs).where(schema.dialogs.c.dialog_key == key_of(dialog_id))
            row = connection.execute(found).one_or_none()
            return to_dialog(row) if row else None

        return await self._database.run(read)

    async def adopt(self, group_id: str, from_as: str, to_as: str) -> Sequence[StoredDialog]:
        """Give all dialogs of a group that one server owns to another; they as they are now."""
        table = schema.dialogs
        theirs = (table.c.group_id == group_id) & (table.c.as_id == from_as)

        def write(connection: Connection) -> list[StoredDialog]:
            found = [replace(to_dialog(row), as_id=to_as) for row in connection.execute(select(table).where(theirs))]
            connection.execute(update(table).where(theirs).values(as_id=to_as))
            return found

        return await self._database.run(write)

    async def owned_by(self, as_id: str) -> Sequence[StoredDialog]:
        """All dialogs of one application server."""
        return await self._database.run(
            lambda connection: [to_dialog(row) for row in connection.execute(self._of, {"as_id": as_id})]
        )


class NodeStore:
    """The application servers that share this database."""

    _rows = Rows(schema.nodes)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, node: Node) -> None:
        """Say that this server is there until `node.lease_until`."""
        row = dict(zip(schema.nodes.c.keys(), astuple(node), strict=True))
        await self._database.run(lambda connection: self._rows.put(connection, row))

    async def all(self) -> Sequence[Node]:
        """Every server that ever said so, and has not taken its leave."""
        return await self._database.run(
            lambda connection: [Node(*row) for row in connection.execute(select(schema.nodes))]
        )

    async def leave(self, as_id: str) -> None:
        """This server stops for good."""
        gone = delete(schema.nodes).where(schema.nodes.c.as_id == as_id)
        await self._database.run(lambda connection: connection.execute(gone))
