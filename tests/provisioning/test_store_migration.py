"""A database of an older dialcast keeps what its users set."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from protocols.records import DiversionRule, DiversionRules
from provisioning.config import Config
from provisioning.store import Store

VERSION_1 = """
create table facts (name varchar(64) primary key, value text not null);
create table forwardings (aor varchar(320) primary key, target text not null, active boolean not null);
create table broadcasts (
    aor varchar(320) primary key, epoch bigint not null, as_id varchar(64) not null, relay_id text not null,
    state varchar(16) not null, lease_until double not null, opened_at double not null, media text not null,
    leg_id text not null
);
insert into facts values ('schema_version', '1');
insert into forwardings values ('1001@x', '1003@x', 1), ('1002@x', '8888@x', 0);
"""


def test_the_unconditional_forwardings_of_version_1_become_rules(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "dialcast.db") as old:
        old.executescript(VERSION_1)

    async def opened() -> list[DiversionRules | None]:
        store = await Store.open(Config(data_dir=tmp_path))
        found = [(await store.diversions.get(f"{number}@x")).own for number in (1001, 1002, 1003)]
        await store.close()
        return found

    for _ in range(2):  # the second time there is nothing left to do
        assert asyncio.run(opened()) == [
            DiversionRules((DiversionRule("unconditional", "1003@x"),)),
            DiversionRules((DiversionRule("unconditional", "8888@x", active=False),)),
            None,
        ]


def test_a_change_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await Store.open(Config(data_dir=tmp_path))
        rules = DiversionRules((DiversionRule("busy", "1003@x", notify_caller=False),), no_reply_timer=15)
        await store.diversions.change("1001@x", lambda _: rules)

        def refuse(known: DiversionRules | None) -> DiversionRules | None:
            assert known == rules
            raise LookupError("not this time")

        with pytest.raises(LookupError):
            await store.diversions.change("1001@x", refuse)
        assert (await store.diversions.get("1001@x")).own == rules
        await store.close()

    asyncio.run(scenario())
