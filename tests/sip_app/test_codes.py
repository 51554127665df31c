"""Forwarding by dialled code: a call that answers, does what it was asked, and says so as it hangs up."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, Phone, World, running

from protocols.records import Condition, DiversionRule
from protocols.sdp import parse
from protocols.sip.message import Response
from sip_app.calls.incoming import Rejected
from sip_app.diversion.codes import Code, parse_code


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
        ("**61*1003*11*20#", Code("register", "61", "1003", "11", 20)),
        ("**61*1003**5#", Code("register", "61", "1003", "", 5)),
        ("*61***30#", Code("activate", "61", timer=30)),
        ("**002*1003**15#", Code("register", "002", "1003", "", 15)),
        ("**67*1003*11#", Code("register", "67", "1003", "11")),
        ("#62**13#", Code("deactivate", "62", "", "13")),
        ("*#004**11#", Code("interrogate", "004", "", "11")),
    ],
)
def test_codes_are_understood(dialled: str, code: Code) -> None:
    assert parse_code(dialled) == code


@pytest.mark.parametrize(
    "dialled",
    [
        *("*21*1003", "*21", "**21#", "#21*1003#", "*21**1003#", "*#", "*21*10a3#", "*2#", "*21*#", "*21*1003*#"),
        *("**61*1003**#", "**61*1003**7#", "**61*1003**35#", "**61*1003**0#", "**67*1003**20#", "#61***20#", "*1234#"),
    ],
)
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


def test_a_code_whose_offer_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            call = await phone.dial("*21*1003%23", body=b"v=0\r\nm=audio", content_type="application/sdp")
            assert (await call.final()).status == 488
            assert await own(world, "1001") is None

    asyncio.run(scenario())


async def refusal(phone: Phone, code: str) -> Response:
    return await (await phone.dial(code.replace("#", "%23"))).final()


async def own(world: World, number: str, condition: Condition = "unconditional") -> tuple[str, bool] | None:
    """The number a rule of the user forwards to, and whether it is active; None if there is no such rule."""
    rules = (await world.store.diversions.get(f"{number}@{DOMAIN}")).own
    rule: DiversionRule | None = rules.rule(condition) if rules else None
    return (rule.target.partition("@")[0], rule.active) if rule else None


def test_forwarding_is_set_switched_asked_and_erased(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            assert await outcome(phone, "*#21#") == "No forwarding registered"
            assert await outcome(phone, "*21*1003#") == "Forwarding to 1003 active"
            assert await own(world, "1001") == ("1003", True)
            assert await outcome(phone, "#21#") == "Forwarding to 1003 inactive"
            assert await own(world, "1001") == ("1003", False)
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
        ("*99*1003#", 404),
        ("*67*4711#", 403),
        ("*67#", 404),
        ("##002#", 404),
        ("#004#", 404),
        ("**61*1003**7#", 484),
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


def test_each_conditional_forwarding_has_its_codes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            for code, name, conditions in (
                ("67", "Forwarding on busy", ("busy",)),
                ("62", "Forwarding when not reachable", ("not-registered", "not-reachable")),
            ):
                absent = f"No {name[0].lower()}{name[1:]} registered"
                assert await outcome(phone, f"*#{code}#") == absent
                assert await outcome(phone, f"**{code}*1003#") == f"{name} to 1003 active"
                assert [await own(world, "1001", condition) for condition in conditions] == [("1003", True)] * len(
                    conditions
                )
                assert await outcome(phone, f"#{code}#") == f"{name} to 1003 inactive"
                assert await outcome(phone, f"*#{code}**11#") == f"{name} to 1003 inactive"
                assert await outcome(phone, f"*{code}#") == f"{name} to 1003 active"
                assert await outcome(phone, f"*{code}*1004#") == f"{name} to 1004 active"
                assert await outcome(phone, f"##{code}#") == f"{name} to 1004 erased"
                assert await outcome(phone, f"*#{code}#") == absent

    asyncio.run(scenario())


def test_no_reply_takes_a_time_and_keeps_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            assert await outcome(phone, "**61*1003*11*25#") == "Forwarding on no reply after 25 s to 1003 active"
            assert await outcome(phone, "**61*1004#") == "Forwarding on no reply after 25 s to 1004 active"
            assert await outcome(phone, "*61***10#") == "Forwarding on no reply after 10 s to 1004 active"
            rules = (await world.store.diversions.get(f"1001@{DOMAIN}")).own
            assert rules
            assert rules.no_reply_timer == 10
            assert await outcome(phone, "##61#") == "Forwarding on no reply after 10 s to 1004 erased"
            assert await outcome(phone, "**61*1004#") == "Forwarding on no reply to 1004 active"

    asyncio.run(scenario())


def test_all_and_all_conditional_change_every_forwarding_they_cover(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            assert await outcome(phone, "**004*1003**20#") == "Conditional forwarding to 1003 active"
            assert await own(world, "1001") is None
            assert await outcome(phone, "**21*1004#") == "Forwarding to 1004 active"
            assert await outcome(phone, "#002#") == "All forwarding inactive"
            assert await own(world, "1001", "busy") == ("1003", False)
            assert await outcome(phone, "*67#") == "Forwarding on busy to 1003 active"
            assert await outcome(phone, "*#002#") == (
                "Forwarding to 1004 inactive; Forwarding on busy to 1003 active; "
                "Forwarding on no reply after 20 s to 1003 inactive; Forwarding when not reachable to 1003 inactive"
            )
            assert await outcome(phone, "##004#") == "Conditional forwarding to 1003 erased"
            assert await own(world, "1001") == ("1004", False)
            assert await outcome(phone, "##002#") == "All forwarding to 1004 erased"
            assert await outcome(phone, "*#002#") == "No forwarding registered"

    asyncio.run(scenario())
