"""What the death of both application servers costs, or of one at the wrong moment; no call is handed over twice, and
none counts where nothing tells of its end."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, MediaPhone, until
from cluster_world import EDGE, LEASE, two_servers
from test_announcement_calls import called, offer, private
from ua import DOMAIN, Call

from protocols.sip.message import Request
from provisioning.config import SecurityConfig

SECOND = "1003"


@pytest.mark.parametrize("late", [False, True])
def test_both_servers_restarted_hold_every_broadcast_once(tmp_path: Path, *, late: bool) -> None:
    """Started together each has its own again; one that comes after its lease finds the other with all."""

    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            phone, live = await first.broadcaster()
            viewer, view = await first.viewer("1002")
            other = await second.phone(SECOND)
            other_live = await other.go_live()
            epoch = first.group.epoch
            await asyncio.gather(first.kill_server(), second.kill_server())
            if late:
                await second.start_server()
                await until(lambda: CHANNEL in second.service.open)
                await first.start_server()
                holder = second
            else:
                await asyncio.gather(first.start_server(), second.start_server())
                holder = first
            await asyncio.sleep(2 * LEASE)
            assert CHANNEL not in (first if late else second).service.open
            assert f"{SECOND}@{DOMAIN}" in second.service.open
            assert holder.group.epoch == epoch and [v.number for v in holder.group.viewers.values()] == ["1002"]
            viewer.video.packets.clear()
            phone.video.send()
            await until(lambda: bool(viewer.video.packets))
            for caller, call in ((viewer, view), (phone, live)):
                move(caller, holder)
                assert (await call.send("BYE")).status == 200
            move(other, second)
            assert (await other_live.send("BYE")).status == 200
            await first.over()
            await second.over()
            assert not phone.ends and not viewer.ends and not other.ends

    asyncio.run(scenario())


def move(phone: MediaPhone, to: BroadcastWorld) -> None:
    """From now on the phone's requests reach this server, as an edge would have it."""
    phone.server, phone.flow = to.address, type(phone.flow)("udp", phone.flow.local, to.address)


def test_a_caller_being_asked_for_a_pin_is_lost_with_the_server_and_may_call_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, relay={"orphan_grace": 0.5}) as (first, second):
            await first.broadcaster()
            await private(first)
            caller = await called(phone := await first.phone("1002"), BROADCASTER, offer(phone))
            await caller.hears_beginning_of("pin-enter")
            (room,) = first.relay.relay.groups.by_id.keys() - {CHANNEL}
            await first.kill_server()
            await until(lambda: CHANNEL in second.service.open)
            await until(lambda: room not in first.relay.relay.groups.by_id)
            assert CHANNEL in first.relay.relay.groups.by_id, "only the room is closed"
            assert not second.group.viewers, "who has not said the PIN sees nothing"
            move(phone, second)
            assert (await caller.call.send("BYE")).status == 481
            again = await called(phone, BROADCASTER, offer(phone))
            phone.audio.packets.clear()
            await again.hears_beginning_of("pin-enter")
            again.press("4711#")
            await until(lambda: [v.number for v in second.group.viewers.values()] == ["1002"])

    asyncio.run(scenario())


def overheard(world: BroadcastWorld, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests of this method that are handed over to the server, whole."""
    heard: list[Request] = []
    serve = world.server._serve_handed

    async def listen(tx: object, request: Request, handed: object) -> None:
        heard.append(tx.request)  # type: ignore[attr-defined]  # a server transaction
        await serve(tx, request, handed)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(world.server, "_serve_handed", listen)
    return heard


def test_a_call_handed_over_cannot_be_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it lasts, not after its transaction is forgotten, and not at the other server."""

    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            _, live = await first.broadcaster()
            heard = overheard(first, "INVITE", monkeypatch)
            viewer = await second.phone("1002")
            view = await viewer.watch()
            assert len(heard) == 1
            thief = await first.phone("1005")

            async def replayed() -> int:
                copy = Request(heard[0].method, heard[0].uri, heard[0].headers.without("Via"), heard[0].body)
                return (await thief.ask(copy)).status

            assert await replayed() == 482
            assert (await view.send("BYE")).status == 200
            await until(lambda: not first.group.viewers)
            await until(lambda: not first.server.endpoint.passing, 8)
            assert await replayed() == 482
            await live.send("BYE")
            await first.over()
            move(thief, second)
            assert await replayed() == 407
            assert not first.service.open and not second.service.open

    asyncio.run(scenario())


def allow_one_call(*worlds: BroadcastWorld) -> None:
    """As `dialcast reload` would: one call of an account at a time."""
    for world in worlds:
        security = SecurityConfig(calls_at_once=1)
        world.server.reconfigure(world.config.model_copy(update={"security": security}))


async def dialled(phone: MediaPhone, number: str, at: BroadcastWorld, holder: BroadcastWorld) -> tuple[Call, int]:
    """A call the edge gives to one server and another answers: its ACK and BYE go from the edge straight there."""
    move(phone, at)
    call = await phone.dial(number, body=phone.offer())
    answer = await call.final()
    move(phone, holder)
    if answer.status == 200:
        call.ack(answer)
    return call, answer.status


def test_a_call_handed_over_behind_an_edge_counts_where_it_is_answered_until_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, edge=True) as (first, second):
            await first.broadcaster()
            phone = await second.phone("1002", host=EDGE)
            allow_one_call(first, second)
            for _ in range(3):
                view, status = await dialled(phone, BROADCASTER, second, first)
                assert status == 200
                assert f"1002@{DOMAIN}" not in second.server.quotas._calls
                for server in (first, second):
                    _, status = await dialled(phone, BROADCASTER, server, first)
                    assert status == 486, "it has one"
                assert (await view.send("BYE")).status == 200
                await until(lambda: f"1002@{DOMAIN}" not in first.server.quotas._calls, 8)
            await until(lambda: not second.server.quotas._callers and not second.server.quotas._arriving, 8)

    asyncio.run(scenario())


def test_a_call_handed_over_with_no_edge_counts_until_its_bye_passes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            await first.broadcaster()
            phone = await second.phone("1002")
            allow_one_call(first, second)
            for _ in range(2):
                view = await phone.watch()
                assert (await (await phone.dial("*#21#")).final()).status == 486, "it passes here and counts"
                assert (await view.send("BYE")).status == 200
                assert list(first.server.quotas._calls) == [CHANNEL]
                await until(lambda: not second.server.quotas._calls, 8)

    asyncio.run(scenario())


def test_a_broadcaster_who_was_lost_twice_comes_back_through_the_other_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, edge=True, reconnect_grace=20) as (first, second):
            phone, _ = await first.broadcaster()
            allow_one_call(second)
            for _ in range(2):
                phone.dead = True
                phone = await second.phone(BROADCASTER, host=EDGE)
                _, status = await dialled(phone, "8888", second, first)
                assert status == 200
            assert list(first.service.open) == [CHANNEL] and not second.service.open

    asyncio.run(scenario())
