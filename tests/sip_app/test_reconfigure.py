"""A running server lives by a changed configuration from the next message on; what stands, stands."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from broadcast_world import BroadcastWorld, broadcasting, until

from provisioning.config import Config
from provisioning.reload import reloaded

Test = Callable[[BroadcastWorld], Awaitable[None]]


def in_world(folder: Path, test: Test, **service: Any) -> None:
    async def run() -> None:
        async with broadcasting(folder, **service) as world:
            await test(world)

    asyncio.run(run())


def change(world: BroadcastWorld, **sections: Any) -> None:
    """What SIGHUP does, with these values on top of the running ones; all of them must be live."""
    running = world.config
    wanted = running.model_dump()
    for name, values in sections.items():
        wanted[name] = wanted[name] | values if isinstance(values, dict) else values
    result = reloaded(running, Config.model_validate(wanted))
    assert result.changed and not result.restart
    world.service.reconfigure(result.config)
    world.server.reconfigure(result.config)
    world.relay.reconfigure(result.config)
    world.config = result.config


def test_fewer_bindings_are_granted_and_those_granted_stay(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        phone = await world.phone("1002")
        assert (await phone.register(contact="<sip:1002@127.0.0.1:7001>")).status == 200
        change(world, sip={"max_bindings": 2})
        assert (await phone.register(contact="<sip:1002@127.0.0.1:7002>")).status == 403
        assert len(await world.server.registrar.bindings("1002@dialcast.internal")) == 2

    in_world(tmp_path, test)


def test_a_lower_rate_counts_at_once(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        phone = await world.phone("1002")
        change(world, sip={"requests_per_second": 1})
        answers = [asyncio.ensure_future(phone.request("OPTIONS", "sip:dialcast.internal")) for _ in range(6)]
        await asyncio.wait(answers, timeout=0.3)
        assert sum(answer.done() for answer in answers) < 3
        for answer in answers:
            answer.cancel()

    in_world(tmp_path, test)


def test_a_new_service_number_is_dialled_and_the_old_broadcast_goes_on(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        change(world, services=[{"number": "8888"}, {"number": "7777"}], service={"max_views_per_number": 1})
        other = await world.phone("1005")
        call = await other.dial("7777", body=other.offer())
        assert (await call.answered()).status == 200
        assert set(world.service.open) == {"1001@dialcast.internal", "1005@dialcast.internal"}
        viewer, _ = await world.viewer("1002")
        second = await viewer.dial("1001", body=viewer.offer())
        assert (await second.final()).status == 486
        assert world.group.state == "live"

    in_world(tmp_path, test)


def test_the_relay_judges_silence_by_its_new_timeout(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        await world.viewer("1002")
        change(world, relay={"leg_timeout": 0.3, "max_legs_per_group": 2})
        late = await world.phone("1003")
        assert (await (await late.dial("1001", body=late.offer())).final()).status == 503
        await until(lambda: world.group.leg_id in {leg for _, _, leg in world.service.silent}, within=4)

    in_world(tmp_path, test)
