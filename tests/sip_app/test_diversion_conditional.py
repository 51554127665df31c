"""Calls nobody takes go on to whoever the user named: on busy, no reply, nobody there; or where a phone sends them."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_diversion import forward
from test_service_calls import Service
from ua import DOMAIN, OFFER, QUICK, Call, Phone, World, running

from protocols.records import Condition
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request, Response
from protocols.sip.transaction import TransactionLayer

ANSWER: dict[str, Any] = {"body": OFFER, "content_type": "application/sdp"}


async def soon(world: World, number: str) -> None:
    """Let the phones of a number ring for one second only."""
    change = world.store.diversions.change
    await change(f"{number}@{DOMAIN}", lambda own: replace(own, no_reply_timer=1) if own else None)


async def diverted(call: Call, target: Phone) -> tuple[Response, ServerTransaction, Request]:
    """The call reaches its target: what the caller was told, and what the target got."""
    tx, invite = await target.asked("INVITE")
    return await call.until(181), tx, invite


def entries(message: Request | Response) -> list[str]:
    return [str(entry) for entry in message.history]


def test_a_busy_phones_calls_go_to_the_target(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="busy")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)
            told, tx, invite = await diverted(call, carol)
            known = [
                f"<sip:1002@{DOMAIN}>;index=1",
                "<sip:anonymous@anonymous.invalid?Reason=SIP%3Bcause%3D486>;index=1.1;rc=1",
                f"<sip:1003@{DOMAIN};cause=486>;index=1.2;mp=1",
            ]
            assert entries(told) == known
            assert entries(invite)[:3] == known
            assert dict(invite.history[3].params) == {"rc": "1.2"}
            carol.respond(tx, 200, **ANSWER)
            await call.answered()
            await carol.acknowledged()

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "goes_on"), [(600, True), (486, True), (603, False), (480, False)])
def test_only_busy_is_busy(tmp_path: Path, status: int, goes_on: bool) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="busy")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, status)
            if goes_on:
                tx, _ = await carol.asked("INVITE")
                carol.respond(tx, 404)
                assert (await call.final()).status == 404
            else:
                assert (await call.final()).status == status

    asyncio.run(scenario())


def test_one_busy_phone_of_two_is_not_busy_yet(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, desk, mobile = await world.phone("1001"), await world.phone("1002"), await world.phone("1002")
            await forward(world, "1002", "1003", condition="busy")
            call = await ann.dial("1002")
            (desk_tx, _), (mobile_tx, _) = await desk.asked("INVITE"), await mobile.asked("INVITE")
            desk.respond(desk_tx, 486)
            mobile.respond(mobile_tx, 200, **ANSWER)
            await call.answered()

    asyncio.run(scenario())


def test_a_phone_nobody_picks_up_stops_ringing_and_the_target_rings(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="no-answer")
            await soon(world, "1002")
            call = await ann.dial("1002", headers=[("Supported", "199")])
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180, tag="ringing")
            assert (await call.until(180)).to.tag == "ringing"
            gone = await call.until(199)
            assert (gone.to.tag, gone.reasons[0].cause) == ("ringing", 408)
            told, tx, invite = await diverted(call, carol)
            assert [entry.cause for entry in told.history] == [None, None, 408]
            assert invite.history[2].index == "1.2"
            assert bob.cancelled
            cancel = next(data for data in bob.raw if data.startswith(b"CANCEL"))
            assert b'Reason: SIP;cause=408;text="Forwarded on no reply"' in cancel
            carol.respond(tx, 200, **ANSWER)
            await call.answered()

    asyncio.run(scenario())


def test_a_phone_picked_up_at_the_last_moment_is_hung_up_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="no-answer")
            await soon(world, "1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            bob.answers_cancel = False
            _, carols, _ = await diverted(call, carol)
            bob.respond(tx, 200, **ANSWER)
            await bob.acknowledged()
            bye = await bob.accept("BYE")
            assert bye.reasons[0].cause == 408
            carol.respond(carols, 200, **ANSWER)
            answered = await call.answered()
            assert str(answered.contacts[0].uri) == carol.contact.strip("<>")

    asyncio.run(scenario())


def test_a_phone_that_answers_in_time_is_not_forwarded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="no-answer")
            await soon(world, "1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            bob.respond(tx, 200, **ANSWER)
            await call.answered()
            await asyncio.sleep(1.2)
            assert carol.requests.empty()
            assert not bob.cancelled

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("condition", "cause", "registered"), [("not-registered", 404, False), ("not-reachable", 503, True)]
)
def test_a_number_whose_phones_cannot_be_asked_is_forwarded(
    tmp_path: Path, condition: Condition, cause: int, registered: bool
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            bob = await world.phone("1002", transport="tcp", register=registered)
            bob.writer.close()
            await asyncio.sleep(0.05)
            await forward(world, "1002", "1003", condition=condition)
            call = await ann.dial("1002")
            told, tx, _ = await diverted(call, carol)
            assert told.history[-1].cause == cause
            carol.respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_a_phone_that_says_nothing_at_all_is_not_reachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="not-reachable")
            bob.wire.close()
            ann.layer = TransactionLayer(replace(QUICK, c=9.0))
            call = await ann.dial("1002")
            told, tx, _ = await diverted(call, carol)
            assert told.history[-1].cause == 503
            carol.respond(tx, 486)
            await call.final()

    asyncio.run(scenario())


@pytest.mark.parametrize(("rings", "cause"), [(False, 480), (True, 487)])
def test_a_phone_deflects_its_call_to_the_first_target_allowed(tmp_path: Path, rings: bool, cause: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            if rings:
                bob.respond(tx, 180)
            contacts = f"<sip:0900@example.org>;q=1.0, <sip:4711@{DOMAIN}>;q=0.9, <sip:1003@{DOMAIN}>;q=0.8"
            bob.respond(tx, 302, headers=[("Contact", contacts)])
            told, tx, invite = await diverted(call, carol)
            assert told.history[-1].cause == cause
            assert invite.history[1].index == "1.1"
            carol.respond(tx, 200, **ANSWER)
            await call.answered()

    asyncio.run(scenario())


def test_a_deflection_to_nowhere_allowed_ends_the_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 302, headers=[("Contact", "<sip:0900@example.org>, <sip:1002@example.net>, <tel:4711>")])
            assert (await call.final()).status == 480

    asyncio.run(scenario())


@pytest.mark.parametrize("moment", ["ringing", "diverted"])
def test_a_caller_who_gives_up_ends_everything(tmp_path: Path, moment: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="no-answer")
            await soon(world, "1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            await call.until(180)
            if moment == "diverted":
                _, tx, _ = await diverted(call, carol)
                carol.respond(tx, 180)
                await call.until(180)
            call.cancel()
            assert (await call.final()).status == 487
            await asyncio.sleep(1.2)
            assert bob.cancelled
            assert bool(carol.cancelled) == (moment == "diverted")
            assert carol.requests.empty()
            assert not world.server.endpoint.cancellable

    asyncio.run(scenario())


def test_busy_phones_in_a_circle_are_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="busy")
            await forward(world, "1003", "1002", condition="busy")
            call = await ann.dial("1002")
            for phone in (bob, carol):
                tx, _ = await phone.asked("INVITE")
                phone.respond(tx, 486)
            assert (await call.final()).status == 486
            assert bob.requests.empty()

    asyncio.run(scenario())


def test_five_diversions_of_any_kind_are_enough(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phones = {number: await world.phone(str(number)) for number in (1001, 1003, 1005, 1007)}
            for number, condition in zip(
                range(1002, 1008),
                ("unconditional", "busy", "not-registered", "busy", "unconditional", "busy"),
                strict=True,
            ):
                await forward(world, str(number), str(number + 1), condition=condition)
            call = await phones[1001].dial("1002")
            for number in (1003, 1005):
                tx, _ = await phones[number].asked("INVITE")
                phones[number].respond(tx, 486)
            tx, invite = await phones[1007].asked("INVITE")
            assert [entry.cause for entry in invite.history if entry.cause] == [302, 486, 404, 486, 302]
            phones[1007].respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_two_diversions_one_after_the_other_are_told_one_by_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol, dave = await world.phone("1001"), await world.phone("1003"), await world.phone("1004")
            await forward(world, "1002", "1003")
            await forward(world, "1003", "1004", condition="busy", notify_caller=False)
            call = await ann.dial("1002")
            _, tx, _ = await diverted(call, carol)
            carol.respond(tx, 486)
            tx, _ = await dave.asked("INVITE")
            dave.respond(tx, 486)
            assert (await call.final()).status == 486
            assert [response.status for response in call.seen].count(181) == 1

    asyncio.run(scenario())


def test_a_rule_decides_who_sees_whom(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(
                world, "1002", "1003", reveal_identity_to_target="false", reveal_identity_to_caller="false"
            )  # fmt: skip
            told, tx, invite = await diverted(await ann.dial("1002"), carol)
            assert entries(told) == [
                f"<sip:1002@{DOMAIN}>;index=1",
                "<sip:anonymous@anonymous.invalid;cause=302>;index=1.1;mp=1",
            ]
            assert entries(invite)[:2] == [
                "<sip:anonymous@anonymous.invalid>;index=1",
                f"<sip:1003@{DOMAIN};cause=302>;index=1.1;mp=1",
            ]
            carol.respond(tx, 486)
            await forward(world, "1004", "1003", reveal_served_user_identity_to_caller="false")
            told, tx, _ = await diverted(await ann.dial("1004"), carol)
            assert entries(told)[0] == "<sip:anonymous@anonymous.invalid>;index=1"
            carol.respond(tx, 486)

    asyncio.run(scenario())


def test_a_trusted_peer_sees_all_of_it_and_what_is_private(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, trusted_peers=("127.0.0.1",)) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003", reveal_identity_to_target="false")
            await ann.dial("1002", headers=[("Privacy", "id")])
            tx, invite = await carol.asked("INVITE")
            assert entries(invite)[0] == f"<sip:1002@{DOMAIN}?Privacy=history>;index=1"
            assert str(invite.diversions[0]).endswith(";privacy=full")
            assert invite.headers.get("p-asserted-identity") == f"<sip:1001@{DOMAIN}>"
            assert invite.headers.get("privacy") == "id"
            carol.respond(tx, 486)

    asyncio.run(scenario())


def test_a_callers_own_privacy_hides_the_history_and_leaves_from_as_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            await ann.dial("1002", headers=[("Privacy", "id; history")], from_=f'"Anonymous" <sip:1001@{DOMAIN}>')
            tx, invite = await carol.asked("INVITE")
            assert all("anonymous@anonymous.invalid" in entry for entry in entries(invite))
            assert "p-asserted-identity" not in invite.headers
            assert invite.from_.display == "Anonymous"
            carol.respond(tx, 486)

    asyncio.run(scenario())


def test_the_user_hears_of_a_diverted_call_if_they_want_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")
            await forward(world, "1002", "1003", condition="busy", notify_served_user=True)
            for privacy, who in (([], "1001"), ([("Privacy", "id")], "somebody")):
                await ann.dial("1002", headers=privacy)
                tx, _ = await bob.asked("INVITE")
                bob.respond(tx, 486)
                tx, _ = await carol.asked("INVITE")
                carol.respond(tx, 486)
                message = await bob.accept("MESSAGE")
                assert message.body.decode() == f"Call from {who} forwarded to 1003 (busy)"
                assert str(message.to.uri) == f"sip:1002@{DOMAIN}"

    asyncio.run(scenario())


def test_the_user_is_reminded_when_they_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await forward(world, "1001", "1003", notify_served_user_on_outbound_call=True)
            await ann.dial("1002")
            assert (await ann.accept("MESSAGE")).body == b"Your calls are forwarded to 1003"
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["busy", "no-answer", "not-registered", "deflection"])
def test_a_call_that_ends_at_the_service_number_watches_whoever_sent_it_there(tmp_path: Path, kind: Any) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", register=kind != "not-registered")
            if kind != "deflection":
                await forward(world, "1002", "8888", condition=kind)
                await soon(world, "1002")
            call = await ann.dial("1002")
            if kind != "not-registered":
                tx, _ = await bob.asked("INVITE")
                bob.respond(tx, 180)
                if kind == "busy":
                    bob.respond(tx, 486)
                elif kind == "deflection":
                    bob.respond(tx, 302, headers=[("Contact", f"<sip:8888@{DOMAIN}>")])
            await call.until(181)
            await call.answered()
            assert service.asked == [("watch", f"1001@{DOMAIN}", f"1002@{DOMAIN}")]
            assert (await call.send("BYE")).status == 200

    asyncio.run(scenario())


def test_a_caller_who_gives_up_on_the_way_to_the_service_number_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        service.hold.clear()
        async with running(tmp_path, service) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await forward(world, "1002", "8888", condition="busy")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            bob.respond(tx, 486)
            await call.until(181)
            call.cancel()
            assert (await call.final()).status == 487
            service.hold.set()
            await asyncio.sleep(0.05)
            assert service.gone

    asyncio.run(scenario())
