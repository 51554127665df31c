"""A phone that answers one call as if it were hundreds, and calls that write to others' phones without end."""

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY
from test_diversion import forward
from test_diversion_conditional import soon
from ua import DOMAIN, Phone, running

from protocols.sip.message import Request, make_response
from provisioning.config import Config, DiversionConfig, SipConfig


def answer(phone: Phone, invite: Request, status: int, tags: int) -> None:
    """Answer an INVITE with so many To tags, as a fork behind the phone would."""
    for number in range(tags):
        contact = [("Contact", phone.contact)]
        phone.send_raw(make_response(invite, status, to_tag=f"t{number}", headers=contact).serialise())


async def heard(phone: Phone, method: str, within: float) -> int:
    """How many requests of this method the phone gets within a time."""
    await asyncio.sleep(within)
    methods = [phone.requests.get_nowait()[1].method for _ in range(phone.requests.qsize())]
    return methods.count(method)


def test_one_phone_cannot_ring_as_hundreds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            _, invite = await bob.asked("INVITE")
            answer(bob, invite, 180, 200)
            await asyncio.sleep(0.3)
            tags = {call.responses.get_nowait().to.tag for _ in range(call.responses.qsize())}
            assert 1 < len(tags - {""}) <= 16
            answer(bob, invite, 486, 1)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_a_phone_that_answers_too_late_and_hundreds_of_times_is_hung_up_a_few_times(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = [await world.phone(number) for number in ("1001", "1002", "1003")]
            bob.answers_cancel = False
            await forward(world, "1002", "1003", condition="no-answer")
            await soon(world, "1002")
            call = await ann.dial("1002")
            _, invite = await bob.asked("INVITE")
            answer(bob, invite, 180, 1)
            tx, _ = await carol.asked("INVITE")  # nobody answered in time
            answer(bob, invite, 200, 200)
            assert 1 <= await heard(bob, "BYE", 0.5) <= 16
            carol.respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_calls_do_not_fill_the_phone_of_whoever_wants_to_hear_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        limit = {"limit": "diversion.notices_per_minute"}
        before = REGISTRY.get_sample_value("dialcast_sip_limited_total", limit) or 0.0
        diversion = DiversionConfig.model_validate({"notices_per_minute": 3})
        config = Config(data_dir=tmp_path, sip=SipConfig(port=0), diversion=diversion)
        async with running(tmp_path, config=config) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await forward(world, "1002", "1003", notify_served_user=True)
            for _ in range(6):
                assert (await (await ann.dial("", uri=f"sip:1002@{DOMAIN}")).final()).status == 480
            assert await heard(bob, "MESSAGE", 0.3) == 3
        assert REGISTRY.get_sample_value("dialcast_sip_limited_total", limit) == before + 3

    asyncio.run(scenario())
