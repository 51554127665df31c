"""The tables, in SQL any database understands, and their version.

Times are Unix seconds. Contacts may be longer than an index key may be, so their digest is the key.
`apply_schema` brings an older database up and refuses a newer one.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

SCHEMA_VERSION = 3
MAX_AOR_LENGTH = 320
"""Characters in an address of record, enough for 20 digits and the longest host name; a longer one is nobody's."""

metadata = MetaData()


def _aor() -> Column[str]:
    return Column("aor", String(MAX_AOR_LENGTH), primary_key=True)


facts = Table("facts", metadata, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
"""Single values: the schema version, this server's name, secrets (hex)."""

subscribers = Table(
    "subscribers",
    metadata,
    _aor(),
    Column("number", String(32), nullable=False),
    Column("realm", String(255), nullable=False),
    Column("ha1", Text, nullable=False, comment="JSON object: digest algorithm -> H(number:realm:password)"),
    Column("display_name", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
)
bindings = Table(
    "bindings",
    metadata,
    _aor(),
    Column("contact_key", String(32), primary_key=True),
    Column("contact", Text, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("cseq", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("q", Double, nullable=False),
    Column("flow", Text, nullable=False),
    Column("path", Text, nullable=False, comment="JSON list of URIs"),
    Column("instance_id", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("received_at", Double, nullable=False),
)
diversions = Table(
    "diversions",
    metadata,
    _aor(),
    Column("rules", Text, nullable=False, comment="JSON object: the fields of DiversionRules that are not the default"),
)
overlays = Table(
    "overlays",
    metadata,
    _aor(),
    Column("target", Text, nullable=False),
    Column("group_id", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
epochs = Table("epochs", metadata, _aor(), Column("epoch", BigInteger, nullable=False))
broadcasts = Table(
    "broadcasts",
    metadata,
    _aor(),
    Column("epoch", BigInteger, nullable=False),
    Column("as_id", String(64), nullable=False),
    Column("relay_id", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("media", Text, nullable=False),
    Column("leg_id", Text, nullable=False),
    Column("service", String(MAX_AOR_LENGTH), nullable=False, server_default=""),
)
channels = Table(
    "channels",
    metadata,
    _aor(),
    Column("private", Boolean, nullable=False),
    Column("listed", Text, nullable=False, comment="JSON list of addresses of record"),
    Column("pin", Text, nullable=False, comment="salt:scrypt, hex; empty for none"),
)
nodes = Table(
    "nodes",
    metadata,
    Column("as_id", String(64), primary_key=True),
    Column("address", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
)
dialogs = Table(
    "dialogs",
    metadata,
    Column("dialog_key", String(32), primary_key=True),
    Column("dialog_id", Text, nullable=False),
    Column("as_id", String(64), nullable=False, index=True),
    Column("group_id", Text, nullable=False),
    Column("state", Text, nullable=False),
)


def _forwardings_become_rules(connection: Connection) -> None:
    """Version 1 knew unconditional forwarding alone, in a table of its own."""
    old = Table("forwardings", MetaData(), _aor(), Column("target", Text), Column("active", Boolean))
    for aor, target, active in connection.execute(select(old)).all():
        rules = {"rules": [{"condition": "unconditional", "target": target, "active": active}]}
        connection.execute(insert(diversions), {"aor": aor, "rules": json.dumps(rules)})
    old.drop(connection)


def _broadcasts_name_their_service(connection: Connection) -> None:
    """Up to version 2 there was one policy for all. (The table of channels is made already, as every new one.)"""
    connection.execute(text(f"ALTER TABLE broadcasts ADD COLUMN service VARCHAR({MAX_AOR_LENGTH}) NOT NULL DEFAULT ''"))


calls = Table(
    "calls",
    metadata,
    Column("record_id", String(MAX_AOR_LENGTH + 64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("channel", String(MAX_AOR_LENGTH), nullable=False),
    Column("party", String(MAX_AOR_LENGTH), nullable=False),
    Column("service", String(MAX_AOR_LENGTH), nullable=False),
    Column("started_at", Double, nullable=False, index=True),
    Column("answered_at", Double, nullable=False),
    Column("as_id", String(64), nullable=False),
    Column("relay_id", Text, nullable=False),
    Column("ended_at", Double, index=True),
    Column("ended_by", String(16), nullable=False),
    Column("cause", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    *(Column(name, BigInteger) for name in ("packets_in", "octets_in", "packets_out", "octets_out", "lost")),
)
"""The fields of `protocols.call_record.CallRecord`, in their order."""

_MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {
    1: _forwardings_become_rules,
    2: _broadcasts_name_their_service,
}
"""Steps that bring a database of version n (the key) to n + 1."""


class Rows:
    """Writes whole rows of one table by primary key.

    The statements are compiled once for the database at hand and given to its driver as they are: a registration's
    refresh takes 8 us, against 26 by SQLAlchemy's own way and 64 uncompiled. A row whose `owner` column holds something
    else than the one written is not rewritten: IntegrityError.
    """

    def __init__(self, table: Table, owner: Column[Any] | None = None) -> None:
        self._names = [column.name for column in table.c]
        self._keys = [column.name for column in table.primary_key]
        self._insert = insert(table)
        self._update = update(table).where(*(table.c[key] == bindparam(f"key_{key}") for key in self._keys))
        if owner is not None:
            self._update = self._update.where(owner == bindparam(f"key_{owner.name}"))
            self._keys.append(owner.name)
        self._compiled: tuple[Dialect, SQLCompiler, SQLCompiler] | None = None

    def put(self, connection: Connection, row: dict[str, Any]) -> None:
        """Write the row, new or not. Portable: an update, and an insert where it found nothing to update."""
        values = row | {f"key_{key}": row[key] for key in self._keys}
        compiled = self._compiled
        if compiled is None or compiled[0] is not connection.dialect:
            compiled = self._compiled = self._compile(connection.dialect)
        _, update_row, insert_row = compiled
        if _execute(connection, update_row, values) == 0:
            _execute(connection, insert_row, values)

    def _compile(self, dialect: Dialect) -> tuple[Dialect, SQLCompiler, SQLCompiler]:
        changed = [name for name in self._names if name not in self._keys]
        update_row = self._update.compile(dialect=dialect, column_keys=changed)
        insert_row = self._insert.compile(dialect=dialect, column_keys=self._names)
        assert isinstance(update_row, SQLCompiler)
        assert isinstance(insert_row, SQLCompiler)
        return dialect, update_row, insert_row


def _execute(connection: Connection, compiled: SQLCompiler, values: dict[str, Any]) -> int:
    """How many rows the statement changed. What SQLAlchemy does besides in `exec_driver_sql` is done if it fails."""
    names = compiled.positiontup
    parameters: Any
    if names is not None:
        parameters = [values[name] for name in names]
    else:
        parameters = {name: values[name] for name in compiled.bind_names.values()}
    pooled, dialect = connection.connection, connection.dialect
    cursor = pooled.cursor()
    try:
        cursor.execute(compiled.string, parameters)
        return int(cursor.rowcount)
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, pooled, cursor):
            connection.invalidate(error)
        raise DBAPIError.instance(compiled.string, None, error, dialect.loaded_dbapi.Error, dialect=dialect) from error
    finally:
        cursor.close()


def apply_schema(connection: Connection) -> None:
    """Create the tables or bring them to this version. ValueError when a newer dialcast made them."""
    metadata.create_all(connection)
    found = connection.scalar(select(facts.c.value).where(facts.c.name == "schema_version"))
    version = SCHEMA_VERSION if found is None else int(found)
    if version > SCHEMA_VERSION:
        raise ValueError(f"the database has schema {version}, this dialcast knows {SCHEMA_VERSION}: upgrade dialcast")
    for step in range(version, SCHEMA_VERSION):
        _MIGRATIONS[step](connection)
    if found is None or version < SCHEMA_VERSION:
        Rows(facts).put(connection, {"name": "schema_version", "value": str(SCHEMA_VERSION)})
