"""Hostile phones and strangers against the relay: nobody is flooded, nobody's stream stops, nothing grows."""

import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from relay_world import HOST, IDR, PT, SPS, Peer, Source, World, check, held

import media_relay.sockets
from media_relay.engine.plain import PlainEngine
from media_relay.engine.stream import MAX_PARAMETER_SETS
from media_relay.numbering import LegNumbers
from protocols.control import (
    AddViewer,
    ControlError,
    LegInfo,
    LegLost,
    LegMedia,
    LegSpec,
    ReplaceSource,
    UpdateLeg,
    expect,
)
from protocols.net import Address
from protocols.rtp.classify import classify
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Nack, Pli, ReceiverReport, ReportBlock, Tmmbn, Tmmbr, compound
from provisioning.config import RelayConfig

VICTIM = "127.0.0.9"
"""A third party that never called anybody."""


def victim(world: World) -> Peer:
    return world.peer("audio", VICTIM)


def forged_check(world: World, bystander: Peer, place: LegMedia) -> None:
    """An attacker with good credentials writes somebody else's address under his check."""
    bystander.rtp.sendto(check(place), place.rtp)
    world.step()
    bystander.answers()


def lost(world: World) -> list[tuple[str, str]]:
    return [(event.leg_id, event.cause) for event in world.events if isinstance(event, LegLost)]


@pytest.mark.parametrize("host", ["[::1]", "]127.0.0.1", "fe80::1%lo", "fe80::1%two words", "localhost", ""])
def test_an_address_that_only_looks_numeric_is_refused_as_a_bad_request(world: World, host: str) -> None:
    world.broadcaster("audio")
    media = world.peer("audio").spec(sends=True)
    for bad in (
        LegSpec("v", "2001", HOST, (replace(media, rtp=Address(host, 4000)),)),
        LegSpec("v", "2001", HOST, (replace(media, rtcp=Address(host, 4001)),)),
        LegSpec("v", "2001", host, (media,)),
    ):
        with pytest.raises(ControlError, match="bad-request"):
            world.do(AddViewer("1001", 1, bad))


def test_a_forged_check_does_not_send_the_stream_to_somebody_else(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    attacker, _, place = world.viewer("audio", ice=True)
    attacker.check(place)
    world.step()
    bystander = victim(world)
    forged_check(world, bystander, place)
    got = 0
    for _ in range(500):
        world.now += 0.02
        sources["audio"].send(bytes(32))
        world.step()
        got += len(bystander.packets())
    assert got <= 11 * 10, "ten seconds of the stream are 500 packets"


def test_what_the_attacker_saw_of_his_own_stream_does_not_prove_the_victim(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    attacker, _, place = world.viewer("audio", ice=True)
    attacker.check(place)
    world.step()
    sources["audio"].send(b"x")
    world.step()
    seen = attacker.packets()[0].ssrc
    bystander = victim(world)
    forged_check(world, bystander, place)
    attacker.rtcp.sendto(check(place), place.rtcp)  # and the reports to himself, to learn the new name
    world.step()
    world.pass_time(6, each=lambda: sources["audio"].send(bytes(32)))
    heard = [data for data in attacker._drain(attacker.rtcp) if classify(data) == "rtcp"]
    assert heard == [], "its reports would tell him"
    bystander.rtcp.sendto(compound([ReceiverReport(1, (ReportBlock(seen),)), Pli(1, seen)]), place.rtcp)
    world.step()
    bystander.packets()
    for _ in range(100):
        world.now += 0.02
        sources["audio"].send(bytes(32))
        world.step()
    assert len(bystander.packets()) <= 30


def test_a_phone_that_moved_to_another_host_proves_itself_by_reporting_on_what_it_gets(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    phone, spec, place = world.viewer("audio", ice=True)
    phone.check(place)
    world.step()
    moved = victim(world)
    media = replace(spec.media[0], rtcp_mux=False, rtcp=moved.rtcp_address)
    assert media.rtcp.host == VICTIM
    moved.rtp.sendto(check(place), place.rtp)
    moved.rtcp.sendto(check(place), place.rtcp)
    world.step()
    sources["audio"].send(bytes(32))
    world.step()
    ssrc = moved.packets()[0].ssrc
    moved.send_rtcp(place.rtcp, ReceiverReport(1, (ReportBlock(ssrc),)))
    world.step()
    for _ in range(50):
        world.now += 0.02
        sources["audio"].send(bytes(300))
        world.step()
    assert len(moved.packets()) == 50


def test_one_forged_packet_does_not_start_a_stream_that_never_ends(world: World) -> None:
    """Without ICE the SDP's address is believed once a packet came from it; then it has to stay alive."""
    sources, _ = world.broadcaster("audio")
    bystander = victim(world)
    media = bystander.spec(sends=True)
    place = expect(world.do(AddViewer("1001", 1, LegSpec("v", "2001", HOST, (media,)))), LegInfo).media[0]
    bystander.send(RtpPacket(PT["audio"], 1, 1, 1, b"x"), place.rtp)
    world.step()
    world.pass_time(20, every=0.5, each=lambda: sources["audio"].send(bytes(300)))
    bystander.packets()
    world.pass_time(5, every=0.5, each=lambda: sources["audio"].send(bytes(300)))
    assert bystander.packets() == []


def test_many_calls_that_name_one_victim_do_not_add_up(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    bystander = victim(world)
    for number in range(20):
        world.do(AddViewer("1001", 1, LegSpec(f"v{number}", "2001", HOST, (bystander.spec(sends=True),))))
    world.now = 1001.0
    for _ in range(50):
        sources["audio"].send(b"small")
        world.step()
    assert len(bystander.packets()) == 10


def test_a_broadcaster_cannot_have_thousands_of_parameter_sets_sent_with_each_keyframe(world: World) -> None:
    sprop = "packetization-mode=1;sprop-parameter-sets=" + ",".join(["Zw"] * 5000)
    sources, _ = world.broadcaster("video", fmtp=sprop)
    viewer, _, _ = world.viewer("video")
    sources["video"].send(IDR)
    world.step()
    world.settle()
    assert len(viewer.packets()) <= MAX_PARAMETER_SETS + 1
    stap = b"\x18" + (len(SPS).to_bytes(2, "big") + SPS) * 1000
    sources["video"].send(stap)
    sources["video"].send(IDR)
    world.step()
    world.settle()
    assert len(viewer.packets()) <= MAX_PARAMETER_SETS + 2


def test_one_datagram_of_rate_requests_is_answered_once(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, place = world.viewer("audio")
    sources["audio"].send(b"x")
    world.step()
    viewer.reports()
    viewer.send_rtcp(place.rtcp, *[Tmmbr(1, ((2, 64_000, 40),)) for _ in range(60)])
    world.step()
    assert len([one for one in viewer.reports() if isinstance(one, Tmmbn)]) == 1


def test_requests_for_packets_nobody_has_cost_the_relay_a_bounded_search(
    plain_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, _ = plain_world.broadcaster("audio")
    viewer, _, place = plain_world.viewer("audio")
    sources["audio"].send(b"x")
    plain_world.step()
    ssrc = viewer.packets()[0].ssrc
    searched: list[int] = []
    search = LegNumbers.group_sequence

    def counted(self: LegNumbers, number: int) -> int | None:
        searched.append(number)
        return search(self, number)

    monkeypatch.setattr(LegNumbers, "group_sequence", counted)
    nacks = [Nack(1, ssrc, tuple(range(20_000 + 1000 * i, 20_700 + 1000 * i))) for i in range(10)]
    viewer.send_rtcp(place.rtcp, *nacks)
    plain_world.step()
    assert 0 < len(searched) <= 64


def test_forged_icmp_does_not_stop_a_viewer_that_reports_every_few_seconds(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio")
    port = world.relay.groups.by_id["1001"].shared["audio"]
    for _ in range(4):
        viewer.send_rtcp(place.rtcp, ReceiverReport(1))
        world.step()
        for _ in range(10):
            for _ in range(5):
                world.relay._liveness.unreachable(port, viewer.address, spec.leg_id, world.now)
            world.pass_time(0.5, every=0.5, each=lambda: sources["audio"].send(b"x"))
    assert lost(world) == []


def test_without_sockets_to_open_a_leg_is_refused_and_nothing_breaks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.broadcaster("audio")
    media = world.peer("audio").spec(sends=True)

    def exhausted(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    before = len(world.relay.groups.ports)
    monkeypatch.setattr(media_relay.sockets, "open_udp", exhausted)
    for number in range(3):
        with pytest.raises(ControlError, match="limit"):
            world.do(AddViewer("1001", 1, LegSpec(f"v{number}", "2001", "192.0.2.7", (media,))))
    monkeypatch.undo()
    world.do(AddViewer("1001", 1, LegSpec("v", "2001", "192.0.2.7", (media,))))
    assert len(world.relay.groups.ports) == before + 1


def test_hold_and_resume_in_a_storm_does_not_replay_the_picture_each_time(world: World) -> None:
    sources, _ = world.broadcaster("video")
    viewer, spec, _ = world.viewer("video")
    sources["video"].send(SPS, *([IDR + bytes(1000)] * 10))
    world.step()
    world.settle()
    viewer.packets()
    for _ in range(20):
        world.do(UpdateLeg("1001", 1, held(spec)))
        world.do(UpdateLeg("1001", 1, spec))
        world.now += 0.01
        world.step()
    assert len(viewer.packets()) <= 11


def test_takeovers_leave_nothing_behind_in_the_engine(plain_world: World) -> None:
    sources, _ = plain_world.broadcaster("audio")
    for number in range(20):
        peer = sources["audio"].peer
        info = expect(
            plain_world.do(ReplaceSource("1001", 1, LegSpec(f"s{number}", "1001", HOST, (peer.spec(receives=True),)))),
            LegInfo,
        )
        Source(peer, info.media[0].rtp, ssrc=number).send(b"x")
        plain_world.step()
    engine = plain_world.engine
    assert isinstance(engine, PlainEngine)
    assert len(engine._groups["1001"].started) == 1
    assert len(engine._peers) == 1


def test_one_leg_that_fails_does_not_stop_the_visits_of_the_others(world: World) -> None:
    world.broadcaster("audio")
    for _ in range(3):
        world.viewer("audio")
    visited: list[str] = []

    def poisoned(visit: Callable[..., None]) -> Callable[..., None]:
        def run(leg: Any, now: float) -> None:
            visited.append(leg.leg_id)
            if len(visited) == 1:
                raise RuntimeError("unforeseen")
            visit(leg, now)

        return run

    world.relay._liveness.visit = poisoned(world.relay._liveness.visit)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        world.relay.tick(world.now)
    for _ in range(30):
        world.now += 0.1
        world.relay.tick(world.now)
    assert len(set(visited)) == 4 and all(visited.count(leg) > 1 for leg in set(visited))


def test_a_broadcaster_cannot_make_us_multiply_more_than_its_bit_rate() -> None:
    world = World(RelayConfig(port_min=30000, port_max=30999, source_bitrate_max=64_000))
    sources, _ = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio")
    for _ in range(20):
        sources["audio"].send(bytes(1000))
        world.step()
    assert 7 <= len(viewer.packets()) <= 9, "a second's worth at 64 kbit/s, and what little accrues meanwhile"
    world.pass_time(1)
    sources["audio"].send(bytes(1000))
    world.step()
    assert len(viewer.packets()) == 1, "and on it goes"
    world.close()
