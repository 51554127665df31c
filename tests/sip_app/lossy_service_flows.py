"""Flows beside plain calls, for the lossy network: subscriptions, voice and PINs, second attempts, registrations."""

import asyncio

from protocols.control import LegLost
from protocols.sip.message import Response
from provisioning.config import AnnouncementsConfig
from sip_app.broadcast.following import attach
from tests.sip_app.lossy_calls import Leg
from tests.sip_app.lossy_flows import CHANNEL, FLOWS, SESSION, agreed, answered, flow, given_up, live, soon, watching
from tests.sip_app.lossy_phone import Phone
from tests.sip_app.lossy_watch import Watch
from tests.sip_app.lossy_world import LossyWorld

__all__ = ["FLOWS"]

PIN = "4711"
"""Of the service number 8889, where a second attempt takes over as well."""
GONE = (407, 408, 480, 481)
"""What a request may come to for the network's sake; 481 where the other side has given up."""


def followed(world: LossyWorld, *, refusals: bool = False) -> None:
    """With all that hangs on a broadcast service: event packages, messages, voice."""
    attach(world.server, world.service)
    spoken = AnnouncementsConfig(refusals=refusals, key_timeout=5)
    world.service.config = world.config.model_copy(update={"announcements": spoken})


async def live_with_a_pin(world: LossyWorld) -> tuple[Phone, Leg | None]:
    phone = await world.phone("1001")
    leg = await answered(await phone.dial("8889"))
    await asyncio.sleep(5)
    return phone, leg


@flow
async def a_friend_follows_who_is_live(world: LossyWorld) -> None:
    """Subscribed, refreshed, unsubscribed: whoever is still followed showed what is true."""
    followed(world)
    friend = await world.phone("1002")
    watches = [Watch(friend, CHANNEL, package) for package in ("presence", "dialog")]
    for watch in watches:
        assert (answer := await watch.subscribe(SESSION)).status in (200, *GONE), answer
    _, source = await live(world)
    for watch in watches:
        assert (answer := await watch.subscribe(SESSION)).status in (200, *GONE), answer
    await world.calm(40)
    on = CHANNEL in world.service.open
    for watch in watches:
        if watch.held(world):
            assert (b"Live" in watch.body or b"confirmed" in watch.body) == on, watch.body
    if world.random.random() < 0.7:  # else it forgets to, and the subscription runs out
        for watch in watches:
            assert (await watch.subscribe(0)).status in (200, *GONE)
    if source is not None:
        await source.bye()
    await world.calm(2 * SESSION)
    assert not any(watch.held(world) for watch in watches)


@flow
async def a_broadcaster_follows_its_roster_to_the_end(world: LossyWorld) -> None:
    followed(world)
    phone, source = await live(world)
    roster = Watch(phone, CHANNEL, "conference")
    status = (await roster.subscribe(600)).status
    assert status in (200, *GONE)
    _, leg = await watching(world, "1002")
    await world.calm(40)
    group = world.service.open.get(CHANNEL)
    if roster.held(world) and group is not None:
        assert f"<user-count>{1 + len(group.viewers)}<".encode() in roster.body
    if leg is not None:
        await leg.bye()
    await soon(world)
    if source is not None:
        await source.bye()
    await agreed(world)
    assert source is None or not roster.held(world)


@flow
async def a_watcher_dies(world: LossyWorld) -> None:
    """Its NOTIFYs are answered by nobody: the subscription goes."""
    followed(world)
    friend = await world.phone("1002")
    watch = Watch(friend, CHANNEL, "dialog")
    await watch.subscribe(3600)
    friend.dead = True
    _, source = await live(world)
    if source is not None:
        await world.calm()
        assert not watch.held(world)
        await source.bye()
    else:
        friend.dead = False
        assert (await watch.subscribe(0)).status in (200, *GONE)
        await world.calm(3600)


@flow
async def a_code_is_confirmed_by_voice(world: LossyWorld) -> None:
    """Answered, spoken to, hung up on by the server; or given up while it is spoken to."""
    followed(world)
    phone = await world.phone("1001")
    call = await phone.dial("*21*1002%23")
    if world.random.random() < 0.3:
        await soon(world, 5)
        await given_up(world, call)
        return
    leg = await answered(call)
    if leg is not None:
        await asyncio.wait_for(leg.ended.wait(), 3 * SESSION)
        rules = world.memory.diversions_of[CHANNEL].own
        assert rules is not None and rules.rule("unconditional") is not None


@flow
async def a_refusal_is_spoken_before_it_comes(world: LossyWorld) -> None:
    """Early media, then the refusal; given up meanwhile, perhaps."""
    followed(world, refusals=True)
    phone = await world.phone("1001")
    call = await phone.dial("*99%23")
    if world.random.random() < 0.4:
        await soon(world, 5)
        call.cancel()
    refusal = await call.final
    assert isinstance(refusal, Response) and refusal.status in (404, 487, *GONE, 504), refusal
    assert refusal.status != 487 or call.cancelled


@flow
async def a_viewer_is_asked_for_the_pin(world: LossyWorld) -> None:
    """It knows it, or not, or hangs up meanwhile, or the broadcast ends meanwhile."""
    followed(world)
    _, source = await live_with_a_pin(world)
    way = world.random.choice(("right", "wrong", "silent", "hangs up", "broadcast ends"))
    world.relay.keys = {"right": f"{PIN}#", "wrong": "12#"}.get(way, "")
    viewer = await world.phone("1002")
    leg = await answered(await viewer.dial("1001")) if source is not None else None
    if leg is not None and str(leg.state.remote_target).startswith("sip:1001@127.0.0.1"):
        await soon(world, 8)
        if way == "hangs up":
            await leg.bye()
        elif way == "broadcast ends" and source is not None:
            await source.bye()
        await world.calm()
        group = world.service.open.get(CHANNEL)
        if group is not None and way == "right":
            assert len(group.viewers) == (not leg.ended.is_set())
        elif group is not None:
            assert not group.viewers
            await asyncio.wait_for(leg.ended.wait(), 3 * SESSION)
    await agreed(world)
    for side in (leg, source):
        if side is not None:
            await side.bye()


@flow
async def a_lost_broadcast_is_taken_over(world: LossyWorld) -> None:
    """The phone falls silent; the broadcaster dials again from another, in time or too late."""
    followed(world)
    phone, source = await live(world)
    _, leg = await watching(world, "1002")
    again = await world.phone("1001")
    group = world.service.open.get(CHANNEL)
    if group is not None and source is not None:
        epoch, old = group.epoch, group.leg_id
        phone.dead = True
        world.calls.relay_event(LegLost(group.channel, epoch, old, "silent"))
        await soon(world, 40)
        second = await answered(await again.dial("8888"))
        await asyncio.sleep(1)
        now = world.service.open.get(CHANNEL)
        if second is not None and now is not None and not second.ended.is_set():
            assert now.leg_id != old
        phone.dead = False
        if second is not None:
            await second.bye()
    for side in (leg, source):
        if side is not None:
            await side.bye()


@flow
async def a_second_attempt(world: LossyWorld) -> None:
    """From another phone while the first is well: refused by 8888, taking over on 8889; cancelled, perhaps."""
    number = world.random.choice(("8888", "8889"))
    first, second = await world.phone("1001"), await world.phone("1001")
    leg = await answered(await first.dial(number))
    await asyncio.sleep(world.random.choice((0, 1, 10)))
    call = await second.dial(number)
    if world.random.random() < 0.3:
        await soon(world)
        call.cancel()
    outcome = await call.final
    if isinstance(outcome, Response):
        assert outcome.status in (486, 487, *GONE, 504), outcome
        assert outcome.status != 487 or call.cancelled
    else:
        await agreed(world)
        assert leg is None or leg.ended.is_set() or not world.service.open
        await outcome.bye()
    await agreed(world)
    if leg is not None:
        await leg.bye()


@flow
async def a_phone_registers_again_and_again_beside_its_calls(world: LossyWorld) -> None:
    """And goes away at last, its call standing."""
    phone, source = await live(world)
    _, leg = await watching(world, "1002")
    for expires in (60, 3600, 60, 0):
        assert (await phone.register(expires)).status in (200, 401, 408, 500)
        await soon(world, 20)
    await agreed(world)
    sides = [side for side in (leg, source) if side is not None]
    excused = world.unheard or any(phone.unacknowledged for phone in world.phones)
    assert excused or not any(side.ended.is_set() for side in sides)
    for side in sides:
        await side.bye()
