"""A record for each broadcast and each view: what it says at the start, at each kind of end, and over a restart."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, broadcasting, until

from media_relay.reports import final_report
from protocols.call_record import CallRecord
from sip_app.broadcast import records as module

Test = Callable[[BroadcastWorld], Awaitable[None]]


def in_world(folder: Path, test: Test) -> None:
    async def run() -> None:
        async with broadcasting(folder) as world:
            await test(world)

    asyncio.run(run())


async def records(world: BroadcastWorld) -> list[CallRecord]:
    return list(await world.store.call_records.find())


async def ended(world: BroadcastWorld, count: int) -> list[CallRecord]:
    """All records, once so many of them are complete."""

    async def complete() -> bool:
        return sum(record.ended_at is not None for record in await records(world)) == count

    await until(complete)
    return await records(world)


def test_a_record_stands_from_the_answer_on(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        await world.viewer("1002")
        await until(lambda: has_written(world, 2))
        broadcast, view = await records(world)
        assert (broadcast.kind, broadcast.channel, broadcast.party) == ("broadcast", CHANNEL, CHANNEL)
        assert (view.kind, view.channel, view.party.partition("@")[0]) == ("view", CHANNEL, "1002")
        for record in (broadcast, view):
            assert record.service.startswith("8888@") and record.as_id == "as-test" and record.relay_id
            assert record.started_at <= record.answered_at
            assert record.ended_at is None and record.octets_out is None

    in_world(tmp_path, test)


async def has_written(world: BroadcastWorld, count: int) -> bool:
    return len(await records(world)) == count


def test_a_view_that_is_hung_up_says_so_and_what_it_came_to(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        phone, _ = await world.broadcaster()
        viewer, call = await world.viewer("1002")
        for _ in range(5):
            phone.audio.send(b"\x00" * 160)
        await until(lambda: len(viewer.audio.packets) >= 5)
        await call.send("BYE")
        view = (await ended(world, 1))[1]
        assert (view.ended_by, view.cause, view.reason) == ("party", 16, "Hung up")
        assert view.packets_out is not None and view.packets_out >= 5
        assert view.octets_out is not None and view.octets_out >= 5 * 160
        assert view.packets_in is not None and view.packets_in >= 1

    in_world(tmp_path, test)


def test_the_end_of_a_broadcast_ends_its_views_records_too(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        phone, call = await world.broadcaster()
        await world.viewer("1002")
        await world.viewer("1003")
        phone.audio.send(b"\x00" * 160)
        await call.send("BYE")
        broadcast, *views = await ended(world, 3)
        assert (broadcast.ended_by, broadcast.cause, broadcast.reason) == ("party", 16, "Broadcast ended")
        assert broadcast.octets_in is not None and broadcast.octets_in > 160 and broadcast.lost == 0
        for view in views:
            assert (view.ended_by, view.reason) == ("server", "Broadcast ended")
            assert view.packets_out is not None

    in_world(tmp_path, test)


def test_what_the_relay_cannot_tell_any_more_is_left_open(tmp_path: Path) -> None:
    module_wait = module.CALL_TIMEOUT

    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        await world.viewer("1002")
        await world.stop_relay()
        broadcast, view = await ended(world, 2)
        assert (broadcast.cause, broadcast.reason) == (41, "Media relay lost")
        assert view.octets_out is None and broadcast.octets_in is None

    module.CALL_TIMEOUT = 0.2
    try:
        in_world(tmp_path, test)
    finally:
        module.CALL_TIMEOUT = module_wait


def test_a_broadcaster_that_comes_back_goes_on_with_its_record(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        first, _ = await world.broadcaster()
        for _ in range(3):
            first.audio.send(b"\x00" * 160)
        await until(lambda: heard(world) == 5)
        first.dead = True
        again = await world.phone(BROADCASTER)
        call = await again.go_live()
        for _ in range(2):
            again.audio.send(b"\x00" * 160)
        await until(lambda: heard(world) == 4)
        await call.send("BYE")
        (broadcast,) = await ended(world, 1)
        assert broadcast.packets_in == 9, "both of its calls are counted, from their first packets on"

    in_world(tmp_path, test)


def heard(world: BroadcastWorld) -> int:
    """Packets of the source as it is now."""
    relay = world.relay.relay
    source = relay.groups.by_id[CHANNEL].source
    return final_report(relay.engine, source).packets_in if source is not None else 0


def test_a_restarted_server_goes_on_with_the_records_of_the_calls_it_holds(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        _, call = await world.viewer("1002")
        await until(lambda: has_written(world, 2))
        await world.kill_server()
        await world.start_server()
        assert all(record.ended_at is None for record in await records(world))
        await call.send("BYE")
        view = (await ended(world, 1))[1]
        assert view.reason == "Hung up" and view.packets_out is not None

    in_world(tmp_path, test)


def test_records_of_calls_that_did_not_survive_the_restart_are_ended(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        await until(lambda: has_written(world, 1))
        await world.kill_server()
        lost = CallRecord("1009@x/7", "broadcast", "1009@x", "1009@x", "8888@x", 1.0, 2.0, "as-test", "")
        other = CallRecord("1008@x/7", "broadcast", "1008@x", "1008@x", "8888@x", 1.0, 2.0, "as-other", "")
        await before_start(world, lost, other)
        await world.start_server()
        found = {record.record_id: record for record in await records(world)}
        assert found["1009@x/7"].ended_at is not None and found["1009@x/7"].reason == "Server restart"
        assert (found["1009@x/7"].ended_by, found["1009@x/7"].cause) == ("server", 41)
        assert found["1008@x/7"].ended_at is None, "another server's"

    in_world(tmp_path, test)


async def before_start(world: BroadcastWorld, *found: CallRecord) -> None:
    """Put records into the store of a server that is down."""
    from provisioning.store import Store

    store = await Store.open(world.config)
    for record in found:
        await store.call_records.write(record)
    await store.close()


def test_a_server_that_stops_completes_its_records(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        await world.viewer("1002")
        await world.stop_server()
        lines = (tmp_path / "calls.jsonl").read_text().splitlines()
        assert sum('"event": "end"' in line for line in lines) == 2
        assert all("Server shutting down" in line for line in lines if '"event": "end"' in line)

    in_world(tmp_path, test)


def test_records_go_with_a_broadcast_that_another_server_takes_over(tmp_path: Path) -> None:
    async def test(world: BroadcastWorld) -> None:
        await world.broadcaster()
        _, call = await world.viewer("1002")
        await until(lambda: has_written(world, 2))
        for record in await records(world):
            await world.store.call_records.write(replace(record, as_id="as-dead"))
        world.recorder.abandoned(world.group)
        lost = CallRecord(f"{CHANNEL}/1/gone", "view", CHANNEL, "1003@x", "8888@x", 1.0, 2.0, "as-dead", "")
        elsewhere = replace(lost, record_id=f"{CHANNEL}/12")
        await world.store.call_records.write(lost)
        await world.store.call_records.write(elsewhere)

        await world.recorder.inherited(world.group, "as-dead")
        found = {record.record_id: record for record in await records(world)}
        assert found[lost.record_id].reason == "Server restart"
        assert found[elsewhere.record_id].as_id == "as-dead"
        held = [record for record in found.values() if record.ended_at is None and record.as_id == "as-test"]
        assert sorted(record.kind for record in held) == ["broadcast", "view"]
        await call.send("BYE")
        assert "Hung up" in [record.reason for record in await ended(world, 2)]

    in_world(tmp_path, test)
