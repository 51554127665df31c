"""Callers whose names are formulas for whoever opens the records in a spreadsheet."""

import asyncio
import csv
import io
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialcast.command_line import app
from protocols.call_record import CallRecord
from provisioning.config import Config
from provisioning.store import Store


@pytest.mark.parametrize(
    "party", ["=cmd|' /C calc'!A0@far.example", "+1@x", "-1+1@x", "@SUM(1)@x", "a\r\n=1@x", "\t=1@x"]
)
def test_no_cell_begins_as_a_formula_or_ends_its_line(tmp_path: Path, party: str) -> None:
    record = CallRecord("1001@x/1/ab", "view", "1001@x", party, "8888@x", 1.6e9, 1.6e9, "as", "relay", lost=-3)

    async def write() -> None:
        store = await Store.open(Config(data_dir=tmp_path))
        await store.call_records.write(record)
        await store.close()

    asyncio.run(write())
    output = CliRunner().invoke(app, ["calls", "--data-dir", str(tmp_path), "--since", "2020-01-01", "--csv"]).output
    header, *rows = csv.reader(io.StringIO(output))
    assert len(rows) == 1 and len(rows[0]) == len(header)
    cells = dict(zip(header, rows[0], strict=True))
    assert cells["party"][0] not in "=+-@\t\r" and cells["party"].isprintable()
    assert cells["lost"] == "-3" and cells["channel"] == "1001@x"
