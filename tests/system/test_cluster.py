"""Two application servers behind Kamailio, two relays, PostgreSQL: a call may land anywhere, and a server may die."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ApplicationServer, Cluster
from server import account

from dialcast.footage import Footage
from sipp_scenarios.behaviours import Call, register

FORWARDED = 2.5
"""Seconds after which a stock phone's number is forwarded by the server."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def holder(cluster: Cluster, number: str) -> ApplicationServer:
    """The server that opened the broadcast of `number`."""
    name = f"{number}@dialcast.internal"
    return next(server for server in cluster.servers if server.all_events("broadcast.live", channel=name))


def watched_from(cluster: Cluster, server: ApplicationServer, number: str, viewer: str) -> Call:
    """A call to `number` that the edge gives to `server`; the others are hung up again."""
    for _ in range(20):
        before = len(server.all_events("diversion.applied"))
        call = Call("watch", cluster.edge.address, account(viewer), number, hold=60)
        call.__enter__()
        call.answered()
        if len(server.all_events("diversion.applied")) > before:
            return call
        call.__exit__(None, None, None)
    raise AssertionError("the edge gave no call to the server")


def test_registers_through_the_edge(cluster: Cluster) -> None:
    taken = register(cluster.edge.address, account("1005"))[-1]
    assert taken.start_line == "SIP/2.0 200 OK"


def test_a_broadcast_on_one_server_is_watched_by_a_caller_of_the_other(cluster: Cluster, footage: Footage) -> None:
    with Call("go_live", cluster.edge.address, account("1001"), "8888", hold=60, clip=footage.clips["bikes"]) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1001")
        other = next(server for server in cluster.servers if server is not owner)
        watching = watched_from(cluster, other, "1001", "1002")
        try:
            owner.event("viewer.added", viewer="1002")
            time.sleep(1)
            assert len(watching.media.received["video"].packets) > 10
        finally:
            watching.__exit__(None, None, None)


def test_both_relays_carry_broadcasts(cluster: Cluster) -> None:
    with (
        Call("go_live", cluster.edge.address, account("1003"), "8888", hold=60) as first,
        Call("go_live", cluster.edge.address, account("1004"), "8888", hold=60) as second,
    ):
        for call in (first, second):
            call.answered()
        relays = {first.answer["audio"].port // 1000, second.answer["audio"].port // 1000}
    assert len(relays) == 2


def test_a_killed_server_costs_no_media_and_the_other_goes_on_with_its_calls(cluster: Cluster, reel: Path) -> None:
    with Call("go_live", cluster.edge.address, account("1006"), "8888", hold=25, clip=reel) as live:
        live.answered()
        time.sleep(FORWARDED)
        owner = holder(cluster, "1006")
        other = next(server for server in cluster.servers if server is not owner)
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
