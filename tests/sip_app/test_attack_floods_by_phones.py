"""Phones that make the server work or send without end: by how they answer, where they deflect, what they say."""

import asyncio
from pathlib import Path
from typing import Any

from broadcast_world import BROADCASTER, broadcasting, until
from prometheus_client import REGISTRY
from test_group_messages import say_in, texts
from ua import DOMAIN, running
from watching import watch


def refused(limit: str) -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": limit}) or 0.0


def test_a_watcher_that_wants_to_be_asked_again_at_once_waits_its_interval(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"notify_interval": 0.5}}) as world:
            phone = await world.phone("1002")
            phone.answers["NOTIFY"], phone.answer_headers = 503, [("Retry-After", "0")]
            watcher = await watch(phone, BROADCASTER, "presence")
            await asyncio.sleep(0.8)
            assert len(watcher.notifies) <= 2

    asyncio.run(scenario())


def test_a_deflection_to_a_thousand_places_costs_a_few_look_ups(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            looked_up: list[str] = []
            find = world.store.credentials.find

            async def counted(aor: str) -> Any:
                looked_up.append(aor)
                return await find(aor)

            world.store.credentials.find = counted  # type: ignore[method-assign]  # to see what is asked of the store
            before = refused("diversion.max_deflection_targets")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            looked_up.clear()
            places = ",".join(f"<sip:{number}@{DOMAIN}>" for number in range(5000, 6000))
            bob.respond(tx, 302, headers=[("Contact", places)])
            assert (await call.final()).status == 480
            assert 0 < len(looked_up) <= 5
            assert refused("diversion.max_deflection_targets") == before + 1

    asyncio.run(scenario())


def test_a_broadcast_in_which_everybody_talks_does_not_heap_up_what_is_to_be_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"messages": {"rate": 2, "max_waiting": 3}}) as world:
            _, answers = await world.broadcaster()
            viewers = [await world.viewer(number) for number in ("1002", "1003")]
            before = refused("messages.max_waiting")
            said = [(await say_in(answers, f"answer {number}")) for number in range(3)]
            assert [answer.status for answer in said] == [202, 480, 480]
            assert said[1].headers.get("retry-after")
            assert refused("messages.max_waiting") == before + 2
            for viewer, _ in viewers:
                await until(lambda phone=viewer: [text.body for text in texts(phone)] == [b"answer 0"])
            assert (await say_in(answers, "again")).status == 202

    asyncio.run(scenario())
