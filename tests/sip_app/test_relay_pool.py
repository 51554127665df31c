"""Two relays as one: where a group is opened, how it is found again, and what a dying relay takes along."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from broadcast_world import CHANNEL, BroadcastWorld, broadcasting, until
from ua import DOMAIN

from media_relay.server import RelayServer
from protocols.control import (
    CloseGroup,
    Command,
    ControlError,
    Done,
    GroupCommand,
    LegInfo,
    LegSpec,
    OpenAnnouncement,
    OpenGroup,
)
from protocols.net import Address
from sip_app.broadcast.relay_link import RelayLink, RelayUnavailable
from sip_app.broadcast.relays import RelayPool

LEG = LegSpec("l1", "1001", "127.0.0.1", ())


class Link(RelayLink):
    """A link that answers everything with success, unless told to refuse; `asked` is what it was told."""

    def __init__(self, relay_id: str, *, up: bool = True) -> None:
        self.relay_id, self.up = relay_id, up
        self.address = Address(relay_id or "unknown", 1)
        self.asked: list[Command] = []
        self.refuses = False

    async def call(self, command: Command, kind: type[Any]) -> Any:
        if not self.up:
            raise RelayUnavailable("down")
        self.asked.append(command)
        if self.refuses:
            raise ControlError("limit", "full")
        return Done() if kind is Done else LegInfo("l1", ())


def pool_of(*links: Link) -> RelayPool:
    return RelayPool(links)


async def opened(pool: RelayPool, *names: str) -> list[str]:
    """The relays on which these groups, opened one after the other, are."""
    for name in names:
        await pool.call(OpenGroup(name, 1, LEG), LegInfo)
    return [pool.relay_of((name, 1)) for name in names]


def test_a_new_group_goes_to_the_relay_with_the_fewest() -> None:
    async def scenario() -> None:
        one, two = Link("one"), Link("two")
        pool = pool_of(one, two)
        assert await opened(pool, "a", "b", "c", "d") == ["one", "two", "one", "two"]
        await pool.call(CloseGroup("b", 1), Done)
        await pool.call(CloseGroup("d", 1), Done)
        assert pool.relay_of(("b", 1)) == ""
        assert await opened(pool, "e", "f") == ["two", "two"]
        two.up = False
        assert await opened(pool, "g", "h") == ["one", "one"], "one that is down gets no new ones"
        with pytest.raises(RelayUnavailable):
            await pool.call(CloseGroup("e", 1), Done)
        one.up = False
        with pytest.raises(RelayUnavailable, match="one:1, two:1"):
            await opened(pool, "i")

    asyncio.run(scenario())


def test_a_call_that_may_move_into_a_group_is_opened_beside_it() -> None:
    async def scenario() -> None:
        one, two = Link("one"), Link("two")
        pool = pool_of(one, two)
        await opened(pool, "a")
        for name in ("p", "q", "r"):
            await pool.call(OpenAnnouncement(name, 0, LEG), LegInfo, near=("a", 1))
            assert pool.relay_of((name, 0)) == "one", "though the other has nothing to do"
        await pool.call(OpenAnnouncement("s", 0, LEG), LegInfo)
        assert pool.relay_of(("s", 0)) == "two"
        with pytest.raises(RelayUnavailable):
            await pool.call(OpenAnnouncement("t", 0, LEG), LegInfo, near=("ended", 1))
        one.refuses = True
        with pytest.raises(ControlError):
            await pool.call(OpenAnnouncement("u", 0, LEG), LegInfo, near=("a", 1))
        assert pool.relay_of(("t", 0)) == pool.relay_of(("u", 0)) == "", "what failed counts for nobody"

    asyncio.run(scenario())


def test_a_group_of_the_past_is_found_once_its_relay_says_who_it_is() -> None:
    async def scenario() -> None:
        one, unknown = Link("one"), Link("", up=False)
        pool = pool_of(one, unknown)
        for name in ("old", "gone"):
            pool.settle((name, 1), "two")
        assert pool.home(("old", 1)) is None
        commands: Sequence[GroupCommand] = (CloseGroup("gone", 1), CloseGroup("never", 1))
        for command in commands:
            with pytest.raises(RelayUnavailable):
                await pool.call(command, Done)
        assert not one.asked, "no other relay is asked for it"
        assert pool.relay_of(("gone", 1)) == "", "given up: it must not count as that relay's for ever"
        unknown.relay_id, unknown.up = "two", True
        assert pool.home(("old", 1)) is unknown
        assert await opened(pool, "new") == ["one"], "the other has one already"
        assert await pool.call(CloseGroup("old", 1), Done) == Done()
        pool.settle(("nowhere", 1), "")
        assert pool.home(("nowhere", 1)) is None

    asyncio.run(scenario())


@asynccontextmanager
async def two_relays(folder: Path, **service: Any) -> AsyncIterator[tuple[BroadcastWorld, RelayServer]]:
    """A server with two relays, and the second of them."""
    async with broadcasting(folder, relay={"orphan_grace": 5}, **service) as world:
        other = RelayServer(
            world.config.model_copy(update={"relay": world.config.relay.model_copy(update={"control_port": 0})})
        )
        bound = await other.start()
        await world.stop_server()
        world.other_relays.append(Address("127.0.0.1", bound.port))
        await world.start_server()
        try:
            yield world, other
        finally:
            for phone in world.phones:
                phone.leave()
            await world.stop_server()
            await other.stop()


def test_a_dying_relay_ends_its_own_broadcasts_after_the_grace_and_no_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_relays(tmp_path, orphan_grace=0.6) as (world, other):
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            second = await world.phone("1003")
            await second.go_live()
            watching = await world.phone("1004")
            await until(lambda: world.service.open[f"1003@{DOMAIN}"].forwarded)
            await watching.watch("1003")
            assert list(world.relay.relay.groups.by_id) == [CHANNEL]
            assert list(other.relay.groups.by_id) == [f"1003@{DOMAIN}"]
            await world.stop_relay()
            await asyncio.sleep(0.3)
            assert not phone.heard and not viewer.heard, "it may come back yet"
            for ended in (phone, viewer):
                assert await ended.ended() == 'Q.850;cause=41;text="Media relay lost"'
            assert list(world.service.open) == [f"1003@{DOMAIN}"]
            watching.video.packets.clear()
            second.video.send()
            await until(lambda: bool(watching.video.packets))
            assert not second.heard and not [1 for request, _ in watching.heard if request.method == "BYE"]
            again = await world.phone("1001")
            await again.go_live()
            assert CHANNEL in other.relay.groups.by_id, "new ones go to the other"

    asyncio.run(scenario())


def test_a_relay_that_was_out_of_reach_for_less_than_the_grace_costs_nobody_a_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_relays(tmp_path, orphan_grace=2) as (world, _):
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            link = world.service.link.home((CHANNEL, world.group.epoch))
            assert link is world.link
            link._drop()
            await until(lambda: not link.up)
            await until(lambda: link.up)
            await asyncio.sleep(2.2)
            assert CHANNEL in world.service.open and not phone.ends and not viewer.ends

    asyncio.run(scenario())
