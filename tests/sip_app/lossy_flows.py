"""The flows that are played on the lossy network: what the people do, and when. Each leaves no call standing.

A flow checks what it may rely on in any weather, and nothing else; that the sides agree and nothing is left, `over`
checks for all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from protocols.records import Overlay
from protocols.sip.message import Response
from sip_app.broadcast.ending import end_group, stopped_by_operator
from tests.sip_app.lossy_calls import DOMAIN, SERVER, Dialling, Leg, Ringing, sdp
from tests.sip_app.lossy_phone import Phone
from tests.sip_app.lossy_world import LossyWorld

CHANNEL = f"1001@{DOMAIN}"
FLOWS: dict[str, Callable[[LossyWorld], Awaitable[None]]] = {}
SESSION = 120
"""Session timer of this world, seconds: after two of them without a refresh no call may stand."""


def flow(play: Callable[[LossyWorld], Awaitable[None]]) -> Callable[[LossyWorld], Awaitable[None]]:
    FLOWS[play.__name__] = play
    return play


async def over(world: LossyWorld) -> None:
    """All have hung up, or believe so: once the timers ran out, nothing is left anywhere."""
    await world.calm()
    if world.unheard:
        await world.calm(2.5 * SESSION)  # somebody's BYE never arrived: the session timers end the call
    weather = world.network.weather
    if weather.loss < 0.2 and not weather.blackout[1] and not any(phone.dead for phone in world.phones):
        assert not any(phone.unacknowledged for phone in world.phones)
    assert not world.lonely()
    await world.part()
    assert not (left := world.leftovers()), left


async def agreed(world: LossyWorld) -> None:
    """What was going on is through: now everybody believes the same."""
    await world.calm()
    assert not world.lonely()


async def live(world: LossyWorld) -> tuple[Phone, Leg | None]:
    """1001 is live with a stock phone, and calls to it are forwarded; None when nothing got through."""
    phone = await world.phone("1001")
    leg = await answered(await phone.dial("8888"))
    await asyncio.sleep(world.random.choice((1, 40)))
    return phone, leg


async def answered(call: Dialling) -> Leg | None:
    """The leg of the call; None when it was refused for the network's sake alone."""
    outcome = await call.final
    if isinstance(outcome, Response):
        assert outcome.status in (407, 408, 480, 504), outcome  # 407: the first one was lost
        return None
    return outcome


async def given_up(world: LossyWorld, call: Dialling) -> None:
    """CANCEL; and BYE if the call was answered before."""
    call.cancel()
    outcome = await call.final
    if isinstance(outcome, Leg):
        await outcome.bye()
    else:
        assert outcome.status in (407, 408, 480, 487, 504), outcome
        await asyncio.sleep(1)
        assert not any(call_id == call.tx.request.call_id for call_id, *_ in world.dialogs_here())


async def watching(world: LossyWorld, number: str) -> tuple[Phone, Leg | None]:
    phone = await world.phone(number)
    return phone, await answered(await phone.dial("1001"))


async def soon(world: LossyWorld, longest: float = 2.0) -> None:
    await asyncio.sleep(world.random.uniform(0, longest))


async def hung_up_by_the_server(world: LossyWorld) -> None:
    """The broadcast's calls end without a phone's doing; one that was made before it was forwarded is hung up."""
    for phone in world.phones:
        for leg in list(phone.legs.values()):
            if str(SERVER) in leg.state.remote_target:
                await asyncio.wait_for(leg.ended.wait(), 3 * SESSION)
            else:
                await leg.bye()


@flow
async def registering(world: LossyWorld) -> None:
    phone = await world.phone("1001")
    for expires in (600, 0):
        while (response := await phone.register(expires)).status != 200:
            assert response.status in (408, 500), response
    assert not world.memory.bindings_of[CHANNEL]


@flow
async def dialling_a_code(world: LossyWorld) -> None:
    phone = await world.phone("1001")
    leg = await answered(await phone.dial("*21*1002%23"))
    if leg is not None:
        await leg.ended.wait()
        own = world.memory.diversions_of[CHANNEL].own
        assert own is not None and (rule := own.rule("unconditional")) is not None
        assert rule.target == f"1002@{DOMAIN}"


@flow
async def going_live_with_a_stock_phone(world: LossyWorld) -> None:
    _, leg = await live(world)
    await agreed(world)
    if leg is not None:
        await leg.bye()


async def joining(world: LossyWorld) -> Dialling:
    phone = await world.phone("1001")
    call = await phone.dial("8888", offer=sdp(phone.address, ice=True), tag=";+g.dialcast.join")

    async def join() -> None:
        while not any(response.status == 183 for response in call.seen):
            if call.final.done():
                return
            await asyncio.sleep(0.1)
        await soon(world)
        world.join(CHANNEL)

    phone.spawn(join())
    return call


@flow
async def going_live_with_a_joining_terminal(world: LossyWorld) -> None:
    leg = await answered(await joining(world))
    await agreed(world)
    if leg is not None:
        await leg.bye()


@flow
async def giving_up_while_going_live(world: LossyWorld) -> None:
    """CANCEL before, after and with the 200, whichever the seed says."""
    call = await joining(world)
    await soon(world, world.random.choice((0.1, 1, 4)))
    await given_up(world, call)


@flow
async def giving_up_while_watching(world: LossyWorld) -> None:
    _, source = await live(world)
    viewer = await world.phone("1002")
    call = await viewer.dial("1001")
    await soon(world, world.random.choice((0.1, 1)))
    await given_up(world, call)
    await agreed(world)
    if source is not None:
        await source.bye()


@flow
async def a_viewer_hangs_up(world: LossyWorld) -> None:
    _, source = await live(world)
    _, leg = await watching(world, "1002")
    await soon(world)
    if leg is not None:
        await leg.bye()
    await agreed(world)
    if source is not None:
        await source.bye()


@flow
async def the_broadcaster_hangs_up_on_viewers(world: LossyWorld) -> None:
    _, source = await live(world)
    for number in ("1002", "1003"):
        await watching(world, number)
    if source is not None:
        await source.bye()
    await hung_up_by_the_server(world)


@flow
async def the_broadcaster_hangs_up_while_viewers_arrive(world: LossyWorld) -> None:
    _, source = await live(world)
    viewer = await world.phone("1002")
    coming = await viewer.dial("1001")
    await soon(world, 1)
    if source is not None:
        await source.bye()
    outcome = await coming.final
    if isinstance(outcome, Leg):
        await asyncio.sleep(40)
        await outcome.bye()


@flow
async def the_operator_stops_a_broadcast(world: LossyWorld) -> None:
    await live(world)
    await watching(world, "1002")
    group = world.service.open.get(CHANNEL)
    if group is not None:
        await end_group(world.service, group, stopped_by_operator("enough"))
    await hung_up_by_the_server(world)


@flow
async def hold_and_resume(world: LossyWorld) -> None:
    _, source = await live(world)
    _, leg = await watching(world, "1002")
    if leg is not None:
        for version, direction in ((2, "inactive"), (3, "sendrecv")):
            status = await leg.reinvite(
                body=sdp(leg.phone.address, direction, version=version),
                content_type="application/sdp",
                headers=[("Supported", "timer")],
            )
            assert status in (200, 408, 481, 503), status
            await soon(world)
    await agreed(world)
    if leg is not None:
        await leg.bye()
    if source is not None:
        await source.bye()


@flow
async def refreshing_by_update(world: LossyWorld) -> None:
    _, source = await live(world)
    if source is not None:
        assert await source.refresh() in (200, 408, 481)
        assert source.ended.is_set() or source.state.session_interval >= 90
    await agreed(world)
    if source is not None:
        await source.bye()


@flow
async def a_phone_that_keeps_no_session_timer(world: LossyWorld) -> None:
    """The server refreshes; a phone that dies without a word is noticed."""
    phone = await world.phone("1001", timer=False)
    leg = await answered(await phone.dial("8888"))
    await asyncio.sleep(2 * SESSION)
    if leg is not None and not leg.ended.is_set():
        assert any(request.method == "UPDATE" for request in leg.asked)
    await agreed(world)
    phone.dead = world.random.random() < 0.5
    if leg is not None:
        await leg.bye()


@flow
async def an_ordinary_call(world: LossyWorld) -> None:
    caller, callee = await world.phone("1002"), await world.phone("1003")

    def ring(ringing: Ringing) -> None:
        async def pick_up() -> None:
            ringing.provisional(180, reliable=world.random.random() < 0.5)
            await soon(world, 5)
            ringing.answer()

        callee.spawn(pick_up())

    callee.on_invite = ring
    leg = await answered(await caller.dial("1003", headers=[("Session-Expires", f"{SESSION};refresher=uac")]))
    await soon(world)
    await agreed(world)
    there = next(iter(callee.legs.values()), None)
    for hanging_up in (there, leg) if world.random.random() < 0.5 else (leg, there):
        if hanging_up is not None:
            await hanging_up.bye()


@flow
async def an_ordinary_call_given_up(world: LossyWorld) -> None:
    caller, callee = await world.phone("1002"), await world.phone("1003")

    def ring(ringing: Ringing) -> None:
        ringing.provisional(180)
        callee.loop.call_later(world.random.choice((0.1, 1, 2)), ringing.answer)

    callee.on_invite = ring
    call = await caller.dial("1003", headers=[("Session-Expires", f"{SESSION};refresher=uac")])
    await soon(world, world.random.choice((0.1, 1, 3)))
    await given_up(world, call)
    await agreed(world)


@flow
async def two_phones_pick_up(world: LossyWorld) -> None:
    """A forked call: both ring reliably or not, both answer. The caller keeps one, the other is told BYE."""
    caller = await world.phone("1002")
    phones = [await world.phone("1003"), await world.phone("1003")]

    def ring(ringing: Ringing) -> None:
        async def pick_up() -> None:
            ringing.provisional(180, reliable=world.random.random() < 0.5)
            await soon(world, 3)
            ringing.answer()

        ringing.phone.spawn(pick_up())

    for phone in phones:
        phone.on_invite = ring
    call = await caller.dial("1003", headers=[("Session-Expires", f"{SESSION};refresher=uac")])
    leg = await answered(call)
    await agreed(world)
    assert len(caller.legs) <= 1
    if leg is not None:
        await leg.bye()


@flow
async def messages_pass(world: LossyWorld) -> None:
    one, _ = await world.phone("1002"), await world.phone("1003")
    response = await one.request("MESSAGE", f"sip:1003@{DOMAIN}", headers=[("Content-Type", "text/plain")])
    assert response.status in (200, 408, 480), response


@flow
async def the_network_dies_for_a_while(world: LossyWorld) -> None:
    """Nothing passes in one direction, or in any, for long enough that transactions give up."""
    _, source = await live(world)
    _, leg = await watching(world, "1002")
    await soon(world)
    acting = [asyncio.create_task(side.bye()) for side in (source, leg) if side and world.random.random() < 0.5]
    await world.blackout(world.random.choice((5, 40)), world.random.choice((1, 2, 3)))
    await asyncio.gather(*acting)
    await world.calm(2.5 * SESSION)
    assert not world.lonely()
    for side in (leg, source):
        if side is not None:
            await side.bye()


@flow
async def the_network_dies_while_a_call_begins(world: LossyWorld) -> None:
    phone = await world.phone("1001")
    calling = asyncio.create_task(phone.dial("8888"))
    await soon(world)
    await world.blackout(world.random.choice((5, 40)), world.random.choice((1, 2, 3)))
    leg = await answered(await calling)
    await agreed(world)
    if leg is not None:
        await leg.bye()


@flow
async def the_forwarding_phone_calls_back(world: LossyWorld) -> None:
    """A terminal activates forwarding itself by its code, as soon as it is acknowledged."""
    phone, source = await live(world)
    leg = await answered(await phone.dial("*21*8888%23"))
    if leg is not None:
        await leg.ended.wait()
    if source is not None:
        overlay = world.memory.diversions_of[CHANNEL].overlay
        assert overlay is None or isinstance(overlay, Overlay)
        await source.bye()
