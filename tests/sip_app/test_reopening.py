"""A relay that comes back without our groups: they are opened again, on the ports the phones know if they are free."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from broadcast_world import CHANNEL, BroadcastWorld, MediaPhone, broadcasting, until, version
from ua import Call

from protocols.control import AddViewer, Command
from protocols.sdp import parse
from sip_app.broadcast import reopening
from sip_app.broadcast.relay_link import RelayUnavailable

RELAY_LOST = 'Q.850;cause=41;text="Media relay lost"'


async def reborn(world: BroadcastWorld) -> None:
    """The relay dies and starts again, knowing nothing."""
    await world.stop_relay()
    await world.start_relay()


async def picture(broadcaster: MediaPhone, *viewers: MediaPhone) -> None:
    """What the broadcaster sends from now on is seen by all viewers."""
    for viewer in viewers:
        viewer.video.packets.clear()

    async def seen() -> bool:
        broadcaster.video.send()
        await asyncio.sleep(0.01)
        return all(viewer.video.packets for viewer in viewers)

    await until(seen)


def legs_on(world: BroadcastWorld) -> int:
    """How many legs of the broadcast the relay holds."""
    group = world.relay.relay.groups.by_id.get(CHANNEL)
    return len(group.legs) if group is not None else 0


def undisturbed(*phones: MediaPhone) -> bool:
    """True if they were told nothing (a broadcaster may be asked for a picture)."""
    return {request.method for phone in phones for request, _ in phone.heard} <= {"INFO"}


def asked(phone: MediaPhone, method: str) -> int:
    """How often it was asked that."""
    return sum(request.method == method for request, _ in phone.heard)


def offered(phone: MediaPhone) -> bytes:
    """The media addresses it was offered."""
    return next(request.body for request, _ in phone.heard if request.method == "INVITE")


@contextmanager
def taken(world: BroadcastWorld, *phones: MediaPhone) -> Iterator[None]:
    """While the relay is away another program takes the video ports these phones know."""
    with ExitStack() as stack:
        for port in {phone.video.relay.port for phone in phones}:
            other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            other.bind(("127.0.0.1", port))
        yield


async def joined_viewer(world: BroadcastWorld, number: str) -> tuple[MediaPhone, Call]:
    """A viewer that proves its address by checks, and is seen where it is by the relay."""
    phone = await world.phone(number)
    call = await phone.dial("1001", body=phone.offer(ice=True))
    phone.connect((await call.answered()).body, join=True)
    await until(lambda: _placed(world, number))
    return phone, call


def _placed(world: BroadcastWorld, number: str) -> bool:
    legs = world.service.link.legs.of((CHANNEL, world.group.epoch)).values()
    return any(leg.spec.number == number and len(leg.places) == 2 for leg in legs)


def test_the_phones_of_a_restarted_relay_are_told_nothing_and_have_pictures_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, live = await world.broadcaster()
            plain, _ = await world.viewer("1002")
            joins, _ = await joined_viewer(world, "1003")
            await picture(phone, plain, joins)
            names = {viewer: viewer.video.packets[-1].ssrc for viewer in (plain, joins)}
            for _ in range(2):
                await reborn(world)
                await until(lambda: legs_on(world) == 3)
                await picture(phone, plain, joins)
                assert undisturbed(phone, plain, joins)
            for viewer, before in names.items():
                assert viewer.video.packets[-1].ssrc != before, "another stream, which begins anew"
            await until(lambda: world.group.reopening is None)
            assert (await live.send("BYE")).status == 200
            assert await plain.ended() == await joins.ended() == 'Q.850;cause=16;text="Broadcast ended"'
            await world.over()

    asyncio.run(scenario())


def test_who_hung_up_or_came_while_the_relay_was_away_is_gone_or_served_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            stays, _ = await world.viewer("1002")
            _, leaving = await world.viewer("1003")
            await world.stop_relay()
            assert (await leaving.send("BYE")).status == 200
            early = await world.phone("1004")
            refusal = await (await early.dial("1001", body=early.offer())).final()
            assert refusal.status == 503 and "retry-after" in refusal.headers
            await world.start_relay()
            await until(lambda: legs_on(world) == 2)
            await early.watch()
            await picture(phone, stays, early)

    asyncio.run(scenario())


def test_a_held_call_stays_held_and_is_resumed_on_the_new_relay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            held, call = await world.viewer("1002")
            other, _ = await world.viewer("1003")
            body = held.offer(direction="inactive", version=2)
            assert (await held.reoffer(call, body=body, content_type="application/sdp")).status == 200
            await reborn(world)
            await until(lambda: legs_on(world) == 3)
            held.video.packets.clear()
            await picture(phone, other)
            assert not held.video.packets
            resumed = await held.reoffer(call, body=held.offer(version=3), content_type="application/sdp")
            assert resumed.status == 200
            await picture(phone, held, other)

    asyncio.run(scenario())


def test_phones_whose_ports_were_taken_meanwhile_are_told_the_new_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, live = await world.broadcaster()
            plain, watching = await world.viewer("1002")
            joins, _ = await joined_viewer(world, "1003")
            before = [each.video.relay for each in (phone, plain, joins)]
            sdp = version(await plain.reoffer(watching))
            for each in (phone, plain, joins):
                each.follows = True
            await world.stop_relay()
            with taken(world, phone, plain, joins):
                await world.start_relay()
                await until(lambda: asked(phone, "INVITE") == asked(plain, "INVITE") == asked(joins, "INVITE") == 1)
                await until(lambda: world.group.reopening is None)
                await picture(phone, plain, joins)
                for each, old in zip((phone, plain, joins), before, strict=True):
                    assert each.video.relay != old and not each.ends
                    assert version(offered(each)) > 0
                assert version(offered(plain)) > sdp
                assert parse(offered(joins)).media[1].ice_ufrag, "it shall check the new address"
                again = parse((await plain.reoffer(watching)).body)
                assert again.media[1].port == plain.video.relay.port, "from now on this is what we say"
            assert (await live.send("BYE")).status == 200
            await world.over()

    asyncio.run(scenario())


def test_a_viewer_who_does_not_take_the_new_ports_loses_his_view_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60, reopen_timeout=0.3) as world:
            phone, _ = await world.broadcaster()
            follows, _ = await world.viewer("1002")
            refuses, _ = await world.viewer("1003")
            silent, _ = await world.viewer("1004")
            phone.follows = follows.follows = True
            silent.dead = True
            await world.stop_relay()
            with taken(world, follows):
                await world.start_relay()
                assert await refuses.ended() == RELAY_LOST
                await until(lambda: [viewer.number for viewer in world.group.viewers.values()] == ["1002"])
                silent.release()
                await picture(phone, follows)
                assert phone.ends == follows.ends == []
                assert asked(phone, "INVITE") == 0, "its own ports were free"

    asyncio.run(scenario())


def test_a_broadcaster_who_does_not_take_new_ports_ends_the_broadcast(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.stop_relay()
            with taken(world, phone):
                await world.start_relay()
                assert await viewer.ended() == await phone.ended() == RELAY_LOST
            await world.over()

    asyncio.run(scenario())


def test_a_relay_with_no_room_for_a_broadcast_any_more_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            await world.stop_relay()
            relay = world.config.relay.model_copy(update={"max_announcements": 1, "port_min": 40000, "port_max": 40003})
            world.config = world.config.model_copy(update={"relay": relay})
            await world.start_relay()
            assert await viewer.ended() == RELAY_LOST
            await until(lambda: bool(phone.ends) or not world.service.open)

    asyncio.run(scenario())


def test_a_lost_broadcaster_calls_again_on_the_reopened_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay={"leg_timeout": 0.3}, orphan_grace=60, reconnect_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            phone.dead = True
            await until(lambda: world.group.state == "lost")
            await reborn(world)
            await until(lambda: legs_on(world) == 2)
            phone.dead = False
            await phone.go_live()
            await picture(phone, viewer)
            assert viewer.ends == []

    asyncio.run(scenario())


def test_a_relay_that_dies_again_while_groups_are_opened_loses_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewers = [(await world.viewer(f"10{number:02}"))[0] for number in range(2, 8)]
            await world.stop_relay()
            await world.start_relay()
            await until(lambda: world.on_relay)
            world.link._drop()  # between the first leg and the last
            await until(lambda: world.link.up and world.group.reopening is None)
            await reborn(world)
            await until(lambda: legs_on(world) == 7)
            await picture(phone, *viewers)
            assert undisturbed(phone, *viewers)

    asyncio.run(scenario())


def test_a_viewer_from_before_a_restart_of_the_server_is_told_that_his_relay_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            old, _ = await world.viewer("1002")
            await world.kill_server()
            await world.start_server()
            phone.dead = True  # it is dead, and calls again
            again = await world.phone("1001")
            await again.go_live()
            new, _ = await world.viewer("1003")
            await reborn(world)
            assert await old.ended() == RELAY_LOST
            await picture(again, new)
            assert undisturbed(again, new)

    asyncio.run(scenario())


def test_a_broadcast_whose_relay_dies_again_and_again_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "IN_A_ROW", 2)

    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            for _ in range(2):
                await reborn(world)
                await until(lambda: legs_on(world) == 1 and world.group.reopening is None)
                assert undisturbed(phone)
            await reborn(world)
            assert await phone.ended() == RELAY_LOST

    asyncio.run(scenario())


def test_a_relay_that_stands_but_is_busy_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "AGAIN", 0.01)

    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=60) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            call, refused = world.link.call, []

            async def late(command: Command, kind: type[Any]) -> Any:
                if isinstance(command, AddViewer) and not refused:
                    refused.append(command)
                    raise RelayUnavailable("no answer in time")
                return await call(command, kind)

            monkeypatch.setattr(world.link, "call", late)
            await reborn(world)
            await until(lambda: legs_on(world) == 2 and world.group.reopening is None)
            assert refused
            await picture(phone, viewer)
            assert undisturbed(phone, viewer)

    asyncio.run(scenario())
