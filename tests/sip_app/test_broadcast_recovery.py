"""After a restart of the server, and after the relay was gone: what is held again, and what is ended."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, broadcasting, until, version
from twisted.internet.defer import Deferred
from ua import DOMAIN

import sip_app.broadcast.service
from protocols.control import LegRow
from protocols.records import Overlay
from sip_app.broadcast import relay_link
from sip_app.broadcast.recovery import reconcile

RELAY_LOST = 'Q.850;cause=41;text="Media relay lost"'


async def restart(world: BroadcastWorld) -> None:
    """The server is killed and started again."""
    await world.kill_server()
    await world.start_server()


def test_a_restarted_server_holds_its_broadcast_and_ends_it_properly(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, live = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.kill_server()
            viewer.video.packets.clear()
            phone.video.send()
            await until(lambda: bool(viewer.video.packets))
            await world.start_server()
            assert world.group.state == "live" and world.group.forwarded
            assert [v.number for v in world.group.viewers.values()] == ["1002"]
            late, leaving = await world.viewer("1003")
            await leaving.send("BYE")
            await until(lambda: len(world.relay.relay.groups.by_id[CHANNEL].legs) == 2)
            assert (await live.send("BYE")).status == 200
            assert await viewer.ended() == 'Q.850;cause=16;text="Broadcast ended"'
            await world.over()
            assert phone.heard == [] and late.heard == []

    asyncio.run(scenario())


def test_a_viewer_whose_media_had_not_been_started_yet_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        """The server is killed before it gets there."""

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            with monkeypatch.context() as patch:
                patch.setattr(sip_app.broadcast.service, "play", never)
                viewer = await world.phone("1002")
                await viewer.watch()
                phone.video.send()
                await asyncio.sleep(0.1)
                assert not viewer.video.packets
                await world.kill_server()
            await world.start_server()

            async def seen() -> bool:
                phone.video.send()
                await asyncio.sleep(0.02)
                return bool(viewer.video.packets)

            await until(seen)

    asyncio.run(scenario())


def test_a_relay_that_hangs_with_its_connection_open_is_dialled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_link, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(relay_link, "CALL_TIMEOUT", 0.2)

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            hung = world.link._wire
            assert hung is not None
            monkeypatch.setattr(hung, "callRemote", lambda *_, **__: Deferred())
            await until(lambda: world.link.up and world.link._wire is not hung)
            await world.viewer("1002")

    asyncio.run(scenario())


def test_after_a_restart_the_descriptions_are_newer_than_any_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            calls = [await world.broadcaster(), await world.viewer("1002")]
            before = []
            for phone, call in calls:
                await phone.reoffer(call, body=phone.offer(), content_type="application/sdp")
                before.append(version(await phone.reoffer(call)))
            await restart(world)
            for (phone, call), last in zip(calls, before, strict=True):
                anew = await phone.reoffer(call)
                assert version(anew) > last, "nothing is known of the phone: what we can is offered again"
                again = await phone.reoffer(call, body=phone.offer(), content_type="application/sdp")
                assert version(again) > last
                assert version(await phone.reoffer(call)) > version(again)

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["closing", "opening"])
def test_an_end_or_a_beginning_cut_off_by_the_kill_is_ended_at_the_start(tmp_path: Path, state: str) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            claim = await world.store.broadcasts.get(CHANNEL)
            assert claim is not None
            await world.store.broadcasts.update(replace(claim, state="closing" if state == "closing" else "opening"))
            await restart(world)
            assert await viewer.ended() == await phone.ended() == 'Q.850;cause=16;text="Broadcast ended"'
            await world.over()

    asyncio.run(scenario())


def test_a_call_that_waited_for_its_join_when_the_server_died_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=3) as world:
            phone = await world.phone(BROADCASTER)
            await (await phone.announce()).until(183)
            assert world.on_relay
            await restart(world)
            await world.over()
            await phone.go_live()

    asyncio.run(scenario())


def test_only_overlays_without_a_living_broadcast_are_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            claim = await world.store.broadcasts.get(CHANNEL)
            assert claim is not None
            for number, lease in (("1004", 60.0), ("1005", -60.0), ("1006", None)):
                channel = f"{number}@{DOMAIN}"
                if lease is not None:
                    until_then = time.time() + lease
                    other = replace(claim, channel=channel, as_id="another", epoch=7, lease_until=until_then)
                    assert await world.store.broadcasts.claim(other, time.time()) is None
                await world.store.diversions.set_overlay(channel, Overlay("8888", channel, 7))
            await restart(world)
            left = [channel for channel, _ in await world.store.diversions.overlays()]
            assert sorted(left) == [CHANNEL, f"1004@{DOMAIN}"]

    asyncio.run(scenario())


def test_a_relay_that_stays_away_ends_the_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.stop_relay()
            await asyncio.sleep(0.1)
            assert viewer.heard == [], "it may come back"
            refusal = await (await phone.dial("8888", body=phone.offer())).final()
            assert refusal.status == 486
            assert await viewer.ended() == await phone.ended() == RELAY_LOST
            await world.over()
            refusal = await (await phone.dial("8888", body=phone.offer())).final()
            assert refusal.status == 503 and "retry-after" in refusal.headers

    asyncio.run(scenario())


def test_a_relay_and_a_server_that_were_both_restarted_know_nothing_so_the_calls_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.kill_server()
            await world.stop_relay()
            await world.start_relay()
            await world.start_server()
            assert await viewer.ended() == await phone.ended() == RELAY_LOST
            await world.over()
            await phone.go_live()

    asyncio.run(scenario())


def test_a_link_that_drops_for_a_moment_changes_nothing_but_catches_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            stays, _ = await world.viewer("1002")
            _, leaving = await world.viewer("1003")
            world.link._drop()
            assert (await leaving.send("BYE")).status == 200
            assert len(world.relay.relay.groups.by_id[CHANNEL].legs) == 3, "the relay was not told"
            await until(lambda: world.link.up)
            await until(lambda: len(world.relay.relay.groups.by_id[CHANNEL].legs) == 2)
            await asyncio.sleep(0.4)
            stays.video.packets.clear()
            phone.video.send()
            await until(lambda: bool(stays.video.packets))
            assert stays.heard == phone.heard == []

    asyncio.run(scenario())


def test_a_group_that_goes_while_notes_are_compared_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            other = await world.phone("1002")
            await other.go_live()
            groups, listed = world.relay.relay.groups, world.link.legs

            async def then_one_goes() -> list[LegRow]:
                groups.close(groups.by_id[CHANNEL])
                return await listed()

            monkeypatch.setattr(world.link, "legs", then_one_goes)
            world.link._drop()
            before = groups.by_id[CHANNEL]
            await until(lambda: groups.by_id.get(CHANNEL) not in (None, before))
            assert len(world.service.open) == 2 and other.heard == []
            assert phone.ends == []

    asyncio.run(scenario())


def test_a_server_restarted_while_the_relay_is_away_gives_it_up_in_time_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.kill_server()
            await world.stop_relay()
            await world.start_server(relay=False)
            assert await viewer.ended() == await phone.ended() == RELAY_LOST
            await world.over()

    asyncio.run(scenario())


def test_a_relay_that_returns_in_the_middle_of_the_end_does_not_stop_it_halfway(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, bye_rate=2) as world:
            phone, _ = await world.broadcaster()
            viewers = [(await world.viewer(number))[0] for number in ("1002", "1003")]
            await world.stop_relay()
            await phone.ended()
            await world.start_relay()
            for viewer in viewers:
                assert await viewer.ended() == RELAY_LOST

    asyncio.run(scenario())


def test_a_group_another_server_took_over_is_left_on_the_relay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            claim = await world.store.broadcasts.get(CHANNEL)
            assert claim is not None
            assert await world.store.broadcasts.take_over(replace(claim, as_id="heir"), claim.as_id)
            group = world.service.open.pop(CHANNEL)
            await reconcile(world.service, world.link)
            assert CHANNEL in world.relay.relay.groups.by_id
            world.service.open[CHANNEL] = group

    asyncio.run(scenario())
