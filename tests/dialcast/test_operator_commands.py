"""The operator's commands name their server alike, and their tables fit a terminal of 80 columns."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from dialcast.command_line import app
from protocols.call_record import CallRecord
from provisioning.calls_cli import _table
from provisioning.config import OPERATOR_SOCKET
from sip_app.diversion import codes


@contextmanager
def answering(folder: Path, answer: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """A server's socket that gives one answer; the call tells what was asked."""
    folder.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(folder / OPERATOR_SOCKET))
        door.listen()
        asked: list[Any] = []

        def serve() -> None:
            peer, _ = door.accept()
            with peer, peer.makefile("rb") as lines:
                asked.append(json.loads(lines.readline()))
                peer.sendall(json.dumps(answer).encode() + b"\n")

        server = threading.Thread(target=serve)
        server.start()
        yield lambda: asked[0]
        server.join(5)


LIVE: dict[str, Any] = {
    "number": "1001",
    "channel": "1001@dialcast.internal",
    "state": "live",
    "seconds": 4000,
    "media": ["audio", "video"],
    "viewers": ["1002", "1003", "1004"],
    "forwarded": True,
    "service": "8888@dialcast.internal",
    "as_id": "as-0123456789abcdef",
}


@pytest.mark.parametrize("how", ["option", "environment", "folder"])
def test_the_server_is_found_by_its_configuration_or_its_folder(tmp_path: Path, how: str) -> None:
    file, folder = tmp_path / "dialcast.yaml", tmp_path / "data"
    file.write_text(f"data_dir: {folder}\n")
    words = {"option": ["-c", str(file)], "environment": [], "folder": ["--data-dir", str(folder)]}[how]
    environment = {"DIALCAST_CONFIG": str(file)} if how == "environment" else {}
    for command in (["live", "list"], ["blocks"], ["reload"]):
        answer = {"ok": True, "broadcasts": [], "blocks": [], "changed": [], "restart": []}
        with answering(folder, answer) as asked:
            done = CliRunner().invoke(app, [*command, *words], env=environment)
            assert done.exit_code == 0, done.output
            assert asked()["command"] == command[-1]
        (folder / OPERATOR_SOCKET).unlink()


def test_a_server_that_is_not_there_tells_how_to_name_another(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["blocks", "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"dialcast: no server answers at {tmp_path / OPERATOR_SOCKET}")
    assert "--data-dir FOLDER, or -c FILE" in done.stderr


def test_the_list_of_broadcasts_fits_80_columns(tmp_path: Path) -> None:
    with answering(tmp_path, {"ok": True, "broadcasts": [LIVE]}):
        shown = CliRunner().invoke(app, ["live", "list", "--data-dir", str(tmp_path)], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "66:40" in shown
    assert LIVE["as_id"] in shown.replace("\n", "").replace(" ", "")
    assert "to 8888" in shown


def test_a_broadcast_of_which_nothing_is_heard_is_marked(tmp_path: Path) -> None:
    with answering(tmp_path, {"ok": True, "broadcasts": [LIVE | {"unheard": True}]}):
        shown = CliRunner().invoke(app, ["live", "list", "--data-dir", str(tmp_path)], env={"COLUMNS": "80"}).stdout
    assert "no media" in shown.splitlines()[1]


def test_the_end_of_a_call_stands_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = CallRecord("r", "view", "1001@x", "1002@x", "8888@x", 1.7e9, 1.7e9, "as-1", "relay-1")
    view = replace(view, octets_in=123_400_000, octets_out=500_100_000, lost=1234)
    ended = replace(view, ended_at=1.7e9 + 60, reason="Broadcast ended")
    Console(width=80).print(_table([ended]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "1002 > 1001" in lines[1] and lines[1].rstrip().endswith("Broadcast ended")


def test_every_service_code_the_server_takes_is_listed() -> None:
    shown = CliRunner().invoke(app, ["phone", "codes", "list"]).stdout
    for code, service in codes._SERVICES.items():
        assert f"*{code}*NUMBER#" in shown, service.name


@pytest.mark.parametrize("command", [["calls"], ["subscriber", "list"], ["channel", "show", "1001"]])
def test_whoever_only_reads_makes_no_database_and_is_told_how_to_name_one(tmp_path: Path, command: list[str]) -> None:
    folder = tmp_path / "dialcast-data"
    done = CliRunner().invoke(app, [*command, "--data-dir", str(folder)])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"dialcast: no database in {folder}: ")
    assert "--data-dir FOLDER, or -c FILE" in done.stderr
    assert not folder.exists()


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"dialcast \d+\.\S+\n", CliRunner().invoke(app, ["--version"]).stdout)


@pytest.mark.parametrize("command", [["up", "--log-level", "loud"], ["phone", "watch", "1001", "--receive", "loud"]])
def test_a_choice_that_is_none_is_named_without_the_librarys_words(command: list[str]) -> None:
    said = CliRunner().invoke(app, command).stderr
    assert "'loud' is not one of '" in said
    assert "Value error" not in said


def helps(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The help of a command and of all within it, by its words."""
    yield " ".join(words), CliRunner().invoke(app, [*words, "--help"]).stdout
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    for name in names:
        yield from helps(command.get_command(None, name), (*words, name))


def test_all_values_are_named_alike_in_every_help() -> None:
    """A word in capitals, or the choices as [one|other]."""
    for words, text in helps(get_command(app)):
        options = text.partition("Options:\n")[2].partition("\n\n")[0]
        for value in re.findall(r"^  (?:-\w, )?--[\w-]+ (\S+)", options, re.MULTILINE):
            assert value == "/" or re.fullmatch(r"[A-Z]+(x[A-Z]+)?([.:/]\w+)?|\[[a-z|]+\]", value), (words, value)
        assert not re.search(r"^Usage: .*[\[{][a-z]", text, re.MULTILINE), words
