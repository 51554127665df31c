"""Forwarding by dialled code: a call that answers, does what it was asked, and says so as it hangs up."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, Phone, World, running

from protocols.records import Forwarding
from protocols.sdp import parse
from protocols.sip.message import Response
from sip_app.calls import Rejected
from sip_app.codes import Code, parse_code


@pytest.mark.parametrize(
    ("dialled", "code"),
    [
        ("*21*1003#", Code("activate", "21", "1003")),
        ("**21*1003#", Code("register", "21", "1003")),
        ("*21#", Code("activate", "21")),
        ("#21#", Code("deactivate", "21")),
        ("##21#", Code("erase", "21")),
        ("*#21#", Code("interrogate", "21")),
        ("*#21%23", Code("interrogate", "21")),
    ],
)
def test_the_six_codes_are_understood(dialled: str, code: Code) -> None:
    assert parse_code(dialled) == code


@pytest.mark.parametrize("dialled", ["*21*1003", "*21", "**21#", "#21*1003#", "*21**1003#", "*#", "*21*10a3#", "*2#"])
def test_a_malformed_code_is_an_incomplete_address(dialled: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_code(dialled)
    assert refused.value.status == 484


async def outcome(phone: Phone, code: str) -> str:
    """Dial a code; the text with which the server hangs up."""
    call = await phone.dial(code.replace("#", "%23"))
    answer = await call.answered()
    audio, video = parse(answer.body).media
    assert (audio.port, audio.direction, video.port) == (9, "inactive", 0)
    bye = await phone.accept("BYE")
    assert bye.reasons[0].cause == 200
    return bye.reasons[0].text


async def refusal(phone: Phone, code: str) -> Response:
    return await (await phone.dial(code.replace("#", "%23"))).final()


async def own(world: World, number: str) -> Forwarding | None:
    return (await world.store.diversions.get(f"{number}@{DOMAIN}")).own


def test_forwarding_is_set_switched_asked_and_erased(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            target = f"1003@{DOMAIN}"
            assert await outcome(phone, "*#21#") == "No forwarding registered"
            assert await outcome(phone, "*21*1003#") == "Forwarding to 1003 active"
            assert await own(world, "1001") == Forwarding(target, True)
            assert await outcome(phone, "#21#") == "Forwarding to 1003 inactive"
            assert await own(world, "1001") == Forwarding(target, False)
            assert await outcome(phone, "*#21#") == "Forwarding to 1003 inactive"
            assert await outcome(phone, "*21#") == "Forwarding to 1003 active"
            assert await outcome(phone, "##21#") == "Forwarding to 1003 erased"
            assert await own(world, "1001") is None
            assert await outcome(phone, "**21*8888#") == "Forwarding to 8888 active"

    asyncio.run(scenario())


def test_the_hash_may_be_dialled_unescaped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            call = await phone.dial("", uri=f"sip:*#21#@{DOMAIN}", to=f"<sip:1001@{DOMAIN}>")
            await call.answered()
            assert (await phone.accept("BYE")).reasons[0].text == "No forwarding registered"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("*21*1003", 484),
        ("*21*1001#", 403),
        ("*21*4711#", 403),
        ("*21*00441234567#", 403),
        ("*21#", 404),
        ("#21#", 404),
        ("##21#", 404),
        ("*61*1003#", 404),
    ],
)
def test_codes_that_cannot_be_carried_out_are_refused(tmp_path: Path, code: str, status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            assert (await refusal(phone, code)).status == status
            assert await own(world, "1001") is None

    asyncio.run(scenario())


def test_a_code_call_nobody_acknowledges_is_ended_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            call = await phone.dial("*%2321%23")
            await call.until(200)
            await call.next()  # the 200 comes again
            async with asyncio.timeout(10):
                while (got := await phone.requests.get())[1].method != "BYE":
                    pass
            phone.respond(got[0], 200)

    asyncio.run(scenario())
