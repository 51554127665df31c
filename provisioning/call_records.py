"""Call records as a table, and each as lines of JSON in a file that other programs read.

The table is the durable copy: `write` returns after its commit. The file gets a line at the start of a call and one at
its end, each in one write to the end of the file by a thread of its own; it is not flushed to the disk line by line. A
file that was moved away (logrotate) is made anew by the next line.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

import structlog
from sqlalchemy import Connection, bindparam, delete, or_, select

from protocols.call_record import CallRecord
from provisioning import schema
from provisioning.database import Database
from provisioning.schema import Rows

PRUNED_AT_ONCE = 1_000
"""Records one transaction removes, so that no call waits for it."""
_COLUMNS = [field.name for field in fields(CallRecord)]

log = structlog.get_logger()


def to_json(record: CallRecord) -> str:
    """One line: which `event` this is, the record's fields, and how many `seconds` the call lasted from its answer."""
    over = record.ended_at is not None
    seconds = round(record.ended_at - record.answered_at, 3) if record.ended_at is not None else None
    return json.dumps({"event": "end" if over else "start", **asdict(record), "seconds": seconds})


class CallFile:
    """A file that lines are added to, whoever moves or removes it meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._torn = False
        self._thread = ThreadPoolExecutor(1, "call-file")

    def append(self, line: str) -> None:
        """Add a line soon, in the order of the calls; a failure is logged."""
        self._thread.submit(self._append, line)

    async def close(self) -> None:
        """Write what is left, flush it to the disk."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _append(self, line: str) -> None:
        data = f"{chr(10) if self._torn else ''}{line}\n".encode()
        try:
            self._torn = os.write(self._current(), data) < len(data)
        except OSError as error:
            log.error("record.not_in_file", file=str(self._path), error=error.strerror)

    def _current(self) -> int:
        """The descriptor of the file of this name."""
        if self._descriptor is not None:
            try:
                if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                    return self._descriptor
            except FileNotFoundError:
                pass  # moved away: below a new one is made
            self._close()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.fsync(descriptor)
            os.close(descriptor)


class CallRecordStore:
    """The port `CallRecords`, and what the operator asks of it."""

    _rows = Rows(schema.calls)
    _open = select(schema.calls).where(schema.calls.c.ended_at.is_(None), schema.calls.c.as_id == bindparam("as_id"))

    def __init__(self, database: Database, file: CallFile | None) -> None:
        self._database = database
        self._file = file

    async def write(self, record: CallRecord) -> None:
        """Insert or rewrite one record; durable on return."""
        if self._file is not None:
            self._file.append(to_json(record))
        row = asdict(record)
        await self._database.run(lambda connection: self._rows.put(connection, row))

    async def unfinished(self, as_id: str) -> Sequence[CallRecord]:
        """The records of one server's calls that have no end."""
        return await self._database.run(
            lambda connection: [CallRecord(*row) for row in connection.execute(self._open, {"as_id": as_id})]
        )

    async def find(self, since: float = 0.0, number: str | None = None, limit: int = 1_000) -> Sequence[CallRecord]:
        """The latest records that began at or after `since`, oldest first; with a number (or `number@domain`) those of
        its broadcasts and of its views."""
        calls = schema.calls.c
        statement = select(schema.calls).where(calls.started_at >= since)
        if number is not None:
            named = (
                [calls.channel == number, calls.party == number]
                if "@" in number
                else [
                    calls.channel.startswith(f"{number}@"),
                    calls.party.startswith(f"{number}@"),
                    calls.party == number,
                ]
            )
            statement = statement.where(or_(*named))
        statement = statement.order_by(calls.started_at.desc(), calls.record_id.desc()).limit(limit)
        found = await self._database.run(lambda connection: [CallRecord(*row) for row in connection.execute(statement)])
        return found[::-1]

    async def prune(self, before: float) -> int:
        """Remove the records of calls that began before; how many."""
        removed = 0
        while count := await self._database.run(lambda connection: _prune(connection, before)):
            removed += count
        return removed

    async def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            await self._file.close()


def _prune(connection: Connection, before: float) -> int:
    calls = schema.calls.c
    oldest = select(calls.record_id).where(calls.started_at < before).order_by(calls.started_at).limit(PRUNED_AT_ONCE)
    names = list(connection.scalars(oldest))
    if names:
        connection.execute(delete(schema.calls).where(calls.record_id.in_(names)))
    return len(names)
