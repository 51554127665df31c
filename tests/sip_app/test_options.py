"""OPTIONS (RFC 3261 section 11): strangers hear what the server can do, subscribers what phones can; small duties."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, running

from protocols.sip.message import Request


def test_a_subscriber_asks_the_phones_of_a_number_and_a_stranger_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            asked = ann.build("OPTIONS", f"sip:1002@{DOMAIN}")
            assert "REGISTER" in (await ann.ask(asked)).headers.values("allow")
            assert bob.requests.empty()
            challenge = await ann.ask(ann.build("MESSAGE", f"sip:1002@{DOMAIN}"))
            answer = asyncio.create_task(ann.ask(ann.authorized(ann.build("OPTIONS", asked.uri), challenge)))
            tx, request = await bob.asked("OPTIONS")
            assert "proxy-authorization" not in request.headers
            bob.respond(tx, 200, headers=[("Allow", "OPTIONS, INVITE")])
            assert (await answer).headers.values("allow") == ["OPTIONS", "INVITE"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("number", "status"), [("1003", 480), ("7777", 404), ("8888", 200)])
def test_a_subscriber_learns_whether_there_is_a_phone_and_a_stranger_does_not(
    tmp_path: Path, number: str, status: int
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            challenge = await ann.ask(ann.build("MESSAGE", f"sip:1002@{DOMAIN}"))
            request = ann.build("OPTIONS", f"sip:{number}@{DOMAIN}")
            assert (await ann.ask(request)).status == 200
            again = ann.build("OPTIONS", request.uri)
            assert (await ann.ask(ann.authorized(again, challenge))).status == status
            wrong = ann.authorized(ann.build("OPTIONS", request.uri), challenge)
            forged = wrong.headers.get("proxy-authorization") or ""
            lines = wrong.headers.with_("Proxy-Authorization", forged.replace('response="', 'response="0'))
            expected = 200 if number == "8888" else 407
            assert (await ann.ask(Request("OPTIONS", wrong.uri, lines))).status == expected

    asyncio.run(scenario())


def test_the_challenges_of_all_phones_reach_the_caller(tmp_path: Path) -> None:
    """RFC 3261 section 16.7 step 7."""

    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, desk, mobile = await world.phone("1001"), await world.phone("1002"), await world.phone("1002")
            call = await ann.dial("1002")
            (desk_tx, _), (mobile_tx, _) = await desk.asked("INVITE"), await mobile.asked("INVITE")
            one, other = 'Digest realm="desk", nonce="1"', 'Digest realm="mobile", nonce="2"'
            desk.respond(desk_tx, 407, headers=[("Proxy-Authenticate", one)])
            mobile.respond(mobile_tx, 401, headers=[("WWW-Authenticate", other)])
            answer = await call.final()
            assert answer.headers.all("proxy-authenticate") == (one,)
            assert answer.headers.all("www-authenticate") == (other,)

    asyncio.run(scenario())


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n"], ids=["tls", "http"])
def test_a_connection_that_brings_no_sip_is_closed_at_once(tmp_path: Path, garbage: bytes) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            stranger = await world.phone("9", transport="tcp", register=False)
            stranger.send_raw(garbage)
            await asyncio.wait_for(stranger.reading, 1)

    asyncio.run(scenario())


def test_a_registration_is_told_the_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            answer = await (await world.phone("1001", register=False)).register()
            assert (answer.headers.get("date") or "").endswith(" GMT")

    asyncio.run(scenario())
