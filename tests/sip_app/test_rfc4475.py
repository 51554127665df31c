"""Each of RFC 4475's 49 messages gets what the RFC asks for, from the parser and from the running server."""

import asyncio
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rfc4475 import ALIASES, CORPUS, ROOT, TORTURE, Torture, table
from ua import Phone, World, running

from protocols.records import DiversionRule, DiversionRules
from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.message import Request, check_request, make_response, parse_message
from protocols.sip.uri import SipUri, number_key
from provisioning.config import Config, DomainConfig, SipConfig
from provisioning.subscribers import make_subscriber

FORWARDED = ("invut", "sdp01")
"""Calls to user@example.com that we answer ourselves, as it is forwarded to the service by then."""
ROUTE = b"Route: <sip:127.0.0.1:5080>\r\n"
"""In mpart01: a hop that is not there."""


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.dat").read_bytes()


def look_up(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


async def send(world: World, row: Torture, answers: list[bytes], without: bytes = b"nothing of it") -> None:
    """One message from a socket of its own, where all that comes back is kept as it is."""
    data = read(row.name).replace(without, b"")
    phone = await world.phone("9", transport=row.over, register=False)
    phone._received = answers.append  # type: ignore[method-assign]  # raw bytes
    if row.over == "udp":  # the answer goes where the Via says; `rport` makes that the socket it came from
        via = (rb";branch", b";rport;branch") if b";branch" in data else (rb"(?m)^(Via: [^\r]*)", rb"\1;rport")
        data = re.sub(*via, data, count=1)
    phone.send_raw(data)


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
                await send(world, row, answers[row.name])
            for _ in range(40):
                await asyncio.sleep(0.1)
                if all(answers[name] for name in expected):
                    break
    return answers


@cache
def all_answers(trusted: bool) -> dict[str, list[bytes]]:
    return asyncio.run(tortured(trusted, "udp")) | asyncio.run(tortured(trusted, "tcp"))


@dataclass(frozen=True, slots=True)
class Served:
    """What whoever may came to: the answers, and the requests the phones got."""

    answers: dict[str, list[bytes]]
    rung: list[Request]


async def served(over: str) -> Served:
    """The messages of one transport from a trusted peer, where every number they are for has an account and, unless
    it registers now, a phone that takes everything. The number of FORWARDED is forwarded to the service at the end."""
    rows = [row for row in TORTURE if row.over == over]
    world_of = Served({row.name: [] for row in rows}, [])
    wanted = {row.name: number_called(row) for row in rows if row.outcome == 200 or row.name in FORWARDED}
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            data_dir=Path(folder),
            domain="example.com",
            domain_aliases=("registrar.example.com", "vivekg.chair-dnrc.example.com"),
            domains=tuple([DomainConfig(name=name) for name in ("example.net", "example.org", "company.com")]),
            cross_domain_calls=True,
            sip=SipConfig(port=0, requests_per_second=5000, trusted_peers=("127.0.0.1",)),
        )
        async with running(Path(folder), config=config) as world, asyncio.TaskGroup() as phones:
            for aor in set(wanted.values()):
                await world.store.credentials.put(make_subscriber(config, aor, "secret"))
            ringing = {
                number_called(row): request
                for row in rows
                if row.name in wanted and isinstance(request := parse_message(read(row.name)), Request)
                if request.method != "REGISTER"
            }
            answering = []
            for request in ringing.values():
                phone = await world.phone("9", register=False)
                uri = request.uri
                lines = [("Contact", phone.contact), ("Expires", "600")]
                host = request.parsed_uri.host if isinstance(request.parsed_uri, SipUri) else ""
                register = phone.build("REGISTER", f"sip:{host}", to=f"<{uri}>", from_=f"<{uri}>", headers=lines)
                assert (await phone.ask(register)).status == 200
                answering.append(phones.create_task(take_everything(phone, world_of.rung)))
            for row in rows:
                if row.name not in FORWARDED:
                    await send(world, row, world_of.answers[row.name], ROUTE)
            await come_in(world_of, [row.name for row in rows if row.outcome and row.name not in FORWARDED])
            rules = DiversionRules((DiversionRule("unconditional", "8888@example.com"),))
            await world.store.diversions.change("user@example.com", lambda own: rules)
            for row in rows:
                if row.name in FORWARDED:
                    await send(world, row, world_of.answers[row.name])
            await come_in(world_of, [row.name for row in rows if row.outcome])
            for task in answering:
                task.cancel()
    return world_of


def number_called(row: Torture) -> str:
    """The address of record a message is for."""
    request = parse_message(read(row.name))
    assert isinstance(request, Request)
    uri = request.to.uri if request.method == "REGISTER" else request.parsed_uri
    assert isinstance(uri, SipUri)
    return number_key(uri, uri.host)


async def take_everything(phone: Phone, rung: list[Request]) -> None:
    """Ring, and take every call and every other request."""
    while True:
        tx, request = await phone.requests.get()
        rung.append(request)
        for status in (180, 200) if request.method == "INVITE" else (200,):
            answer = make_response(request, status, to_tag="t", headers=[("Contact", phone.contact)])
            phone.layer.send_response(tx, answer, phone.now)
        phone.pump()


async def come_in(served: Served, names: list[str]) -> None:
    """Wait for the final answers to these, four seconds at most."""
    for _ in range(40):
        await asyncio.sleep(0.1)
        if all(any(status >= 200 for status in statuses(served.answers[name])) for name in names):
            break


def statuses(answers: list[bytes]) -> set[int]:
    return {int(answer.split(b" ")[1]) for answer in answers if answer.startswith(b"SIP/2.0 ")} - {100}


@cache
def all_served() -> Served:
    over_udp, over_tcp = asyncio.run(served("udp")), asyncio.run(served("tcp"))
    return Served(over_udp.answers | over_tcp.answers, over_udp.rung + over_tcp.rung)


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
    assert statuses(all_answers(trusted)[row.name]) == (set() if expected is None else {expected})


@every_message
def test_who_may_gets_what_the_rfc_asks_for(row: Torture) -> None:
    expected = set() if row.outcome is None else {row.outcome}
    if row.outcome == 200:
        request = parse_message(read(row.name))
        assert isinstance(request, Request)
        rung = [rung.method for rung in all_served().rung if rung.call_id == request.call_id]
        assert rung == ([request.method] if request.method != "REGISTER" else [])
        if request.method == "INVITE":
            expected.add(180)
    assert statuses(all_served().answers[row.name]) - {181} == expected


@pytest.mark.parametrize("row", [row for row in TORTURE if row.stored], ids=lambda row: row.name)
def test_the_contacts_are_stored_as_they_were_written(row: Torture) -> None:
    (answer,) = [data for data in all_served().answers[row.name] if data.startswith(b"SIP/2.0 ")]
    assert {str(contact.uri) for contact in parse_message(answer).contacts} >= set(row.stored)


def test_header_fields_within_a_contact_are_not_part_of_what_a_phone_is_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", register=False)
            plain = bob.contact.strip("<>")
            assert (await bob.register(contact=f"<{plain}?Route=%3Csip:sip.example.com%3E>")).status == 200
            await ann.dial("1002")
            _, invite = await bob.asked("INVITE")
            assert invite.uri == plain

    asyncio.run(scenario())


def test_a_phone_gets_every_part_of_a_message() -> None:
    (message,) = [request for request in all_served().rung if request.method == "MESSAGE"]
    assert message.body == parse_message(read("mpart01")).body


def test_unknown_extensions_are_all_named() -> None:
    (answer,) = all_answers(False)["bext01"]
    assert parse_message(answer).headers.values("unsupported") == ["nothingsupportsthis", "nothingsupportsthiseither"]


def test_the_table_holds_every_message_once() -> None:
    assert sorted(path.stem for path in CORPUS.glob("*.dat")) == sorted(row.name for row in TORTURE)


def test_the_documentation_names_every_standard_the_code_does() -> None:
    packages = ("sip_app", "protocols", "provisioning", "media_relay", "terminal_client", "dialcast")
    code = "".join([path.read_text() for name in packages for path in (ROOT / name).rglob("*.py")])
    listed = (ROOT / "docs" / "conformance.md").read_text().partition("## Standards")[2].partition("\n## ")[0]
    named = re.compile(r"RFC \d{4}|TS \d\d\.\d{3}")
    assert set(named.findall(code)) <= set(named.findall(listed))


def test_the_documentation_shows_this_table() -> None:
    assert table() in (ROOT / "docs" / "conformance.md").read_text(), "run `python tests/sip_app/rfc4475.py`"
