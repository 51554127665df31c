"""`dialcast calls`: the records of broadcasts and views, as a table for people, as JSON or CSV for programs."""

import csv
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocols.call_record import CallRecord
from protocols.printable import printable
from provisioning.commands import ConfigFile, DataDir, load, one_line_errors, with_store

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def calls(
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="How far back: 90m, 12h, 7d, 2w, or a date, as 2026-03-31.")
    ] = "1d",
    number: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Only this number's broadcasts and views.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="At most so many, the latest.")] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a line of names.")] = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """List who broadcast and who watched: when, how long, how it ended, what it came to.

    `1001` is a broadcast, `1002 > 1001` a view of it. The relay received from and sent to that party.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    begin = _moment(since, time.time())
    with one_line_errors():
        config = load(config_file, data_dir)
        found = with_store(config, lambda store: store.call_records.find(begin, number, limit))
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in found]))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow([field.name for field in fields(CallRecord)])
        writer.writerows(map(_csv_cell, asdict(record).values()) for record in found)
    else:
        Console(highlight=False, markup=False).print(_table(found) if found else f"no calls since {_at(begin)}")


def _csv_cell(value: object) -> object:
    """A value as a spreadsheet may read it: what a stranger chose to be called is no formula there."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _moment(text: str, now: float) -> float:
    """Unix seconds of `12h` ago, or of a date or time, local unless it says otherwise."""
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text[:40]} is neither a span like 12h nor a date like 2026-03-31") from None


def _table(found: Sequence[CallRecord]) -> Table:
    """Fits 80 columns: `1001` broadcast, `1002 > 1001` watched."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("began", no_wrap=True)
    table.add_column("who", overflow="fold")
    for name in ("lasted", "received", "sent", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("end", min_width=15)  # "Broadcast ended" in one line
    for record in found:
        table.add_row(*_cells(record))
    return table


def _cells(record: CallRecord) -> Iterator[str]:
    began = _at(record.started_at)
    yield began[5:] if began.startswith(str(datetime.now().year)) else began
    watched = f" > {_number(record.channel)}" if record.kind == "view" else ""
    yield _number(record.party) + watched
    yield "" if record.ended_at is None else _span(record.ended_at - record.answered_at)
    yield _size(record.octets_in)
    yield _size(record.octets_out)
    yield "" if record.lost is None else str(record.lost)
    yield "running" if record.ended_at is None else printable(record.reason)


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _number(party: str) -> str:
    return printable(party.partition("@")[0])


def _span(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _size(octets: int | None) -> str:
    if octets is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= size:
            return f"{octets / size:.1f} {unit}"
    return f"{octets} B"
