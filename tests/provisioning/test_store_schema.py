"""The tables and statements are ones any database takes."""

import asyncio
import sys

import pytest
from sqlalchemy import Dialect, create_engine, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from provisioning import schema
from provisioning.database import Database, StoreError

DIALECTS: list[type[Dialect]] = [postgresql.dialect, mysql.dialect, sqlite.dialect]


@pytest.mark.parametrize("kind", DIALECTS)
def test_every_table_can_be_made_anywhere(kind: type[Dialect]) -> None:
    dialect = kind()
    for table in schema.metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))
        assert all(str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes)


@pytest.mark.parametrize("paramstyle", ["qmark", "named", "numeric"])
def test_a_row_is_written_whatever_way_the_driver_takes_values(paramstyle: str) -> None:
    rows = schema.Rows(schema.overlays)
    row = {"aor": "a@x", "target": "t", "group_id": "g", "epoch": 1}
    engine = create_engine("sqlite://", paramstyle=paramstyle)
    with engine.begin() as connection:
        schema.apply_schema(connection)
        for changes in ({}, {"target": "100%"}, {"aor": "b@x"}):
            rows.put(connection, row | changes)
        found = connection.execute(select(schema.overlays).order_by(schema.overlays.c.aor)).all()
        assert found == [("a@x", "100%", "g", 1), ("b@x", "t", "g", 1)]
    engine.dispose()


def test_a_schema_is_applied_twice_without_harm() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        schema.apply_schema(connection)
        schema.apply_schema(connection)
        assert connection.execute(select(schema.facts)).all() == [("schema_version", str(schema.SCHEMA_VERSION))]
    engine.dispose()


def test_where_the_postgresql_driver_is_missing_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install '\.\[postgresql\]'"):
        asyncio.run(Database.open("postgresql+psycopg://dialcast@127.0.0.1/dialcast"))
