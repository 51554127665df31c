"""For 32 s after a call its transactions wait for retransmissions (RFC 3261 section 17), and keep what these need."""

import asyncio
import gc
from pathlib import Path

import pytest
from test_proxy import connected
from ua import OFFER, World, running

from protocols.sip.events import ServerTransaction, Transaction
from sip_app.calls.incoming import IncomingCall
from sip_app.proxy.fork import Fork


def waiting(world: World) -> list[Transaction]:
    layer = world.server.endpoint._layer
    return [*layer._servers.values(), *layer._clients.values()]


def let_go(world: World) -> bool:
    """True if no request, call or fork is held any more."""
    for tx in waiting(world):
        with pytest.raises(LookupError):
            _ = tx.request
    endpoint = world.server.endpoint
    # Of this server: another test's may wait for the garbage collector.
    held = [
        found
        for found in gc.get_objects()
        if isinstance(found, IncomingCall | Fork) and vars(found).get("_endpoint") is endpoint
    ]
    return not (held or endpoint.calls or endpoint.cancellable or endpoint.at_answer)


def test_a_relayed_call_leaves_the_bytes_of_one_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call, _, _ = await connected(world, ann, bob)
            hung_up = asyncio.create_task(bob.accept("BYE"))
            assert (await call.send("BYE")).status == 200
            await hung_up
            assert let_go(world)
            calls = [tx for tx in waiting(world) if tx.method != "REGISTER"]
            assert sorted(tx.method for tx in calls) == ["BYE", "BYE", "INVITE", "INVITE"]
            kept = [tx for tx in calls if tx.last]
            assert [(type(tx), tx.method) for tx in kept] == [(ServerTransaction, "BYE")]
            assert len(world.server.endpoint.users) == 1, "whoever passes on a 200 that is repeated"

    asyncio.run(scenario())


def test_a_200_that_is_repeated_still_goes_to_the_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 200, body=OFFER, content_type="application/sdp")
            first = await call.until(200)
            assert let_go(world)
            bob.respond(tx, 200, body=OFFER, content_type="application/sdp")
            assert (await call.until(200)).serialise() == first.serialise()
            call.ack(first)
            await bob.acknowledged()

    asyncio.run(scenario())


def test_a_code_leaves_nothing_of_its_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            call = await phone.dial("*%2321%23")
            await call.answered()
            await phone.accept("BYE")
            await asyncio.sleep(0.1)
            assert let_go(world)
            assert not world.server.endpoint.users

    asyncio.run(scenario())


def test_a_refused_call_leaves_the_bytes_of_its_refusal_and_is_refused_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)
            assert (await call.final()).status == 486
            assert let_go(world)

    asyncio.run(scenario())
