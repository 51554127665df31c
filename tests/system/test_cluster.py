"""Two application servers behind Kamailio, two relays, PostgreSQL: a call may land anywhere, and a server may die."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import EDGE_CONFIGURATION, LEASE, ApplicationServer, Cluster
from server import account
from ua import DOMAIN, OFFER, Phone
from ua import Call as SingleCall

from dialcast.footage import Footage
from protocols.net import Address
from sipp_scenarios.calls import Call, register
from sipp_scenarios.sipp import SippError

FORWARDED = 2.5
"""Seconds after which a stock phone's number is forwarded by the server."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
        for server in running.servers:
            assert not server.all_events("server.failed"), server.noise[-20:]


def holder(cluster: Cluster, number: str) -> ApplicationServer:
    """The server that opened the broadcast of `number`."""
    name = f"{number}@dialcast.internal"
    return next(server for server in cluster.servers if server.all_events("broadcast.live", channel=name))


def other_than(cluster: Cluster, server: ApplicationServer) -> ApplicationServer:
    return next(other for other in cluster.servers if other is not server)


def hung_up(call: Call) -> bool:
    """True if the phone was sent a BYE."""
    return any(message.start_line.startswith("BYE") and not message.sent for message in call.sipp.messages())


@contextmanager
def watched_from(cluster: Cluster, server: ApplicationServer, number: str, viewer: str) -> Iterator[Call]:
    """A call to `number` that the edge gives to `server`; the others are hung up again."""
    for _ in range(20):
        before = len(server.all_events("diversion.applied"))
        with Call("watch", cluster.edge.address, account(viewer), number, hold=60) as call:
            call.answered()
            if len(server.all_events("diversion.applied")) > before:
                yield call
                return
    raise AssertionError("the edge gave no call to the server")


def test_registers_through_the_edge(cluster: Cluster) -> None:
    taken = register(cluster.edge.address, account("1005"))[-1]
    assert taken.start_line == "SIP/2.0 200 OK"


def test_the_edge_answers_for_nobody_and_starts_with_every_transport(tmp_path: Path) -> None:
    switches = [word for name in ("TCP", "TLS", "WEBSOCKET") for word in ("-A", f"WITH_{name}")]
    (tmp_path / "dispatcher.list").touch()
    for servers in (["-A", f'SERVERS="{tmp_path}/dispatcher.list"'], []):
        checked = subprocess.run(
            ["kamailio", "-c", "-f", EDGE_CONFIGURATION, *switches, *servers],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "config file ok" in checked.stderr + checked.stdout, checked.stderr[-2000:]


async def dialled(phone: Phone, number: str) -> SingleCall:
    """A call under way; the edge says 100 before the challenge comes."""
    request = phone.build("INVITE", f"sip:{number}@{DOMAIN}", body=OFFER)
    call = SingleCall(phone, phone.start(phone.authorized(request, await phone.ask(request))))
    call.responses = phone.waiting[call.tx]
    return call


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_phones_call_each_other_through_the_edge(cluster: Cluster, transport: str) -> None:
    host, _, port = cluster.edge.address.partition(":")
    edge = Address(host, int(port))

    async def talk(caller: Phone, callee: Phone) -> None:
        """A call with a re-INVITE and a BYE from each side in turn, and one that is cancelled."""
        for hangs_up in (caller, callee):
            call = await dialled(caller, callee.number)
            tx, _ = await callee.asked("INVITE")
            callee.respond(tx, 180)
            theirs = callee.respond(tx, 200, body=OFFER, content_type="application/sdp")
            await call.answered()
            await callee.acknowledged()
            assert theirs is not None and call.dialog is not None
            mine = call.dialog
            sides = [(caller, mine, callee), (callee, theirs, caller)]
            if hangs_up is callee:
                sides.reverse()
            for phone, before, other in sides:
                dialog, again = before.request("INVITE", body=OFFER, content_type="application/sdp")
                asking = asyncio.create_task(phone.ask(again))
                tx, _ = await other.asked("INVITE")
                other.respond(tx, 200, body=OFFER, content_type="application/sdp")
                assert (await asking).status == 200
                phone.layer.send_stateless(dialog.ack(dialog.local_cseq), phone.flow)
                phone.pump()
                await other.acknowledged()
            _, bye = dialog.request("BYE")
            asking = asyncio.create_task(phone.ask(bye))
            await other.accept("BYE")
            assert (await asking).status == 200
        call = await dialled(caller, callee.number)
        tx, _ = await callee.asked("INVITE")
        callee.respond(tx, 180)
        await call.until(180)
        call.cancel()
        assert (await call.final()).status == 487
        assert callee.cancelled == [tx]
        callee.cancelled.clear()

    async def scenario() -> None:
        phones = [Phone(edge, number, transport, domain=DOMAIN) for number in ("1009", "1004")]
        for phone in phones:
            await phone.open()
            assert (await phone.register()).status == 200
        await asyncio.sleep(1.2)  # store.cache_seconds: so long the other server may not know of it
        for _ in range(3):  # so that each server gets calls of phones that registered with the other
            await talk(*phones)
        for phone in phones:
            assert (await phone.register(expires=0)).status == 200
            phone.close()

    asyncio.run(scenario())


def test_a_broadcast_on_one_server_is_watched_by_a_caller_of_the_other(cluster: Cluster, footage: Footage) -> None:
    with Call("go_live", cluster.edge.address, account("1001"), "8888", hold=60, clip=footage.clips["bikes"]) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1001")
        other = other_than(cluster, owner)
        with watched_from(cluster, other, "1001", "1002") as watching:
            owner.event("viewer.added", viewer="1002")
            time.sleep(1)
            assert len(watching.media.received["video"].packets) > 10


def test_both_relays_carry_broadcasts(cluster: Cluster) -> None:
    with (
        Call("go_live", cluster.edge.address, account("1003"), "8888", hold=60) as first,
        Call("go_live", cluster.edge.address, account("1004"), "8888", hold=60) as second,
    ):
        for call in (first, second):
            call.answered()
        relays = {first.answer["audio"].port // 1000, second.answer["audio"].port // 1000}
    assert len(relays) == 2


def test_a_server_that_hangs_finds_its_broadcasts_taken_over_and_does_no_harm(cluster: Cluster, reel: Path) -> None:
    channel = "1002@dialcast.internal"
    with Call("go_live", cluster.edge.address, account("1002"), "8888", hold=60, clip=reel) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1002")
        other = other_than(cluster, owner)
        with watched_from(cluster, other, "1002", "1003") as watching:
            owner.event("viewer.added", viewer="1003")
            owner.process.send_signal(signal.SIGSTOP)
            try:
                other.event("broadcast.inherited", 15, channel=channel)
                time.sleep(LEASE)  # by now it would have given everybody up
            finally:
                owner.process.send_signal(signal.SIGCONT)
            owner.event("broadcast.lost_to_another_server", 5, channel=channel)
            time.sleep(2)
            for call in (live, watching):
                assert not hung_up(call), "nobody is hung up on"
            before = len(watching.media.received["video"].packets)
            time.sleep(0.5)
            assert len(watching.media.received["video"].packets) > before + 5
            assert not watching.media.received["video"].lost()
            assert not owner.all_events("broadcast.ended", channel=channel)
        other.event("viewer.left", viewer="1003")


def test_without_the_database_calls_go_on_and_afterwards_all_is_as_before(cluster: Cluster, reel: Path) -> None:
    with Call("go_live", cluster.edge.address, account("1008"), "8888", hold=60, clip=reel) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1008")
        with watched_from(cluster, other_than(cluster, owner), "1008", "1009") as watching:
            owner.event("viewer.added", viewer="1009")
            cluster.database.kill()
            time.sleep(1.5 * LEASE)
            with pytest.raises(SippError, match="500 Database Unavailable"):
                register(cluster.edge.address, account("1005"))
            before = len(watching.media.received["video"].packets)
            cluster.database.start()
            assert register(cluster.edge.address, account("1005"))[-1].start_line == "SIP/2.0 200 OK"
            time.sleep(1.5 * LEASE)  # nobody may have taken anything over meanwhile
            assert len(watching.media.received["video"].packets) > before + 50
            for server in cluster.servers:
                assert not server.all_events("broadcast.inherited", channel="1008@dialcast.internal")
            assert not hung_up(watching) and not hung_up(live)
        owner.event("viewer.left", viewer="1009")


def test_a_killed_server_costs_no_media_and_the_other_goes_on_with_its_calls(cluster: Cluster, reel: Path) -> None:
    with Call("go_live", cluster.edge.address, account("1006"), "8888", hold=10, clip=reel) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1006")
        other = other_than(cluster, owner)
        with Call("watch", cluster.edge.address, account("1007"), "1006", hold=60) as watching:
            watching.answered()
            owner.event("viewer.added", viewer="1007")
            owner.kill_all()
            other.event("broadcast.inherited", 15, channel="1006@dialcast.internal")
            before = len(watching.media.received["video"].packets)
            time.sleep(1)
            assert len(watching.media.received["video"].packets) > before + 10, "the picture stands still"
            assert not watching.media.received["video"].lost()
            live.finished()  # its BYE goes to a dead server, and is answered by the living
            ended = watching.sipp.received("BYE", 10)
            assert "Broadcast ended" in ended.header("Reason")
            other.event("broadcast.ended", channel="1006@dialcast.internal")
