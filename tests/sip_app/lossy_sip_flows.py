"""More flows for the lossy network: where requests cross, offers come late, sessions are refreshed, calls move on."""

import asyncio
from dataclasses import replace
from typing import Any

from protocols.media_control import PICTURE_FAST_UPDATE
from protocols.net import Address
from protocols.records import Condition, DiversionRule, DiversionRules, Diversions, Reveal
from protocols.sip.message import Response
from tests.sip_app.lossy_calls import DOMAIN, SERVER, Ringing, sdp
from tests.sip_app.lossy_flows import (
    FLOWS,
    SESSION,
    agreed,
    answered,
    flow,
    given_up,
    joining,
    live,
    soon,
    watching,
)
from tests.sip_app.lossy_world import LossyWorld

__all__ = ["FLOWS"]

CONDITIONS: tuple[Condition, ...] = ("busy", "no-answer", "not-reachable")
NO_UPDATE = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, INFO"


@flow
async def an_old_phone_is_refreshed_by_reinvite(world: LossyWorld) -> None:
    """It knows neither UPDATE nor session timers, and re-INVITEs when it likes: glare is settled (RFC 3261 14.1)."""
    phone = await world.phone("1001", timer=False, allow=NO_UPDATE)
    leg = await answered(await phone.dial("8888"))
    refreshes = 0
    if leg is not None:
        for _ in range(3):
            await asyncio.sleep(world.random.uniform(SESSION / 2 - 3, SESSION / 2 + 1))
            body = sdp(phone.address, version=2)
            status = await leg.reinvite(body=body, content_type="application/sdp")
            assert status in (200, 408, 481, 503), status
        await asyncio.sleep(SESSION)
        refreshes = sum(request.method == "INVITE" and bool(request.body) for request in leg.asked)
        assert refreshes or leg.ended.is_set()
        assert leg.ended.is_set() or not any(request.method == "UPDATE" for request in leg.asked)
    await agreed(world)
    if leg is not None:
        await leg.bye()


@flow
async def a_phone_finds_our_session_interval_too_short(world: LossyWorld) -> None:
    phone = await world.phone("1001", timer=False)
    phone.min_se = 300
    leg = await answered(await phone.dial("8888", headers=[("Supported", "timer")]))
    if leg is not None:
        leg.watch(0, we_refresh=False)
        dialog = world.server.endpoint.dialogs.get((leg.state.call_id, leg.state.remote_tag, leg.state.local_tag))
        if dialog is not None:
            dialog.state = replace(dialog.state, session_interval=SESSION, session_we_refresh=True)
            dialog.session.watch()
            await asyncio.sleep(SESSION)
            assert leg.ended.is_set() or dialog.state.session_interval == 300
    await agreed(world)
    if leg is not None:
        await leg.bye()


@flow
async def a_session_interval_we_find_too_short(world: LossyWorld) -> None:
    phone = await world.phone("1001")
    refused = await (await phone.dial("8888", headers=[("Session-Expires", "60")])).final
    assert isinstance(refused, Response) and refused.status in (407, 408, 422), refused
    assert refused.status != 422 or refused.min_se == 90


@flow
async def calls_without_an_offer(world: LossyWorld) -> None:
    """Our offer is in the 200, the answer in the ACK: the relay hears where the phones are."""
    phone, viewer = await world.phone("1001"), await world.phone("1002")
    source = await answered(await phone.dial("8888", offer=b"", answer=sdp(phone.address, answer=True)))
    await asyncio.sleep(10)
    leg = await answered(await viewer.dial("1001", offer=b"", answer=sdp(viewer.address, answer=True)))
    await agreed(world)
    for group in world.relay.legs.values():
        for spec in group.values():
            assert {medium.rtp.host for medium in spec.media} <= {phone.address.host, viewer.address.host}
    for side in (leg, source):
        if side is not None:
            await side.bye()


@flow
async def a_call_without_an_offer_whose_ack_brings_no_answer(world: LossyWorld) -> None:
    phone = await world.phone("1001")
    leg = await answered(await phone.dial("8888", offer=b""))
    if leg is not None:
        await asyncio.wait_for(leg.ended.wait(), 2 * SESSION)


@flow
async def a_reinvite_asks_for_our_offer(world: LossyWorld) -> None:
    _, source = await live(world)
    moved = Address("10.9.9.9", 5060)
    if source is not None:
        status = await source.reinvite(answer=sdp(moved), headers=[("Supported", "timer")])
        assert status in (200, 408, 481), status
        await world.calm(40)
        legs = [spec for group in world.relay.legs.values() for spec in group.values()]
        acked = any(request.body for request in source._acked.values())
        assert not acked or not legs or source.phone.unheard or legs[0].media[0].rtp.host == moved.host
        await source.bye()


@flow
async def a_phone_moves_while_it_goes_live(world: LossyWorld) -> None:
    """UPDATE in the early dialog: a new target is taken over, an offer must wait (RFC 3311)."""
    call = await joining(world)
    for _ in range(20):
        await asyncio.sleep(0.1)
        if any(response.status == 183 for response in call.seen) or call.final.done():
            break
    for body, allowed in ((b"", (200, 481, 408)), (sdp(call.phone.address), (200, 500, 481, 408))):
        if call.early and not call.final.done():
            tag, early = next(iter(call.early.items()))
            kind: dict[str, Any] = {"body": body, "content_type": "application/sdp"} if body else {}
            call.early[tag], request = early.request("UPDATE", **kind)
            status = (await call.phone.final(request)).status
            assert status in allowed, (status, bool(body))
    leg = await answered(call)
    if leg is not None:
        await leg.bye()


@flow
async def a_call_is_diverted(world: LossyWorld) -> None:
    """On busy, on no reply (as the phone picks up, perhaps), by the phone's own 302; given up meanwhile, perhaps."""
    caller, phone, other = [await world.phone(number) for number in ("1002", "1003", "1004")]
    shown: Reveal = world.random.choice(("true", "false"))  # "false": the legs have other names for the callee
    rules = tuple(DiversionRule(when, f"1004@{DOMAIN}", reveal_identity_to_target=shown) for when in CONDITIONS)
    world.memory.diversions_of[f"1003@{DOMAIN}"] = Diversions(own=DiversionRules(rules, no_reply_timer=5))
    way = world.random.choice(("busy", "slow", "very slow", "deflects", "dead"))

    def ring(ringing: Ringing) -> None:
        ringing.provisional(180)
        match way:
            case "busy":
                ringing.refuse(486)
            case "deflects":
                ringing.refuse(302, [("Contact", f"<sip:1004@{DOMAIN}>")])
            case "slow":
                phone.loop.call_later(world.random.uniform(4.5, 5.5), ringing.answer)

    phone.on_invite = ring
    phone.dead = way == "dead"
    call = await caller.dial("1003", headers=[("Session-Expires", f"{SESSION};refresher=uac")])
    if world.random.random() < 0.3:
        await soon(world, 7)
        await given_up(world, call)
    else:
        leg = await answered(call)
        await agreed(world)
        assert leg is None or way in ("slow",) or other.legs or leg.ended.is_set()
        if leg is not None:
            await leg.bye()
    phone.dead = False


@flow
async def the_broadcast_is_reached_by_a_phones_own_deflection(world: LossyWorld) -> None:
    """1003 sends its caller to 1001, which is live: what began as an ordinary call ends as a view."""
    _, source = await live(world)
    viewer, phone = await world.phone("1002"), await world.phone("1003")
    phone.on_invite = lambda ringing: ringing.refuse(302, [("Contact", f"<sip:1001@{DOMAIN}>")])
    call = await viewer.dial("1003")
    if world.random.random() < 0.3:
        await soon(world, 1)
        await given_up(world, call)
    else:
        leg = await answered(call)
        if leg is not None:
            await leg.bye()
    if source is not None:
        await source.bye()


@flow
async def a_viewer_asks_for_a_picture_and_says_something(world: LossyWorld) -> None:
    _, source = await live(world)
    _, leg = await watching(world, "1002")
    if leg is not None and str(SERVER) in leg.state.remote_target:
        picture = {"body": PICTURE_FAST_UPDATE, "content_type": "application/media_control+xml"}
        assert (await leg.ask("INFO", **picture)).status in (200, 408, 481)
        said = await leg.ask("MESSAGE", body=b"hello", content_type="text/plain")
        assert said.status in (405, 408, 481), "nobody passes messages on in this world"
    await agreed(world)
    for side in (leg, source):
        if side is not None:
            await side.bye()
