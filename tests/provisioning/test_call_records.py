"""Call records last: in the table, and as lines that survive rotation; old ones go."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialcast.command_line import app
from protocols.call_record import CallRecord
from provisioning.call_records import CallFile
from provisioning.config import Config
from provisioning.store import Store

DAY = 86_400.0
NOW = 1_700_000_000.0
BROADCAST = CallRecord("1001@x/1", "broadcast", "1001@x", "1001@x", "8888@x", NOW - 60, NOW - 59.5, "as-1", "relay-1")
VIEW = replace(
    BROADCAST, record_id="1001@x/1/ab", kind="view", party="1002@x", started_at=NOW - 30, answered_at=NOW - 30
)
ENDED = replace(
    VIEW,
    ended_at=NOW - 10,
    ended_by="party",
    cause=16,
    reason="Hung up",
    packets_in=1,
    octets_in=172,
    packets_out=900,
    octets_out=800_000,
    lost=3,
)


def in_store(folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await Store.open(Config(data_dir=folder))
        try:
            await test(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_a_record_is_one_row_from_its_start_to_its_end(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        records = store.call_records
        await records.write(BROADCAST)
        await records.write(VIEW)
        assert await records.unfinished("as-1") == [BROADCAST, VIEW]
        await records.write(ENDED)
        assert await records.unfinished("as-1") == [BROADCAST]
        assert await records.unfinished("as-2") == []
        assert await records.find() == [BROADCAST, ENDED]

    in_store(tmp_path, test)


def test_records_are_found_by_time_and_by_either_number(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        records = store.call_records
        for record in (BROADCAST, VIEW):
            await records.write(record)
        assert await records.find(since=NOW - 45) == [VIEW]
        assert await records.find(number="1002") == [VIEW]
        assert await records.find(number="1001") == [BROADCAST, VIEW]
        assert await records.find(number="1002@x") == [VIEW]
        assert await records.find(number="100") == await records.find(number="1001@y") == []
        assert await records.find(limit=1) == [VIEW]

    in_store(tmp_path, test)


def test_what_is_past_its_time_leaves_the_table_in_small_steps(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        records = store.call_records
        writes = [records.write(replace(ENDED, record_id=str(i), started_at=NOW - i * DAY)) for i in range(1_200)]
        await asyncio.gather(*writes)
        assert await records.prune(NOW - 90 * DAY) == 1_109
        assert len(await records.find()) == 91
        assert await records.prune(NOW - 90 * DAY) == 0

    in_store(tmp_path, test)


def test_each_line_of_the_file_is_an_event_of_its_own(tmp_path: Path) -> None:
    evil = replace(ENDED, reason='x"}\n{"event": "end", "party": "nobody"}\x1b[2J')

    async def test(store: Store) -> None:
        await store.call_records.write(VIEW)
        await store.call_records.write(evil)

    in_store(tmp_path, test)
    text = (tmp_path / "calls.jsonl").read_text()
    start, end = (json.loads(line) for line in text.splitlines())
    assert (start["event"], start["seconds"], start["ended_at"]) == ("start", None, None)
    assert (end["event"], end["seconds"], end["reason"]) == ("end", 20.0, evil.reason)
    assert "\x1b" not in text
    assert (tmp_path / "calls.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_rotated_away_is_made_anew_and_no_line_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        file = CallFile(tmp_path / "calls.jsonl")
        for index in range(300):
            file.append(str(index))
            if index % 50 == 49:
                await asyncio.sleep(0.01)
                (tmp_path / "calls.jsonl").rename(tmp_path / f"calls.jsonl.{index}")
        await file.close()

    asyncio.run(run())
    lines = [int(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(lines) == list(range(300))


def test_a_file_that_cannot_be_written_costs_no_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "calls.jsonl").mkdir()

    async def test(store: Store) -> None:
        await store.call_records.write(VIEW)
        assert await store.call_records.find() == [VIEW]

    in_store(tmp_path, test)
    said = capsys.readouterr()
    assert "record.not_in_file" in said.out + said.err


def test_a_party_with_a_name_of_escapes_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    """A trusted peer may say that anything called."""
    evil = replace(VIEW, party="10\x1b[2J\n[red]@x", reason="\x9b31m", ended_at=NOW)

    async def test(store: Store) -> None:
        await store.call_records.write(evil)

    in_store(tmp_path, test)
    output = CliRunner().invoke(app, ["calls", "--data-dir", str(tmp_path), "--since", "2020-01-01"]).output
    assert "10\\x1b[2J\\n[red]" in output and "\\x9b31m" in output
    assert "\x1b" not in output and "\x9b" not in output


def test_the_command_lists_them_for_people_and_for_programs(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        await store.call_records.write(replace(BROADCAST))
        await store.call_records.write(ENDED)

    in_store(tmp_path, test)
    run = CliRunner().invoke
    where = ["--data-dir", str(tmp_path), "--since", "2020-01-01"]
    table = run(app, ["calls", *where], env={"COLUMNS": "80"}).output.splitlines()
    assert table[0].split() == ["began", "who", "lasted", "received", "sent", "lost", "end"]
    assert table[1].split()[2:] == ["1001", "running"]
    assert table[2].split()[2:] == ["1002", ">", "1001", "0:00:20", "172", "B", "800.0", "kB", "3", "Hung", "up"]
    assert json.loads(run(app, ["calls", *where, "--json"]).output)[1]["octets_out"] == 800_000
    assert (
        run(app, ["calls", *where, "--csv", "--number", "1002"]).output.splitlines()[1].startswith("1001@x/1/ab,view,")
    )
    assert run(app, ["calls", "--data-dir", str(tmp_path), "--since", "1h"]).output.startswith("no calls since")
    assert run(app, ["calls", "--since", "yesterday"]).exit_code == 2
