"""What RFC 3261 and its companions ask of the running server, rule by rule, in virtual time and fair weather."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocols.net import Address
from protocols.sip.message import Request, Response, parse_message
from tests.sip_app.lossy_calls import DOMAIN, SERVER, Dialling, Leg, Ringing, sdp
from tests.sip_app.lossy_phone import Phone
from tests.sip_app.lossy_world import LossyWorld, Weather, run

NO_UPDATE = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, INFO"


def played(scenario: Callable[[LossyWorld], Awaitable[None]]) -> None:
    async def work() -> None:
        world = LossyWorld(1, Weather(0, 0, 0))
        await world.start()
        await scenario(world)

    run(work())


async def live(world: LossyWorld, **options: Any) -> Leg:
    """1001 is live."""
    phone = await world.phone("1001", **options)
    leg = await (await phone.dial("8888")).final
    assert isinstance(leg, Leg)
    await asyncio.sleep(1)
    return leg


async def joining(world: LossyWorld) -> Dialling:
    """1001 is about to go live: it has its 183, and joins when told to."""
    phone = await world.phone("1001")
    call = await phone.dial("8888", offer=sdp(phone.address, ice=True), tag=";+g.dialcast.join")
    await asyncio.sleep(0.5)
    assert call.seen[-1].status == 183
    return call


def dialog_of(world: LossyWorld, leg: Leg) -> Any:
    return world.server.endpoint.dialogs[leg.state.call_id, leg.state.remote_tag, leg.state.local_tag]


async def raw(world: LossyWorld, phone: Phone, data: bytes) -> Response | None:
    """Bytes from the phone's socket; the first answer within a moment."""
    seen = len(world.network.carried)
    world.network.send(data, phone.address, SERVER)
    await asyncio.sleep(0.1)
    answers = [parse_message(sent) for _, source, to, sent in world.network.carried[seen:] if source == SERVER]
    return next((answer for answer in answers if isinstance(answer, Response)), None)


def outgoing(phone: Phone, request: Request) -> bytes:
    via = f"SIP/2.0/UDP {phone.address};branch=z9hG4bK{phone.random.getrandbits(64):x};rport"
    return Request(request.method, request.uri, request.headers.prepend("Via", via), request.body).serialise()


# CANCEL, PRACK, UPDATE


def test_a_cancel_that_comes_after_the_200_changes_nothing() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        call = await phone.dial("8888")
        leg = await call.final
        assert isinstance(leg, Leg)
        cancel = Request("CANCEL", call.tx.request.uri, call.tx.request.headers.with_("CSeq", f"{phone._cseq} CANCEL"))
        answer = await raw(world, phone, cancel.serialise())
        assert answer is not None and answer.status == 200
        assert answer.to.tag == leg.state.remote_tag, "the same as in the 200 to the INVITE (section 9.2)"
        await world.calm()
        assert not leg.ended.is_set() and not world.lonely()

    played(scenario)


def test_a_prack_for_another_response_gets_481_and_one_that_names_none_400() -> None:
    async def scenario(world: LossyWorld) -> None:
        call = await joining(world)
        early = next(iter(call.early.values()))
        for headers, status in (([("RAck", "1 1 INVITE")], 481), ([], 400)):
            early, request = early.request("PRACK", headers=headers)
            assert (await call.phone.final(request)).status == status
        world.join(f"1001@{DOMAIN}")
        leg = await call.final
        assert isinstance(leg, Leg), "the call goes on"
        leg.state, request = early.request("PRACK")
        assert (await call.phone.final(request)).status == 400, "in the answered call, too"

    played(scenario)


def test_update_before_the_answer_moves_the_phone_but_brings_no_offer() -> None:
    async def scenario(world: LossyWorld) -> None:
        call = await joining(world)
        moved = world.network.receivers[call.phone.address]
        elsewhere = Address("127.0.1.77", 5060)
        world.network.receivers[elsewhere] = moved
        early = next(iter(call.early.values()))
        offer: dict[str, Any] = {"body": sdp(call.phone.address), "content_type": "application/sdp"}
        early, request = early.request("UPDATE", **offer)
        refused = await call.phone.final(request)
        assert refused.status == 500 and 0 <= int(refused.headers.get("Retry-After") or "x") <= 10
        early, request = early.request("UPDATE")
        contact = request.headers.with_("Contact", f"<sip:1001@{elsewhere}>")
        accepted = await call.phone.final(Request("UPDATE", request.uri, contact))
        assert accepted.status == 200 and accepted.contacts
        world.join(f"1001@{DOMAIN}")
        leg = await call.final
        assert isinstance(leg, Leg)
        assert dialog_of(world, leg).state.remote_target == f"sip:1001@{elsewhere}"

    played(scenario)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_second_offer_while_the_first_is_being_answered_gets_500_with_retry_after(method: str) -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world)
        world.relay.slow = 1.0
        offer: dict[str, Any] = {"body": sdp(leg.phone.address, version=2), "content_type": "application/sdp"}
        first = asyncio.create_task(leg.ask("INVITE", **offer))
        await asyncio.sleep(0.3)
        second = await leg.ask(method, **offer)
        assert second.status == 500 and 0 <= int(second.headers.get("Retry-After") or "x") <= 10
        assert (await first).status == 200

    played(scenario)


# re-INVITE glare and session timers


def test_a_reinvite_that_meets_ours_gets_491_and_ours_is_repeated_after_their_491() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world, timer=False, allow=NO_UPDATE)
        dialog_of(world, leg).session._due()  # it is time to refresh
        offer: dict[str, Any] = {"body": sdp(leg.phone.address, version=2), "content_type": "application/sdp"}
        began = world.loop.time()
        assert (await leg.ask("INVITE", **offer)).status == 491
        await asyncio.sleep(5)
        ours = [when for when, source, _, data in world.network.carried if source == SERVER and data[:7] == b"INVITE "]
        assert len(ours) == 2 and ours[1] - began <= 2.5
        assert not world.lonely() and not leg.ended.is_set()
        assert (await leg.ask("INVITE", **offer)).status == 200

    played(scenario)


def test_a_phone_without_update_is_refreshed_with_the_session_it_has() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world, timer=False, allow=NO_UPDATE)
        await asyncio.sleep(61)
        refresh = leg.asked[-1]
        assert refresh.method == "INVITE" and refresh.headers.get("Session-Expires") == "120;refresher=uac"
        assert refresh.body == dialog_of(world, leg).sdp
        assert leg.acks, "and acknowledged"

    played(scenario)


def test_a_phone_that_finds_our_interval_too_short_gets_a_longer_one() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world, timer=False)
        leg.phone.min_se = 200
        await asyncio.sleep(62)
        asked = [request.headers.get("Session-Expires") for request in leg.asked if request.method == "UPDATE"]
        assert asked == ["120;refresher=uac", "200;refresher=uac"]
        assert dialog_of(world, leg).state.session_interval == 200

    played(scenario)


def test_a_phone_may_shorten_the_interval_but_not_have_us_refresh_without_end() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world, timer=False)
        answer = leg.phone.answer
        taken_over = [("Session-Expires", "1;refresher=uas")]
        vars(leg.phone)["answer"] = lambda tx, status, headers=(): answer(tx, 200, taken_over)
        await asyncio.sleep(62)
        state = dialog_of(world, leg).state
        assert (state.session_interval, state.session_we_refresh) == (90, False)
        assert len(leg.asked) == 1

    played(scenario)


def test_a_phone_that_stops_refreshing_is_hung_up_on() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        leg = await (await phone.dial("8888", headers=[("Session-Expires", "90;refresher=uac")])).final
        assert isinstance(leg, Leg) and leg.state.session_we_refresh
        leg.watch(0, we_refresh=False)
        await asyncio.sleep(55)
        assert not leg.ended.is_set()
        await asyncio.sleep(10)
        assert leg.ended.is_set() and "Session expired" in (leg.asked[-1].headers.get("Reason") or "")

    played(scenario)


def test_too_short_a_session_is_refused_before_anything_is_done_for_it() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        refused = await (await phone.dial("8888", headers=[("Session-Expires", "60")])).final
        assert isinstance(refused, Response) and (refused.status, refused.min_se) == (422, 90)
        assert not world.relay.legs and not world.memory.epochs

    played(scenario)


# Forked calls


def test_every_phone_that_rings_is_an_early_dialog_and_a_late_200_is_passed_on_too() -> None:
    async def scenario(world: LossyWorld) -> None:
        caller = await world.phone("1002")
        rung: list[Ringing] = []
        for _ in range(2):
            phone = await world.phone("1003")
            phone.on_invite = rung.append
        calling = asyncio.create_task(caller.dial("1003"))
        call = await calling
        await asyncio.sleep(0.5)
        for ringing in rung:
            ringing.provisional(180)
        await asyncio.sleep(0.1)
        assert len({response.to.tag for response in call.seen if response.status == 180}) == 2
        for ringing in rung:  # both at the same moment: no CANCEL can be in time
            ringing.answer()
        assert isinstance(await call.final, Leg)
        await asyncio.sleep(1)
        assert len(call.legs) == 2, "both 200 came through, and both were acknowledged"
        assert sorted(len(ringing.leg.acks) for ringing in rung if ringing.leg) == [1, 1]
        assert len(caller.legs) == 1 and not world.lonely(), "the caller said BYE to one"

    played(scenario)


# Offers


def test_the_answer_in_the_ack_is_what_the_relay_gets() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world)
        moved = Address("10.9.9.9", 5060)
        assert (await leg.ask("INVITE", answer=sdp(moved))).status == 200
        await asyncio.sleep(1)
        ((spec,),) = (tuple(group.values()) for group in world.relay.legs.values())
        assert {medium.rtp.host for medium in spec.media} == {moved.host}

    played(scenario)


def test_an_answer_that_comes_while_the_relay_is_away_does_not_end_the_call() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world)
        world.relay.away = True
        assert (await leg.ask("INVITE", answer=sdp(leg.phone.address))).status == 200
        await asyncio.sleep(3)
        assert not leg.ended.is_set() and not world.lonely()

    played(scenario)


def test_going_live_and_watching_without_an_offer() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone, viewer = await world.phone("1001"), await world.phone("1002")
        source = await (await phone.dial("8888", offer=b"", answer=sdp(phone.address, answer=True))).final
        await asyncio.sleep(1)
        watching = await (
            await viewer.dial("1001", offer=b"", answer=sdp(viewer.address, "recvonly", answer=True))
        ).final
        await asyncio.sleep(1)
        assert isinstance(source, Leg) and isinstance(watching, Leg)
        ((live_leg, view),) = (tuple(group.values()) for group in world.relay.legs.values())
        assert live_leg.media[0].rtp == Address(phone.address.host, 40000)
        assert view.media[1].rtp == Address(viewer.address.host, 40002) and view.media[1].sends

    played(scenario)


def test_a_call_without_offer_and_answer_ends_and_leaves_nothing() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        leg = await (await phone.dial("8888", offer=b"")).final
        await asyncio.sleep(3)
        assert isinstance(leg, Leg) and leg.ended.is_set() and "488" in (leg.asked[-1].headers.get("Reason") or "")
        await world.calm()
        assert not world.leftovers()

    played(scenario)


MULTIPART = "\r\n".join(
    [
        "--frontier",
        "Content-Type: application/pidf+xml",
        "",
        "<presence/>",
        "--frontier",
        "Content-Type: application/sdp",
    ]
)


@pytest.mark.parametrize(
    ("content_type", "extra", "status"),
    [
        ("multipart/mixed;boundary=frontier", "", 200),
        ('multipart/alternative; boundary="frontier"', "", 200),
        ("multipart/mixed", "", 400),
        ("multipart/mixed;boundary=frontier", "Content-Disposition: session;handling=required\r\n", 200),
        ("multipart/mixed;boundary=frontier", "Content-Disposition: by-reference\r\n", 415),
        ("multipart/mixed;boundary=frontier", "Content-Disposition: by-reference; handling=optional\r\n", 200),
    ],
)
def test_a_description_among_other_parts(content_type: str, extra: str, status: int) -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        body = MULTIPART.encode() + b"\r\n" + extra.encode() + b"\r\n" + sdp(phone.address) + b"\r\n--frontier--\r\n"
        outcome = await (await phone.dial("8888", offer=body, content_type=content_type)).final
        assert (200 if isinstance(outcome, Leg) else outcome.status) == status

    played(scenario)


@pytest.mark.parametrize(("handling", "status"), [("", 415), (";handling=required", 415), (";handling=optional", 200)])
def test_an_unknown_disposition_is_refused_unless_it_is_optional(handling: str, status: int) -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        headers = [("Content-Disposition", f"icon{handling}")]
        outcome = await (await phone.dial("8888", headers=headers, answer=sdp(phone.address))).final
        assert (200 if isinstance(outcome, Leg) else outcome.status) == status
        if isinstance(outcome, Response):
            assert "application/sdp" in (outcome.headers.get("Accept") or "")

    played(scenario)


# Refusals


@pytest.mark.parametrize(
    ("method", "uri", "headers", "status", "says"),
    [
        ("INVITE", f"sip:1003@{DOMAIN}", [("Max-Forwards", "0")], 483, ""),
        ("INVITE", f"sip:8888@{DOMAIN}", [("Require", "teleportation")], 420, "Unsupported"),
        ("OPTIONS", f"sip:{DOMAIN}", [("Require", "teleportation")], 420, "Unsupported"),
        ("INVITE", f"sip:1003@{DOMAIN}", [("Proxy-Require", "teleportation")], 420, "Unsupported"),
        ("PUBLISH", f"sip:8888@{DOMAIN}", [], 405, "Allow"),
        *[(method, f"sip:8888@{DOMAIN}", [], 481, "") for method in ("BYE", "PRACK", "UPDATE", "INFO")],
        ("BYE", f"sip:{DOMAIN}", [], 481, ""),
        ("CONJURE", f"sip:8888@{DOMAIN}", [], 501, "Allow"),
        ("CONJURE", f"sip:{DOMAIN}", [], 501, "Allow"),
        ("INVITE", f"sip:8888@{DOMAIN}", [("Content-Type", "text/plain")], 415, "Accept"),
        ("INVITE", f"sip:8888@{DOMAIN}", [("Content-Encoding", "gzip")], 415, "Accept-Encoding"),
        ("INVITE", "foo:8888", [], 416, ""),
        ("INVITE", f"sip:*21%23*@{DOMAIN}", [], 484, ""),
        ("OPTIONS", f"sip:{DOMAIN}", [], 200, "Allow"),
        ("OPTIONS", f"sip:8888@{DOMAIN}", [], 200, "Accept"),
        ("OPTIONS", f"sip:8888@{DOMAIN}", [], 200, "Supported"),
    ],
)
def test_refusals_say_what_would_do(method: str, uri: str, headers: Any, status: int, says: str) -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1002")
        await world.phone("1003")
        body = sdp(phone.address) if method == "INVITE" else b""
        contact = [("Contact", phone.contact)]
        request = phone.build(method, uri, headers=contact, body=body)
        for name, value in headers:
            request = Request(method, uri, request.headers.with_(name, value), body)
        response = await phone.ask(request)
        assert response.status == status
        assert not says or response.headers.get(says)

    played(scenario)


def test_a_call_names_the_methods_it_takes_and_no_others() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world)
        refused = await leg.ask("SUBSCRIBE", headers=[("Event", "presence")])
        taken = ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE", "INFO", "MESSAGE"]
        assert (refused.status, refused.headers.values("allow")) == (405, taken)
        assert (await leg.ask("OPTIONS")).headers.values("allow") == taken

    played(scenario)


def test_an_extension_required_within_a_call_is_refused() -> None:
    async def scenario(world: LossyWorld) -> None:
        leg = await live(world)
        refused = await leg.ask("INVITE", headers=[("Require", "teleportation")])
        assert (refused.status, refused.headers.get("Unsupported")) == (420, "teleportation")
        assert (await leg.ask("OPTIONS")).headers.get("Accept")
        assert (await leg.ask("CONJURE")).status == 501

    played(scenario)


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE"])
def test_the_same_request_by_another_way_is_refused(method: str) -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1001")
        uri = f"sip:8888@{DOMAIN}" if method == "INVITE" else f"sip:{DOMAIN}"
        body = sdp(phone.address) if method == "INVITE" else b""
        me = f"<sip:1001@{DOMAIN}>"
        request = phone.build(method, uri, to=me, headers=[("Contact", phone.contact)], body=body)
        refusal = await phone.final(request)
        if refusal.status in (401, 407):
            request = phone.authorized(request, refusal)
            assert (await phone.final(request)).status == 200
        again = await raw(world, phone, outgoing(phone, request))
        assert again is not None and again.status == 482

    played(scenario)


def test_what_is_too_large_is_answered_513_and_another_version_505() -> None:
    async def scenario(world: LossyWorld) -> None:
        phone = await world.phone("1002")
        request = phone.build("INVITE", f"sip:8888@{DOMAIN}")
        sip = world.server.endpoint._sip
        many = Request("INVITE", request.uri, request.headers.add(*[("X", "y")] * sip.max_headers))
        wide = Request("INVITE", request.uri, request.headers.add(("X", "y" * sip.max_header_bytes)))
        long = Request("INVITE", request.uri, request.headers, b"x" * sip.max_message_bytes)
        for large in (many, wide, long):
            answer = await raw(world, phone, outgoing(phone, large))
            assert answer is not None and answer.status == 513 and answer.call_id == request.call_id
        assert await raw(world, phone, b"x" * sip.max_message_bytes + b"y") is None, "nobody to answer"
        answer = await raw(world, phone, outgoing(phone, request).replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n", 1))
        assert answer is not None and answer.status == 505

    played(scenario)
