"""Two application servers on one store: who lives, who holds a broadcast, and what becomes of it when one dies."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, CHANNEL, broadcasting, until
from cluster_world import EDGE, LEASE, two_servers
from test_group_messages import say, texts
from ua import DOMAIN, OFFER
from watching import watch

from protocols.net import Address
from protocols.records import Node
from protocols.sip.message import Request
from sip_app.calls.incoming import Caller
from sip_app.cluster.handover import HandedOver, Handover
from sip_app.cluster.nodes import Cluster

HERE = Address("127.0.0.1", 5060)
THERE = Address("127.0.0.1", 5070)


class SharedNodes:
    """The store's table of servers; `away` while the store cannot be reached."""

    def __init__(self) -> None:
        self.rows: dict[str, Node] = {}
        self.away = False

    async def renew(self, node: Node) -> None:
        self._check()
        self.rows[node.as_id] = node

    async def all(self) -> Sequence[Node]:
        self._check()
        return list(self.rows.values())

    async def leave(self, as_id: str) -> None:
        self._check()
        self.rows.pop(as_id, None)

    def _check(self) -> None:
        if self.away:
            raise OSError("the store is away")


class Heir:
    """Writes down what a survivor is asked to do."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.settled = 0

    async def take_over(self, as_id: str) -> None:
        self.taken.append(as_id)

    async def settle(self) -> None:
        self.settled += 1

    async def look(self) -> None:
        """Nothing to see."""


class Server:
    """A member of a cluster whose clock can jump."""

    def __init__(self, nodes: SharedNodes, name: str) -> None:
        self.jumped, self.heir = 0.0, Heir()
        self.cluster = Cluster(nodes, name, 0.2, lambda: asyncio.get_running_loop().time() + self.jumped)


async def two_members(nodes: SharedNodes) -> tuple[Server, Server]:
    one, other = Server(nodes, "as1"), Server(nodes, "as2")
    await one.cluster.join(HERE, one.heir)
    await other.cluster.join(THERE, other.heir)
    return one, other


def test_a_silent_server_is_taken_over_and_one_that_left_is_not_waited_for() -> None:
    async def scenario() -> None:
        nodes = SharedNodes()
        one, other = await two_members(nodes)
        assert not await one.cluster.dead("as2") and one.cluster.address_of("as2") == THERE
        await asyncio.sleep(0.5)
        assert one.cluster.alive("as2") and not one.heir.taken
        assert other.cluster._beating is not None
        other.cluster._beating.cancel()
        await until(lambda: "as2" in one.heir.taken)
        await nodes.leave("as2")
        await until(lambda: one.cluster.address_of("as2") is None)
        assert await one.cluster.dead("as2")
        await one.cluster.leave()
        assert not nodes.rows

    asyncio.run(scenario())


def test_nobody_is_declared_dead_because_the_store_was_away() -> None:
    async def scenario() -> None:
        nodes = SharedNodes()
        one, other = await two_members(nodes)
        nodes.away = True
        await asyncio.sleep(0.5)
        assert not one.cluster.standing
        nodes.away = False
        await asyncio.gather(one.cluster.sure(), other.cluster.sure())
        assert one.heir.settled and other.heir.settled, "each asks what became of its broadcasts"
        await asyncio.sleep(0.4)
        assert not one.heir.taken and not other.heir.taken
        await asyncio.gather(one.cluster.leave(), other.cluster.leave())

    asyncio.run(scenario())


def test_a_server_that_hung_asks_before_it_believes_anything() -> None:
    async def scenario() -> None:
        one, other = await two_members(SharedNodes())
        one.jumped = 20.0
        assert not one.cluster.standing, "at once, whatever runs first"
        waiting = asyncio.create_task(one.cluster.sure())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert not await one.cluster.dead("as2"), "it was we who saw nothing"
        await waiting
        assert one.heir.settled == 1 and one.cluster.standing and not one.heir.taken
        await asyncio.gather(one.cluster.leave(), other.cluster.leave())

    asyncio.run(scenario())


def test_two_servers_of_one_name_are_refused_and_a_dead_ones_name_is_waited_for() -> None:
    async def scenario() -> None:
        nodes = SharedNodes()
        running = Server(nodes, "as1")
        await running.cluster.join(HERE, running.heir)
        with pytest.raises(OSError, match="give each its as_id"):
            await Server(nodes, "as1").cluster.claim_name(THERE)
        await Server(nodes, "as1").cluster.claim_name(HERE)
        assert running.cluster._beating is not None
        running.cluster._beating.cancel()
        begun = asyncio.get_running_loop().time()
        await Server(nodes, "as1").cluster.claim_name(THERE)
        assert asyncio.get_running_loop().time() - begun < 0.4

    asyncio.run(scenario())


def test_a_viewer_of_the_other_server_watches_and_hangs_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            phone, live = await first.broadcaster()
            viewer = await second.phone("1002")
            view = await viewer.watch()
            await until(lambda: [v.number for v in first.group.viewers.values()] == ["1002"])
            assert not second.service.open, "it was handed over"
            phone.video.send()
            await until(lambda: bool(viewer.video.packets))
            assert (await view.send("BYE")).status == 200
            await until(lambda: not first.group.viewers)
            again = await viewer.watch()
            await live.send("BYE")
            assert await viewer.ended() == 'Q.850;cause=16;text="Broadcast ended"'
            assert again.dialog is not None
            await first.over()

    asyncio.run(scenario())


def test_a_dead_servers_broadcast_goes_on_where_its_broadcaster_calls_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            phone, _ = await first.broadcaster()
            viewer, _ = await first.viewer("1002")
            epoch = first.group.epoch
            await first.kill_server()
            await until(lambda: CHANNEL in second.service.open)
            assert [v.number for v in second.group.viewers.values()] == ["1002"]

            async def recorded() -> bool:
                return len(await second.store.call_records.unfinished("as2")) == 2

            await until(recorded)
            phone.dead = True
            again = await second.phone(BROADCASTER)
            call = await again.go_live()
            assert second.group.epoch == epoch, "the same group"
            viewer.video.packets.clear()
            again.video.send()
            await until(lambda: bool(viewer.video.packets))
            phone.leave()
            assert (await call.send("BYE")).status == 200
            assert "Broadcast ended" in await viewer.ended()
            await second.over()

            async def completed() -> bool:
                return not await second.store.call_records.unfinished("as2")

            await until(completed)
            whole = [r for r in await second.store.call_records.find() if r.record_id == f"{CHANNEL}/{epoch}"]
            assert [(r.as_id, r.reason) for r in whole] == [("as2", "Broadcast ended")], "one record, completed"

    asyncio.run(scenario())


def test_of_two_survivors_one_wins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            await first.broadcaster()
            claim = await first.store.broadcasts.get(CHANNEL)
            assert claim is not None
            await first.kill_server()
            heirs = await asyncio.gather(
                *(
                    second.store.broadcasts.take_over(replace(claim, as_id=name), "as1")
                    for name in ("as3", "as4", "as5")
                )
            )
            assert sorted(heirs) == [False, False, True]
            await second.cluster.sure()
            await asyncio.sleep(3 * LEASE)
            assert not second.service.open, "it was not ours to take"

    asyncio.run(scenario())


def test_what_was_taken_over_is_forgotten_without_a_word(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            phone, live = await first.broadcaster()
            viewer, _ = await first.viewer("1002")
            beating = first.cluster._beating
            assert beating is not None
            beating.cancel()  # it hangs as far as the others can see
            await first.link.stop()
            await until(lambda: CHANNEL in second.service.open)
            assert not await first.service.store(first.group), "its lease cannot be stolen back"
            for dialog in list(first.server.endpoint.dialogs.values()):
                with pytest.raises(OSError):
                    await first.server.endpoint.save(dialog)
            assert first.calls.elsewhere is not None
            await first.calls.elsewhere.settle()
            assert not first.service.open and not first.server.endpoint.dialogs
            assert not phone.heard and not viewer.heard
            claim = await second.store.broadcasts.get(CHANNEL)
            assert claim is not None and claim.as_id == "as2"
            assert len(await second.store.dialogs.owned_by("as2")) == 2
            await first.kill_server()
            assert live.dialog is not None

    asyncio.run(scenario())


def test_what_ended_while_the_store_was_away_is_put_right(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, _):
            _, live = await first.broadcaster()
            claim = await first.store.broadcasts.get(CHANNEL)
            overlay = await first.overlay()
            assert claim is not None and overlay is not None
            await live.send("BYE")
            await first.over()
            await first.store.broadcasts.claim(claim, 0.0)  # as it would stand if neither could be written
            await first.store.diversions.set_overlay(CHANNEL, overlay)
            assert first.calls.elsewhere is not None
            await first.calls.elsewhere.settle()
            assert await first.nothing_left()

    asyncio.run(scenario())


def test_roster_lamp_and_messages_reach_across(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            watcher = await second.phone("1003")
            lamp = await watch(watcher, BROADCASTER, "dialog")
            buddy = await watch(watcher, BROADCASTER, "presence")
            phone, live = await first.broadcaster()
            await until(lambda: b"confirmed" in lamp.notifies[-1].body)
            await until(lambda: b"open" in buddy.notifies[-1].body)
            viewer = await second.phone("1002")
            await viewer.watch()
            roster = await watch(viewer, BROADCASTER, "conference")
            assert b"<user-count>2" in (await roster.told()).body
            assert (await roster.again(600)).status == 200
            assert (await say(viewer, BROADCASTER, "Where are you?")).status == 202
            await until(lambda: [message.body for message in texts(phone)] == [b"Where are you?"])
            elsewhere = await second.phone(BROADCASTER)
            assert (await say(elsewhere, "8888", "Here")).status == 202
            await until(lambda: [message.body for message in texts(viewer)] == [b"Here"])
            await live.send("BYE")
            await until(lambda: b"terminated" in lamp.notifies[-1].body)
            assert (await roster.ended()).startswith("terminated")

    asyncio.run(scenario())


def test_the_operator_is_told_where_a_broadcast_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            await first.broadcaster()
            listed = (await second.door._answer(b'{"command": "list"}'))["broadcasts"]
            assert [(row["number"], row["state"], row["as_id"]) for row in listed] == [(BROADCASTER, "live", "as1")]
            refused = await second.door._answer(b'{"command": "stop", "number": "1001"}')
            assert refused == {"ok": False, "error": "1001 is live on as1: stop it there"}
            assert (await first.door._answer(b'{"command": "stop", "number": "1001"}'))["ok"]

    asyncio.run(scenario())


def test_a_terminals_forwarding_code_works_on_the_other_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, overlay_delay=60) as (first, second):
            phone = await first.phone(BROADCASTER)
            await phone.go_live()
            assert await first.overlay() is None
            other = await second.phone(BROADCASTER)
            await (await other.dial("*21*8888#", body=OFFER)).answered()
            overlay = await first.overlay()
            assert overlay is not None and overlay.epoch == first.group.epoch

    asyncio.run(scenario())


def test_a_call_is_handed_over_once_by_a_server_of_ours_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path) as (first, second):
            phone, _ = await first.broadcaster()
            stranger = await second.phone("1002")
            ours: Handover = second.server._handover
            caller = Caller(f"1002@{DOMAIN}", "1002", True, stranger.flow.local)
            request = stranger.build("INVITE", f"sip:{BROADCASTER}@{DOMAIN}", body=OFFER)
            handed = HandedOver(caller, CHANNEL, f"8888@{DOMAIN}")
            route = ours.route(request, handed, first.address)

            def with_route(value: str, request: Request = request) -> Request:
                return Request(request.method, request.uri, request.headers.prepend("Route", value), request.body)

            for wrong in (route.replace("handed-over.", "handed-over.A"), route[: route.index("@") - 2] + "00@x;lr>"):
                assert (await stranger.ask(with_route(wrong))).status in (403, 407, 400), "forged"
            other = stranger.build("INVITE", f"sip:{BROADCASTER}@{DOMAIN}", body=OFFER)
            assert (await stranger.ask(with_route(route, other))).status == 407, "it was for another call"
            with monkeypatch.context() as late:
                late.setattr("sip_app.cluster.handover.LIFETIME", -1.0)
                old = ours.route(request, handed, first.address)
            assert (await stranger.ask(with_route(old))).status == 407, "too late"
            # Handed over to a server that does not hold it (any more): it is not sent on again.
            elsewhere = stranger.build("INVITE", f"sip:{BROADCASTER}@{DOMAIN}", body=OFFER)
            refused = await stranger.ask(with_route(ours.route(elsewhere, handed, second.address), elsewhere))
            assert refused.status == 480 and not first.group.viewers
            assert phone.heard == []

    asyncio.run(scenario())


def test_a_stray_request_finds_the_living_owner_and_then_its_heir(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, edge=True) as (first, second):
            await first.broadcaster()
            viewer, view = await first.viewer("1002")
            unknown = viewer.build("BYE", f"sip:{BROADCASTER}@{DOMAIN}", to=f"<sip:{BROADCASTER}@{DOMAIN}>;tag=nobody")
            viewer.server, viewer.flow = second.address, type(viewer.flow)("udp", viewer.flow.local, second.address)
            assert (await viewer.ask(unknown)).status == 481
            assert (await view.send("OPTIONS")).status == 200, "sent on to its owner"
            await first.kill_server()
            assert (await view.send("OPTIONS")).status == 200, "the heir has it"
            assert (await view.send("BYE")).status == 200
            await until(lambda: not second.group.viewers)

    asyncio.run(scenario())


def test_behind_one_edge_nobody_ends_anothers_call(tmp_path: Path) -> None:
    via = ("Via", f"SIP/2.0/UDP {EDGE}:5060;branch=z9hG4bKedge")

    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"sip": {"port": 0, "edge_proxies": [EDGE]}}) as world:
            _, live = await world.broadcaster()
            assert live.dialog is not None
            edge = await world.phone("1009", host=EDGE)
            _, bye = live.dialog.request("BYE")
            forged = Request("BYE", bye.uri, bye.headers.add(via), b"")
            assert (await edge.ask(forged)).status in (401, 407, 403), "another client's address below the edge's"
            assert CHANNEL in world.service.open
            stranger = await world.phone("1002")
            spoof = stranger.build("OPTIONS", f"sip:{DOMAIN}")
            believed = world.server._admission.client_address(
                Request("OPTIONS", spoof.uri, spoof.headers.add(("Via", "SIP/2.0/UDP 10.0.0.1"))), stranger.flow
            )
            assert believed == stranger.flow.remote, "a stranger's Via tells nothing"

    asyncio.run(scenario())
