"""Calls to a forwarded number go where the forwarding says, the caller is told, and loops end."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ua import DOMAIN, OFFER, World, running

from protocols.records import DiversionRule, DiversionRules, Overlay


async def forward(world: World, number: str, target: str, **options: Any) -> None:
    """Give a number one rule more: unconditional, unless `condition` says otherwise."""
    rule = DiversionRule(options.pop("condition", "unconditional"), f"{target}@{DOMAIN}", **options)

    def add(own: DiversionRules | None) -> DiversionRules:
        own = own or DiversionRules()
        return replace(own, rules=(*(own.rules or ()), rule))

    await world.store.diversions.change(f"{number}@{DOMAIN}", add)


def test_a_forwarded_call_rings_the_target_and_the_caller_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            call = await ann.dial("1002")
            told = await call.until(181)
            assert told.to.tag
            assert [str(entry) for entry in told.history] == [
                f"<sip:1002@{DOMAIN}>;index=1",
                f"<sip:1003@{DOMAIN};cause=302>;index=1.1;mp=1",
            ]
            tx, invite = await carol.asked("INVITE")
            assert [(entry.index, entry.cause) for entry in invite.history] == [
                ("1", None),
                ("1.1", 302),
                ("1.1.1", None),
            ]
            assert dict(invite.history[2].params) == {"rc": "1.1"}
            assert "diversion" not in invite.headers
            carol.respond(tx, 200, body=OFFER, content_type="application/sdp")
            await call.answered()

    asyncio.run(scenario())


def test_a_trusted_peer_gets_the_diversion_header_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, trusted_peers=("127.0.0.1",)) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            await ann.dial("1002")
            tx, invite = await carol.asked("INVITE")
            assert str(invite.diversions[0]) == f"<sip:1002@{DOMAIN}>;reason=unconditional;counter=1"
            carol.respond(tx, 486)

    asyncio.run(scenario())


def test_an_inactive_forwarding_rings_the_phone_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await forward(world, "1002", "1003", active=False)
            await ann.dial("1002")
            tx, invite = await bob.asked("INVITE")
            assert "history-info" not in invite.headers
            bob.respond(tx, 486)

    asyncio.run(scenario())


def test_the_overlay_goes_before_the_users_own_forwarding(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, _ = await world.phone("1001"), await world.phone("1003")
            carol = await world.phone("1004")
            await forward(world, "1002", "1003")
            await world.store.diversions.set_overlay(f"1002@{DOMAIN}", Overlay("1004", f"1002@{DOMAIN}", 1))
            await ann.dial("1002")
            tx, _ = await carol.asked("INVITE")
            carol.respond(tx, 486)

    asyncio.run(scenario())


def test_forwarding_in_a_circle_is_a_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            await forward(world, "1002", "1003")
            await forward(world, "1003", "1002")
            assert (await (await ann.dial("1002")).final()).status == 482

    asyncio.run(scenario())


def test_five_forwardings_are_followed_and_the_sixth_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, last = await world.phone("1001"), await world.phone("1007")
            for number in range(1002, 1007):
                await forward(world, str(number), str(number + 1))
            call = await ann.dial("1002")
            tx, invite = await last.asked("INVITE")
            assert invite.history[-2].index == "1.1.1.1.1.1"
            last.respond(tx, 486)
            assert (await call.final()).status == 486
            await forward(world, "1007", "1008")
            refused = await (await ann.dial("1002")).final()
            assert (refused.status, refused.reason) == (480, "Too Many Diversions")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("came", "status"),
    [
        ([("2001", ""), ("2002", "302"), ("1002", "486")], 486),
        ([("1003", ""), ("1002", "302")], 482),
        ([("2000", ""), *((f"200{n}", "302") for n in range(1, 5)), ("1002", "408")], 480),
    ],
)
def test_diversions_made_elsewhere_count(tmp_path: Path, came: list[tuple[str, str]], status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path, trusted_peers=("127.0.0.1",)) as world:
            peer, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            history = [
                ("History-Info", f"<sip:{number}@{DOMAIN}{cause and f';cause={cause}'}>;index=1{'.1' * depth}")
                for depth, (number, cause) in enumerate(came)
            ]
            call = await peer.dial("1002", headers=history)
            if status == 486:
                tx, invite = await carol.asked("INVITE")
                assert [entry.index for entry in invite.history] == ["1", "1.1", "1.1.1", "1.1.1.1", "1.1.1.1.1"]
                carol.respond(tx, 486)
            assert (await call.final()).status == status

    asyncio.run(scenario())
