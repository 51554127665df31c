"""The SIPp suite (sipp_scenarios/), played by its own command; and that its behaviours can fail."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from evented import ROOT

from sipp_scenarios.__main__ import main
from sipp_scenarios.behaviours import CATALOGUE
from sipp_scenarios.own_server import PRIVATE, OwnServer, Target, sample_accounts
from sipp_scenarios.reference import README, with_table
from sipp_scenarios.scenarios import SCENARIOS
from sipp_scenarios.suite import LEFTOVERS, Result, play
from sipp_scenarios.world import Wishes

pytestmark = pytest.mark.timeout(300)  # the whole suite is played in one fixture
PLAYED = [entry.name for entry in CATALOGUE.values() if entry.kind != "load"]
SUITE = [sys.executable, "-m", "sipp_scenarios"]
NO_PROTECTION = {
    "services": [
        {"number": "8888", "second_attempt": "takeover"},
        {"number": PRIVATE, "viewers": "authenticated"},
    ],
    "sip": {"port": 0, "min_expires": 1, "requests_per_second": 100_000, "max_headers": 1_000},
    "security": {"failures_before_block": 1_000, "delay_max": 0},
    "announcements": {"codes": False},
}
UNPROTECTED = [
    *("second_attempt", "private_broadcast", "register_too_briefly", "code_confirmed_by_voice"),
    *("huge_headers", "floods", "guesses_passwords"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Everything but the load, played once."""
    file = tmp_path_factory.mktemp("suite") / "results.json"
    command = [*SUITE, "--only", "flow", "misbehaviour", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert file.exists(), done.stdout + done.stderr
    found = {result["name"]: result for result in json.loads(file.read_text())["results"]}
    assert (done.returncode == 0) == all(result["outcome"] == "passed" for result in found.values())
    return found


@pytest.mark.parametrize("name", [*PLAYED, LEFTOVERS])
def test_a_phone_that_behaves_so_gets_what_it_should(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["outcome"] == "passed", results[name]["remark"]


@contextmanager
def yes_man() -> Iterator[str]:
    """A peer that says 200 to every request, and never anything else; its HOST:PORT."""
    copied = ("via:", "from:", "to:", "call-id:", "cseq:")

    def agree() -> None:
        while True:
            data, sender = line.recvfrom(65_535)
            if data == b"end":
                return
            if data.startswith((b"ACK", b"SIP/2.0")):
                continue
            lines = [text for text in data.decode(errors="replace").split("\r\n") if text.lower().startswith(copied)]
            answer = [
                "SIP/2.0 200 OK",
                *(f"{x};tag=y" if x.startswith("To:") and "tag=" not in x else x for x in lines),
            ]
            line.sendto("\r\n".join([*answer, "Content-Length: 0", "", ""]).encode(errors="replace"), sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=agree, daemon=True)
        thread.start()
        yield f"127.0.0.1:{line.getsockname()[1]}"
        line.sendto(b"end", line.getsockname())
        thread.join(5)


def outcomes(names: list[str], target: Target) -> dict[str, str]:
    """How behaviours went."""
    seen: list[Result] = []
    play(names, target, Wishes(), 5, seen.append)
    return {result.name: result.outcome for result in seen}


def test_none_passes_against_a_peer_that_says_yes_to_everything() -> None:
    with yes_man() as peer:
        accounts = sample_accounts("3001-3060", "any")
        found = outcomes(PLAYED, Target(peer, "", accounts))
    assert [name for name, outcome in found.items() if outcome == "passed"] == []
    assert list(found.values()).count("failed") > 40


def test_those_about_protection_fail_where_there_is_none() -> None:
    with OwnServer(NO_PROTECTION) as target:
        found = outcomes(UNPROTECTED, Target(target.udp, target.tcp, target.accounts, own=True))
    assert found == dict.fromkeys(found, "failed") and len(found) == len(UNPROTECTED)


def test_each_load_runs_without_failures_and_says_how_long_answers_took(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    short = ["--calls", "20", "--rate", "20", "--hold", "0.1"]
    with OwnServer() as target:  # without the wait for what is left, which the other tests do
        numbers = f"{target.accounts[0].number}-{target.accounts[-1].number}"
        assert main(["--server", target.udp, "--numbers", numbers, "--only", "load", *short, "--json", str(file)]) == 0
    for result in json.loads(file.read_text())["results"]:
        assert "none failed: median" in result["remark"]


def test_the_scenarios_are_written_as_files(tmp_path: Path) -> None:
    assert main(["--write-xml", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(SCENARIOS)
    for path in tmp_path.iterdir():
        assert ElementTree.parse(path).getroot().tag == "scenario"


def test_wrong_usage_is_said_and_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(["--only", "no_such_behaviour"])
    assert wrong.value.code == 2
    assert "--list" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert "never_acknowledges" in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["--server", server, "--only", "options"]) == 2
    assert f"nobody answers OPTIONS at {server}" in capsys.readouterr().err


def test_the_readme_lists_the_behaviours_as_they_are() -> None:
    assert README.read_text() == with_table(README.read_text()), "run python -m sipp_scenarios.reference"
