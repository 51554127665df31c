"""What an operator does to a server that is in use: reload its configuration, look at it, read its records."""

import csv
import io
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from live import going_live, live_now, watching
from server import Server
from typer.testing import CliRunner, Result

from dialcast.command_line import app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dialcast.yaml"


@pytest.fixture
def server(tmp_path: Path, file: Path) -> Iterator[Server]:
    configured(file)
    with Server(tmp_path / "data", config=file) as running:
        yield running


def configured(file: Path, **sections: dict[str, Any]) -> None:
    """Write the file: our own ports of everything, and these sections."""
    own = {"operations": {"as_port": 0, "relay_port": 0}, "service": {"overlay_delay": 0.1}}
    file.write_text(yaml.safe_dump(own | sections))


def command(*arguments: str) -> Result:
    """A command line, in this process: starting another takes seconds."""
    return CliRunner().invoke(app, arguments)


def fetch(server: Server, path: str, of: str = "metrics") -> tuple[int, str]:
    """GET from the server (`metrics`) or its relay (`relay-metrics`), whose ports the ready line tells."""
    ready = dict(word.split("=", 1) for word in server.output[-1].split()[1:])
    try:
        with urllib.request.urlopen(f"http://{ready[of]}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def figure(text: str, name: str) -> float:
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_a_reload_changes_what_it_can_and_no_call_notices(server: Server, file: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(going_live(tmp_path, server, "1001"))
        viewer = stack.enter_context(watching(tmp_path, server, "1002", "1001"))
        status, health = fetch(server, "/healthz")
        assert status == 200 and set(json.loads(health)["parts"]) == {"store", "relay", "sip", "loop"}

        configured(file, service={"max_views_per_number": 1, "overlay_delay": 0.1}, sip={"dscp": 8})
        os.kill(server.process.pid, signal.SIGHUP)
        for part in ("up", "as", "relay"):
            assert server.event("config.reloaded", part=part)["changed"] == ["service.max_views_per_number"]
            assert server.event("config.restart_needed", part=part)["keys"] == ["sip.dscp"]
        before = viewer.pictures()

        file.write_text("sip: {prot: 5080}\n")
        refused = command("reload", "--data-dir", str(server.data))
        assert refused.exit_code == 1 and f"{file}:1: sip.prot: unknown key" in refused.stderr
        assert server.event("config.rejected", part="as")["error"].startswith(f"{file}:1")

        configured(file, subscribers=[{"number": "2001", "password": "secret-of-2001"}])
        done = command("reload", "--data-dir", str(server.data))
        assert done.exit_code == 0 and "subscribers" in done.stdout
        server.event("config.reloaded", part="relay", changed=["service.max_views_per_number", "subscribers"])
        assert "2001" in command("subscriber", "list", "--data-dir", str(server.data)).stdout

        assert viewer.more_pictures_than(before + 10), "the picture never stopped"
        live = live_now(server.data)
        assert live is not None and live["viewers"] == ["1002"]
        assert figure(fetch(server, "/metrics")[1], "dialcast_viewers") == 1
        packets = 'dialcast_relay_packets_total{direction="out"}'
        assert figure(fetch(server, "/metrics", "relay-metrics")[1], packets) > 10
    server.event("broadcast.ended")
    records = json.loads(command("calls", "--json", "--data-dir", str(server.data)).stdout)
    assert [(call["kind"], call["party"].partition("@")[0]) for call in records] == [
        ("broadcast", "1001"),
        ("view", "1002"),
    ]
    assert all(call["ended_at"] and call["octets_in"] is not None for call in records)
    assert records[0]["octets_in"] > 10_000 and records[1]["octets_out"] > 10_000
    names, *rows = csv.reader(io.StringIO(command("calls", "--csv", "--data-dir", str(server.data)).stdout))
    assert [dict(zip(names, row, strict=True))["record_id"] for row in rows] == [call["record_id"] for call in records]
    lines = [json.loads(line) for line in (server.data / "calls.jsonl").read_text().splitlines()]
    assert [(line["event"], line["kind"]) for line in lines[:2]] == [("start", "broadcast"), ("start", "view")]
    assert sorted(line["record_id"] for line in lines if line["event"] == "end") == [c["record_id"] for c in records]
