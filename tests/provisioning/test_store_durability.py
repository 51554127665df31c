"""What was acknowledged survives: kill -9, failing neighbours, closing, other processes."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from protocols.records import StoredDialog
from provisioning.config import Config
from provisioning.database import Database, StoreError
from provisioning.store import Store

ROOT = Path(__file__).parents[2]


def with_database(path: Path, work: Callable[[Database], Awaitable[None]], commit_interval: float = 0.01) -> None:
    async def run() -> None:
        database = await Database.open(f"sqlite:///{path}", commit_interval, watch_interval=0.05)
        try:
            await work(database)
        finally:
            await database.close()

    asyncio.run(run())


def put_fact(name: str) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(text("INSERT INTO facts VALUES (:name, 'x')"), {"name": name})


def facts_on_disk(path: Path) -> set[str]:
    other = sqlite3.connect(path)
    names = {name for (name,) in other.execute("SELECT name FROM facts")}
    other.close()
    return names


@pytest.mark.parametrize("after", [0.15, 0.4, 0.8])
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, after: float) -> None:
    """The writer process acknowledges on stdout, is killed in full flight, and every acknowledged row is there."""
    command = [sys.executable, str(Path(__file__).with_name("durable_writer.py")), str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as writer:
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(after)
        writer.kill()
        lines = [first, *writer.stdout.read().splitlines(keepends=True)]
    acknowledged = [tuple(map(int, line.split())) for line in lines if line.endswith(b"\n")]
    assert len(acknowledged) > 50
    dialogs, cseqs = asyncio.run(_read_back(tmp_path))
    assert {f"{worker}-{count}" for worker, count in acknowledged} <= dialogs
    for worker, count in acknowledged:
        assert cseqs[worker, count % 3] >= count


async def _read_back(data_dir: Path) -> tuple[set[str], dict[tuple[int, int], int]]:
    store = await Store.open(Config(data_dir=data_dir))
    dialogs = {dialog.dialog_id for dialog in await store.dialogs.owned_by("as")}
    cseqs = {}
    for worker in range(50):
        for known in await store.location.bindings(f"{worker}@x", 0.0):
            cseqs[worker, int(known.contact.partition("n=")[2])] = known.cseq
    await store.close()
    return dialogs, cseqs


def test_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: the log is flushed at each commit, so power loss takes nothing acknowledged."""

    async def work(database: Database) -> None:
        def pragma(name: str) -> Callable[[Connection], object]:
            return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert await database.run(pragma("synchronous")) == 2
        assert await database.run(pragma("journal_mode")) == "wal"

    with_database(tmp_path / "db", work)


def test_a_write_is_in_the_file_when_its_caller_resumes(tmp_path: Path) -> None:
    async def write(database: Database, name: str) -> None:
        await database.run(put_fact(name))
        assert name in facts_on_disk(tmp_path / "db")

    async def work(database: Database) -> None:
        await asyncio.gather(*(write(database, f"fact {number}") for number in range(50)))

    with_database(tmp_path / "db", work)


def test_concurrent_writes_share_commits(tmp_path: Path) -> None:
    transactions: list[object] = []

    async def work(database: Database) -> None:
        def operation(connection: Connection) -> None:
            transactions.append(connection.get_transaction())

        await asyncio.gather(*(database.run(operation) for _ in range(500)))

    with_database(tmp_path / "db", work)
    assert len(transactions) == 500
    assert len({id(transaction) for transaction in transactions}) <= 3


def test_a_busy_event_loop_does_not_starve_the_writer(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        writes = asyncio.gather(*(database.run(put_fact(str(number))) for number in range(1000)))
        started = time.monotonic()
        while not writes.done():
            assert time.monotonic() - started < 2
            busy_until = time.perf_counter() + 0.001
            while time.perf_counter() < busy_until:
                pass
            await asyncio.sleep(0)
        await writes

    with_database(tmp_path / "db", work)


def test_a_lock_held_by_another_process_fails_the_waiting_once_and_then_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioning.database.LOCK_TIMEOUT", 0.2)

    async def work(database: Database) -> None:
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        asked = (database.run(put_fact(str(number))) for number in range(20))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(result).rpartition(": ")[2] for result in results} == {"database is locked"}
        assert time.monotonic() - started < 1.5, "not one after the other"
        other.execute("ROLLBACK")
        other.close()
        await database.run(put_fact("free"))

    with_database(tmp_path / "db", work)


def test_a_lone_write_does_not_wait_for_company(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        started = time.monotonic()
        await database.run(put_fact("alone"))
        assert time.monotonic() - started < 0.4

    with_database(tmp_path / "db", work, commit_interval=0.5)


def test_a_failing_operation_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    def fails(connection: Connection) -> None:
        put_fact("half done")(connection)
        raise LookupError("mine")

    async def work(database: Database) -> None:
        results = await asyncio.gather(
            database.run(put_fact("before")),
            database.run(fails),
            database.run(lambda connection: connection.execute(text("nonsense"))),
            database.run(put_fact("after")),
            database.run(put_fact("after")),
            return_exceptions=True,
        )
        assert [type(result) for result in results if isinstance(result, Exception)] == [
            LookupError,
            StoreError,
            StoreError,
        ]
        assert facts_on_disk(tmp_path / "db") >= {"before", "after"}
        assert "half done" not in facts_on_disk(tmp_path / "db")

    with_database(tmp_path / "db", work)


def test_a_caller_that_gave_up_does_not_keep_others_waiting(tmp_path: Path) -> None:
    seen: list[str] = []

    async def work(database: Database) -> None:
        task = asyncio.create_task(database.run(put_fact("given up"), lambda _: seen.append("then")))
        await asyncio.sleep(0)
        task.cancel()
        await database.run(put_fact("next"))
        assert seen == ["then"], "the cache learns of it all the same"
        assert facts_on_disk(tmp_path / "db") >= {"given up", "next"}

    with_database(tmp_path / "db", work)


def test_closing_finishes_what_was_asked_and_refuses_more(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        asked = [asyncio.create_task(database.run(put_fact(str(number)))) for number in range(100)]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*asked)
        with pytest.raises(StoreError, match="closed"):
            await database.run(put_fact("late"))

    with_database(tmp_path / "db", work)
    assert facts_on_disk(tmp_path / "db") >= {str(number) for number in range(100)}


def test_a_value_no_column_can_hold_is_an_error_of_its_caller_only(tmp_path: Path) -> None:
    async def run() -> None:
        store = await Store.open(Config(data_dir=tmp_path))
        with pytest.raises(StoreError):
            await store.dialogs.save(StoredDialog("\udc80", "as", "", ""))
        await store.dialogs.save(StoredDialog("fine", "as", "", ""))
        await store.close()

    asyncio.run(run())


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async def newer(database: Database) -> None:
        await database.run(lambda connection: connection.execute(text("UPDATE facts SET value = '99'")))

    async def nothing(database: Database) -> None: ...

    with_database(tmp_path / "db", newer)
    with pytest.raises(StoreError, match=r"schema 99, this dialcast knows [0-9]+: upgrade"):
        with_database(tmp_path / "db", nothing)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("no url hunter2", "store.url is no database URL"),
        ("nosuch://u:hunter2@h/d", "store.url is no database URL"),
        ("sqlite:////nowhere/at/all/db", "No such file or directory"),
        ("sqlite:////proc", "is not a regular file"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_clear_line(url: str, expected: str) -> None:
    async def run() -> None:
        await Database.open(url)

    with pytest.raises(StoreError, match=expected) as caught:
        asyncio.run(run())
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
