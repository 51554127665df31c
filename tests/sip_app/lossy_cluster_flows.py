"""A flow for two servers on one store, on the lossy network: the call lands on the one that holds no broadcast."""

import asyncio

from tests.sip_app.lossy_calls import SERVER, Leg
from tests.sip_app.lossy_flows import CHANNEL, FLOWS, agreed, answered, flow, given_up, live, soon
from tests.sip_app.lossy_world import LossyWorld

__all__ = ["FLOWS"]

FORWARDED_WITHIN = 60
"""Seconds in which a broadcast that went live is forwarded, or has failed."""


async def forwarded(world: LossyWorld) -> bool:
    """Wait until calls to 1001 are forwarded; False where the broadcast came to nothing."""
    for _ in range(FORWARDED_WITHIN):
        settings = world.memory.diversions_of.get(CHANNEL)
        if settings is not None and settings.overlay is not None:
            return True
        await asyncio.sleep(1)
    return False


@flow
async def a_viewer_lands_on_the_other_server(world: LossyWorld) -> None:
    """It asks who calls and hands the call over, signed; whoever hangs up, the holder hears the BYE. Given up before,
    perhaps."""
    other = await world.second()
    _, source = await live(world)
    viewer = await world.phone("1002", server=other.address)
    if source is not None and await forwarded(world):
        giving_up = world.random.random() < 0.4
        world.relay.slow = world.random.choice((0, 3)) if giving_up else 0  # at 3 the CANCEL is handed on too
        call = await viewer.dial("1001")
        if giving_up:
            await soon(world, world.random.choice((0.1, 1, 3)))
            await given_up(world, call)
            world.relay.slow = 0
        elif (leg := await answered(call)) is None:
            assert world.network.weather.loss, "refused for no reason of the network's"
        else:
            await watched_across(world, leg)
            for side in (leg, source) if world.random.random() < 0.5 else (source, leg):
                await soon(world)
                await side.bye()
    await agreed(world)
    if source is not None:
        await source.bye()


async def watched_across(world: LossyWorld, leg: Leg) -> None:
    """The call stands between the phone and the holder, past the service of the server it came to."""
    first, other = world.servers
    assert str(SERVER) in leg.state.remote_target
    assert not other.service.open and not other.server.endpoint.dialogs
    await agreed(world)
    group = first.service.open.get(CHANNEL)
    if group is not None and not leg.ended.is_set():
        assert [view.number for view in group.viewers.values()] == ["1002"]
