"""Callers who only let themselves be asked for a PIN take no place from those who may watch."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import broadcasting, until
from prometheus_client import REGISTRY
from test_announcement_calls import CHINESE, PIN, called, offer, private
from ua import DOMAIN

from protocols.pin import hash_pin
from protocols.records import Channel


def full() -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": "services.max_viewers"}) or 0.0


@pytest.mark.parametrize("knows", [False, True])
def test_whoever_is_still_asked_does_not_fill_the_broadcast(tmp_path: Path, *, knows: bool) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"services": [{"number": "8888", "max_viewers": 1}]}) as world:
            await world.broadcaster()
            await private(world)
            listed = Channel(private=True, pin=hash_pin(PIN, bytes(16)), listed=frozenset((f"1003@{DOMAIN}",)))
            await world.store.channels.change(f"1001@{DOMAIN}", lambda _: listed)
            asked = await world.phone("1002")
            caller = await called(asked, "1001", offer(asked), CHINESE)
            await caller.hears_beginning_of("pin-enter", "zh")
            await world.viewer("1003")  # is let in
            before = full()
            if knows:
                caller.press(f"{PIN}#")
                await until(lambda: bool(asked.ends), 12)
                assert asked.ends == ['Q.850;cause=17;text="Broadcast is full"']
                assert full() == before + 1
            assert [viewer.number for viewer in world.group.viewers.values()] == ["1003"]
            await until(lambda: len(world.group.at_pin) == (0 if knows else 1))

    asyncio.run(scenario())
