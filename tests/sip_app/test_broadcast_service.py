"""Going live and watching: the calls to the service number, on a real server, store and relay."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, CHANNEL, broadcasting, until, version
from ua import DOMAIN

from protocols.media_control import CONTENT_TYPE, PICTURE_FAST_UPDATE
from protocols.records import DiversionRule, DiversionRules
from protocols.sdp import parse


def test_our_terminal_is_answered_only_once_it_has_joined(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=2) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.announce()
            progress = await call.until(183)
            assert progress.rseq is not None and "100rel" in progress.required
            assert "isfocus" in str(progress.headers.get("Contact"))
            assert (await call.prack(progress)).status == 200
            session = phone.connect(progress.body)
            assert session.ice_lite and all(line.ice_ufrag and line.ice_pwd for line in session.media)
            await asyncio.sleep(0.1)
            assert call.responses.empty(), "answered before the join"
            phone.connect(progress.body, join=True)
            answer = await call.answered()
            assert answer.body == b"" and "isfocus" in str(answer.headers.get("Contact"))
            assert world.group.state == "live"

    asyncio.run(scenario())


def test_a_terminal_whose_join_never_comes_is_told_where_it_should_have_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.announce()
            progress = await call.until(183)
            await call.prack(progress)
            place = phone.connect(progress.body).media[0]
            refusal = await call.final()
            assert refusal.status == 504
            assert f"127.0.0.1:{place.port}" in str(refusal.headers.get("Warning"))
            assert await world.nothing_left()

    asyncio.run(scenario())


def test_hanging_up_before_the_join_leaves_nothing_and_one_may_try_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=3) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.announce()
            await call.prack(await call.until(183))
            call.cancel()
            assert (await call.final()).status == 487
            await until(lambda: not world.on_relay)
            await asyncio.sleep(0.05)
            assert await world.nothing_left()
            await phone.go_live()

    asyncio.run(scenario())


def test_a_stock_phone_is_answered_at_once_and_the_server_forwards_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, overlay_delay=0.15) as world:
            phone = await world.phone(BROADCASTER)
            await phone.go_live()
            await asyncio.sleep(0.05)
            assert await world.overlay() is None, "the terminal has a moment to do it itself"
            await world.forwarded()
            assert await world.overlay() is not None
            viewer, _ = await world.viewer("1002")
            phone.video.send()
            await until(lambda: bool(viewer.video.packets))

    asyncio.run(scenario())


def test_a_terminal_may_forward_by_its_own_code_before_the_server_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, overlay_delay=60) as world:
            phone = await world.phone(BROADCASTER)
            await phone.go_live()
            code = await phone.dial("*21*8888%23", body=phone.offer())
            await code.answered()
            assert await world.overlay() is not None
            assert (await world.store.diversions.get(CHANNEL)).own is None
            await world.viewer("1002")

    asyncio.run(scenario())


def test_a_viewers_wish_for_a_picture_reaches_a_phone_that_knows_no_feedback(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            wish = {"body": PICTURE_FAST_UPDATE, "content_type": CONTENT_TYPE}
            assert (await call.send("INFO", **wish)).status == 200
            await until(lambda: [request.method for request, _ in phone.heard] == ["INFO"])
            assert b"picture_fast_update" in phone.heard[0][0].body

    asyncio.run(scenario())


def test_dialling_again_while_the_first_call_lives_is_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, call = await world.broadcaster()
            source = world.group.source
            second = await phone.dial("8888", body=phone.offer())
            assert (await second.final()).status == 486
            assert [request.method for request, _ in phone.heard] == ["OPTIONS"]
            assert world.group.source is source
            assert (await call.send("BYE")).status == 200

    asyncio.run(scenario())


def test_dialling_again_after_the_phone_died_unnoticed_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            phone.dead = True
            other = await world.phone(BROADCASTER)
            await other.go_live()
            assert len(world.relay.relay.groups.by_id[CHANNEL].legs) == 1
            assert "taken over" in await phone.ended()

    asyncio.run(scenario())


def test_by_policy_the_second_call_takes_over_and_the_viewers_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(
            tmp_path, config={"services": [{"number": "8888", "second_attempt": "takeover"}]}
        ) as world:
            first, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            second = await world.phone(BROADCASTER)
            await second.go_live()
            assert "taken over" in await first.ended()
            await until(lambda: bool(viewer.video.packets))
            assert [v.number for v in world.group.viewers.values()] == ["1002"]
            assert viewer.ends == [] and len({packet.ssrc for packet in viewer.video.packets}) == 1

    asyncio.run(scenario())


def test_more_broadcasts_than_allowed_are_refused_and_so_is_one_that_lives_on_another_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, max_groups=1) as world:
            _, call = await world.broadcaster()
            other = await world.phone("1002")
            refusal = await (await other.dial("8888", body=other.offer())).final()
            assert (refusal.status, refusal.reason) == (486, "Too Many Broadcasts")
            claim = await world.store.broadcasts.get(CHANNEL)
            await call.send("BYE")
            await world.over()
            assert claim is not None
            channel = f"1002@{DOMAIN}"
            epoch = await world.store.broadcasts.next_epoch(channel)
            elsewhere = replace(claim, channel=channel, epoch=epoch, as_id="another")
            await world.store.broadcasts.claim(elsewhere, time.time())
            refusal = await (await other.dial("8888", body=other.offer())).final()
            assert (refusal.status, refusal.reason) == (486, "Already Live On Another Server")
            assert await world.store.broadcasts.all() == [elsewhere]

    asyncio.run(scenario())


def test_who_calls_somebody_who_is_not_live_is_told_so_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=2) as world:
            own = DiversionRules((DiversionRule("unconditional", f"8888@{DOMAIN}"),))
            await world.store.diversions.change(CHANNEL, lambda _: own)
            viewer = await world.phone("1002")
            for starting in (False, True):
                if starting:
                    phone = await world.phone(BROADCASTER)
                    call = await phone.announce()
                    await call.until(183)
                refusal = await (await viewer.dial(BROADCASTER, body=viewer.offer())).final()
                assert (refusal.status, refusal.reason) == (480, "1001 Is Not Live")

    asyncio.run(scenario())


def test_nobody_watches_himself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            refusal = await (await phone.dial(BROADCASTER, body=phone.offer())).final()
            assert (refusal.status, refusal.reason) == (486, "This Is Your Own Broadcast")

    asyncio.run(scenario())


def test_a_full_broadcast_takes_nobody_until_somebody_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"services": [{"number": "8888", "max_viewers": 1}]}) as world:
            await world.broadcaster()
            _, watching = await world.viewer("1002")
            late = await world.phone("1003")
            refusal = await (await late.dial(BROADCASTER, body=late.offer())).final()
            assert refusal.status == 486 and "retry-after" in refusal.headers
            assert (await watching.send("BYE")).status == 200
            await late.watch()

    asyncio.run(scenario())


def test_a_viewer_without_a_format_in_common_is_told_what_there_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            viewer = await world.phone("1002")
            refusal = await (await viewer.dial(BROADCASTER, body=viewer.offer(codec="G729"))).final()
            assert refusal.status == 488 and "PCMU" in str(refusal.headers.get("Warning"))
            assert len(world.relay.relay.groups.by_id[CHANNEL].legs) == 1

    asyncio.run(scenario())


def test_a_viewer_that_hangs_up_leaves_the_relay_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            _, call = await world.viewer("1002")
            legs = world.relay.relay.groups.by_id[CHANNEL].legs
            assert len(legs) == 2
            await call.send("BYE")
            await until(lambda: len(legs) == 1)

    asyncio.run(scenario())


def test_a_viewer_that_gives_up_while_it_is_being_answered_leaves_the_relay_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            legs = world.relay.relay.groups.by_id[CHANNEL].legs
            viewer = await world.phone("1002")
            world.dialogs.go.clear()
            call = await viewer.dial(BROADCASTER, body=viewer.offer())
            await until(lambda: len(legs) == 2)
            call.cancel()
            assert (await call.final()).status == 487
            world.dialogs.go.set()
            await until(lambda: len(legs) == 1)
            await until(lambda: not world.group.viewers and not world.group.pending)

    asyncio.run(scenario())


def test_holding_one_view_stops_that_one_only_until_it_is_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            one, call = await world.viewer("1002")
            other, _ = await world.viewer("1003")
            for direction, flows in (("inactive", False), ("sendrecv", True)):
                answer = await one.reoffer(call, body=one.offer(direction=direction), content_type="application/sdp")
                assert answer.status == 200
                one.video.packets.clear()
                other.video.packets.clear()
                one.video.send()  # it is there, so that it latches again
                for _ in range(3):
                    phone.video.send()
                    await asyncio.sleep(0.02)
                await until(lambda: len(other.video.packets) >= 3)
                assert bool(one.video.packets) is flows
            assert other.heard == []

    asyncio.run(scenario())


@pytest.mark.parametrize("who", ["broadcaster", "viewer"])
def test_a_reinvite_without_an_offer_is_answered_with_ours(tmp_path: Path, who: str) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, call = await world.broadcaster()
            if who == "viewer":
                phone, call = await world.viewer("1002")
            before = call.seen[-1].body
            for step in (1, 2):
                again = await phone.reoffer(call)
                assert again.status == 200 and again.content_type == "application/sdp"
                assert version(again) == version(before) + step
                assert parse(again.body).media == parse(before).media

    asyncio.run(scenario())


def test_the_users_own_forwarding_is_untouched_and_rules_again_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            own = DiversionRules((DiversionRule("unconditional", f"1003@{DOMAIN}"),))
            await world.store.diversions.change(CHANNEL, lambda _: own)
            other, caller = await world.phone("1003"), await world.phone("1002")
            phone, live = await world.broadcaster()
            activated = await phone.dial("*21*8888%23", body=phone.offer())
            await activated.answered()
            assert (await world.store.diversions.get(CHANNEL)).own == own
            await caller.watch()
            assert other.heard == []
            await live.send("BYE")
            await caller.ended()
            assert (await world.store.diversions.get(CHANNEL)).own == own
            assert await world.overlay() is None
            assert (await (await caller.dial(BROADCASTER, body=caller.offer())).final()).status == 486
            assert [request.method for request, _ in other.heard] == ["INVITE"]

    asyncio.run(scenario())
