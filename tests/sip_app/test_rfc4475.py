"""Each of RFC 4475's 49 messages gets what the RFC asks for, from the parser and from the running server."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rfc4475 import ALIASES, CORPUS, ROOT, TORTURE, Torture, table
from ua import running

from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.message import Request, check_request, parse_message
from provisioning.config import Config, SipConfig


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.dat").read_bytes()


def look_up(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


async def tortured(trusted: bool, over: str) -> dict[str, list[bytes]]:
    """Every message of one transport sent to one server, each from a socket of its own: the answers.

    Two servers, as cparam01 and cparam02 carry the same branch and would count as one transaction.
    """
    rows = [row for row in TORTURE if row.over == over]
    answers: dict[str, list[bytes]] = {row.name: [] for row in rows}
    expected = [row.name for row in rows if (row.peer if trusted else row.server) is not None]
    with tempfile.TemporaryDirectory() as folder:
        sip = SipConfig(port=0, requests_per_second=5000, trusted_peers=("127.0.0.1",) if trusted else ())
        config = Config(data_dir=Path(folder), domain_aliases=ALIASES, sip=sip)
        async with running(Path(folder), config=config) as world:
            for row in rows:
                data = read(row.name)
                phone = await world.phone("9", transport=over, register=False)
                phone._received = answers[row.name].append  # type: ignore[method-assign]  # raw bytes
                # Over UDP the answer goes where the Via says; `rport` makes that the socket it came from.
                phone.send_raw(data.replace(b";branch", b";rport;branch", 1) if over == "udp" else data)
            for _ in range(40):
                await asyncio.sleep(0.1)
                if all(answers[name] for name in expected):
                    break
    return answers


@cache
def all_answers(trusted: bool) -> dict[str, list[bytes]]:
    return asyncio.run(tortured(trusted, "udp")) | asyncio.run(tortured(trusted, "tcp"))


every_message = pytest.mark.parametrize("row", TORTURE, ids=[f"{row.section}-{row.name}" for row in TORTURE])


@every_message
def test_parser_meets_the_rfc(row: Torture) -> None:
    data = read(row.name)
    if row.parser == "refuses":
        with pytest.raises(SipParseError):
            _ = parse_message(data).cseq
        return
    message = parse_message(data)
    for path, value in row.values.items():
        assert look_up(message, path) == value, path
    if row.parser == "accepts":
        if isinstance(message, Request):
            check_request(message)
        return
    assert isinstance(message, Request)
    with pytest.raises(BadRequest) as refusal:
        check_request(message)
    assert str(refusal.value.status) == row.parser


@every_message
@pytest.mark.parametrize("trusted", [False, True], ids=["stranger", "peer"])
def test_server_meets_the_rfc(row: Torture, trusted: bool) -> None:
    expected = row.peer if trusted else row.server
    got = {int(answer.split(b" ")[1]) for answer in all_answers(trusted)[row.name]} - {100}
    assert got == (set() if expected is None else {expected})


def test_unknown_extensions_are_all_named() -> None:
    (answer,) = all_answers(False)["bext01"]
    assert parse_message(answer).headers.values("unsupported") == ["nothingsupportsthis", "nothingsupportsthiseither"]


def test_the_table_holds_every_message_once() -> None:
    assert sorted(path.stem for path in CORPUS.glob("*.dat")) == sorted(row.name for row in TORTURE)


def test_the_documentation_shows_this_table() -> None:
    assert table() in (ROOT / "docs" / "conformance.md").read_text(), "run tests/sip_app/rfc4475.py and paste"
