"""Calls that are over or very old: neither side reaches the other's phone by them, nor cheats the count of calls."""

import asyncio
from pathlib import Path

from test_proxy import connected
from ua import running

from provisioning.config import Config, SecurityConfig, SipConfig


def test_after_a_bye_neither_side_reaches_the_other_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call, dialog, _ = await connected(world, ann, bob)
            hung_up = asyncio.create_task(bob.accept("BYE"))
            assert (await call.send("BYE")).status == 200
            await hung_up
            assert (await call.send("INFO")).status == 481
            _, info = dialog.request("INFO")
            _, info = dialog.request("INFO")
            assert (await bob.ask(info)).status == 481

    asyncio.run(scenario())


def test_a_way_between_two_phones_ends_with_its_lifetime(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, route_lifetime=60) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call, _, _ = await connected(world, ann, bob)
            taken = asyncio.create_task(bob.accept("INFO"))
            assert (await call.send("INFO")).status == 200
            await taken
            clock = world.server._signer._clock
            world.server._signer._clock = lambda: clock() + 62
            assert (await call.send("INFO")).status == 481

    asyncio.run(scenario())


def test_a_call_counts_until_its_bye_is_answered_for_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = Config(data_dir=tmp_path, sip=SipConfig(port=0), security=SecurityConfig(calls_at_once=1))
        async with running(tmp_path, config=config) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call, _, _ = await connected(world, ann, bob)
            for status, counted in ((500, 1), (200, 0)):
                hanging_up = asyncio.create_task(call.send("BYE"))
                tx, _ = await bob.asked("BYE")
                assert len(world.server.quotas._calls) == 1, "nobody has answered yet"
                bob.respond(tx, status)
                assert (await hanging_up).status == status
                assert len(world.server.quotas._calls) == counted

    asyncio.run(scenario())
