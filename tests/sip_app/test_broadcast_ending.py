"""How broadcasts end: in order, paced, whoever is dead; and how a lost one goes on."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, MediaPhone, broadcasting, until

from sip_app.broadcast import ending
from sip_app.broadcast.ending import stopped_by_operator
from sip_app.element import endpoint

IMPATIENT: dict[str, Any] = {"leg_timeout": 0.2}


async def lost(world: BroadcastWorld) -> MediaPhone:
    """The broadcaster dies and is found out."""
    phone, _ = await world.broadcaster()
    phone.dead = True
    await until(lambda: world.group.state == "lost")
    return phone


def test_the_end_withdraws_the_overlay_then_stops_the_media_then_says_bye(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            _, call = await world.broadcaster()
            viewers = [(await world.viewer(number))[0] for number in ("1002", "1003")]
            await call.send("BYE")
            for viewer in viewers:
                assert await viewer.ended() == 'Q.850;cause=16;text="Broadcast ended"'
            assert world.journal == [("overlay withdrawn", True), ("BYE 1002", False), ("BYE 1003", False)]
            assert await world.nothing_left()
            await until(lambda: not world.server.endpoint.dialogs)
            assert await world.store.dialogs.owned_by("as-test") == []

    asyncio.run(scenario())


def test_a_viewer_that_is_not_answered_yet_hears_480_and_nothing_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            _, live = await world.broadcaster()
            viewer = await world.phone("1002")
            world.dialogs.go.clear()
            call = await viewer.dial(BROADCASTER, body=viewer.offer())
            await call.until(181)
            await until(lambda: len(world.relay.relay.groups.by_id[CHANNEL].legs) == 2)
            await live.send("BYE")
            refusal = await call.final()
            assert (refusal.status, refusal.reason) == (480, "Broadcast Ended")
            assert "cause=16" in str(refusal.headers.get("Reason"))
            world.dialogs.go.set()
            await until(lambda: not world.server.endpoint.dialogs)
            await asyncio.sleep(0.1)
            assert call.responses.empty() and viewer.heard == []
            assert await world.store.dialogs.owned_by("as-test") == []

    asyncio.run(scenario())


def test_byes_are_paced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, bye_rate=20) as world:
            _, call = await world.broadcaster()
            viewers = [(await world.viewer(str(1002 + i)))[0] for i in range(4)]
            await call.send("BYE")
            for viewer in viewers:
                await viewer.ended()
            times = sorted(viewer.heard[0][1] for viewer in viewers)
            assert all(later - earlier > 0.03 for earlier, later in pairwise(times))

    asyncio.run(scenario())


def test_a_viewers_dead_phone_does_not_keep_the_broadcaster_from_going_live_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, call = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            epoch = world.group.epoch
            viewer.dead = True
            await call.send("BYE")
            again = time.monotonic()
            await phone.go_live()
            await world.forwarded()
            assert time.monotonic() - again < 1.0
            assert world.group.epoch > epoch and world.group.viewers == {}
            await viewer.ended()
            assert await world.overlay() is not None, "the old end leaves the new broadcast alone"

    asyncio.run(scenario())


def test_a_viewers_dead_phone_does_not_hold_up_a_stopping_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "BYE_PATIENCE", 0.3)
    monkeypatch.setattr(endpoint, "STOP_WITHIN", 0.3)

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            dead, _ = await world.viewer("1002")
            alive, _ = await world.viewer("1003")
            dead.dead = True
            began = time.monotonic()
            await world.stop_server()
            assert time.monotonic() - began < 2
            for told in (phone, alive, dead):
                assert told.ends == ['Q.850;cause=41;text="Server shutting down"']
            assert not world.on_relay

    asyncio.run(scenario())


def test_a_broadcast_stopped_before_its_join_answers_the_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=3) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.announce()
            await call.prack(await call.until(183))
            await world.calls.stop()
            assert (await call.final()).status == 480
            assert await world.nothing_left()

    asyncio.run(scenario())


def test_a_broadcaster_that_is_gone_ends_its_broadcast_after_the_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT) as world:
            phone = await lost(world)
            viewer, _ = await world.viewer("1002")
            assert await viewer.ended() == 'Q.850;cause=27;text="Broadcaster lost"'
            assert await phone.ended() == 'Q.850;cause=27;text="Broadcaster lost"'
            assert await world.nothing_left()

    asyncio.run(scenario())


def test_a_silent_viewer_stays_while_its_phone_answers_and_goes_when_it_is_dead(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT) as world:
            await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await until(lambda: sum(request.method == "OPTIONS" for request, _ in viewer.heard) >= 2)
            assert len(world.group.viewers) == 1
            viewer.dead = True
            assert await viewer.ended() == 'Q.850;cause=27;text="No media or signalling from you"'
            assert world.group.viewers == {} and world.group.state == "live"

    asyncio.run(scenario())


def test_a_lost_broadcaster_that_calls_again_has_its_viewers_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT, reconnect_grace=3) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.go_live()
            await world.forwarded()
            viewer, _ = await world.viewer("1002")
            await until(lambda: bool(viewer.video.packets))
            phone.dead = True
            await until(lambda: world.group.state == "lost")
            epoch, ssrc = world.group.epoch, viewer.video.packets[0].ssrc
            viewer.video.packets.clear()
            back = await world.phone(BROADCASTER)
            again = await back.go_live()
            assert again.dialog is not None and call.dialog is not None
            assert "taken over" in await phone.ended()
            await until(lambda: bool(viewer.video.packets))
            assert viewer.video.packets[0].ssrc == ssrc and viewer.ends == []
            assert world.group.epoch == epoch and world.group.state == "live"
            assert [v.number for v in world.group.viewers.values()] == ["1002"]
            assert await world.overlay() is not None

    asyncio.run(scenario())


def test_of_two_redials_at_once_one_is_live_and_the_other_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT, reconnect_grace=3) as world:
            await lost(world)
            phones = [await world.phone(BROADCASTER) for _ in range(2)]
            calls = [await phone.dial("8888", body=phone.offer()) for phone in phones]
            answers = await asyncio.gather(*(call.final() for call in calls))
            assert sorted(answer.status for answer in answers) == [200, 486]
            winner = next(call for call, answer in zip(calls, answers, strict=True) if answer.status == 200)
            winner.ack(winner.seen[-1])
            assert world.group.source is not None and world.group.state == "live"
            assert (await winner.send("BYE")).status == 200
            await until(lambda: not world.service.open)

    asyncio.run(scenario())


def test_a_redial_with_an_unusable_offer_does_not_stop_the_clock(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT, reconnect_grace=0.4) as world:
            await lost(world)
            again = await world.phone(BROADCASTER)
            refusal = await (await again.dial("8888", body=again.offer(codec="G729"))).final()
            assert refusal.status == 488 and world.group.state == "lost"
            await world.over()

    asyncio.run(scenario())


def test_a_redial_whose_join_never_comes_leaves_the_broadcast_lost_until_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=IMPATIENT) as world:
            await lost(world)
            viewer, _ = await world.viewer("1002")
            again = await world.phone(BROADCASTER)
            call = await again.announce()
            await call.prack(await call.until(183))
            assert (await call.final()).status == 504
            assert world.group.state == "lost" and viewer.ends == []
            assert await viewer.ended() == 'Q.850;cause=27;text="Broadcaster lost"'
            await world.over()

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ['now"; cause=200', "line\r\nVia: SIP/2.0/UDP evil", "x" * 500, "\x00\\"])
def test_an_operators_words_cannot_break_out_of_the_reason(text: str) -> None:
    value = stopped_by_operator(text)
    assert value.startswith('Q.850;cause=16;text="') and value.endswith('"')
    assert value.count('"') == 2 and value.isprintable() and len(value) < 150 and "\\" not in value
