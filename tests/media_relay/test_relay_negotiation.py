"""Legs that change while they live: hold the old way, new addresses, ICE restarts, replaced sources, IPv6."""

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from relay_world import HOST, IDR, PPS, PT, SLICE, SPS, Peer, Source, World

from protocols.control import (
    PAGE_BYTES,
    AddViewer,
    ControlError,
    LegInfo,
    LegPage,
    LegSpec,
    ListLegs,
    OpenGroup,
    RemoveLeg,
    ReplaceSource,
    UpdateLeg,
    expect,
)
from protocols.control_json import encode
from protocols.join import Checker, IceCredentials, Joined
from protocols.net import Address
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Nack, Pli, ReceiverReport
from provisioning.config import RelayConfig


def test_the_terminals_own_checker_joins_and_keeps_its_consent(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, place = world.viewer("audio", ice=True)
    checker = Checker(IceCredentials("peer", "unused"), IceCredentials(place.ufrag, place.password), place.rtp, bytes)
    checker.start(world.now)

    def turn() -> None:
        checker.handle_timer(world.now)
        for data, address in checker.to_send():
            viewer.rtp.sendto(data, address)
        world.step()
        for data in viewer.answers():
            checker.receive(data, place.rtp, world.now)
        sources["audio"].send(b"x")

    turn()
    assert isinstance(checker.next_event(), Joined)
    world.pass_time(60, each=turn)
    assert checker.next_event() is None
    assert not [event for event in world.events if type(event).__name__ == "LegLost"]


def test_a_call_held_the_old_way_goes_on_where_it_was(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio")
    sources["audio"].send(b"1")
    world.step()
    media = replace(spec.media[0], rtp=Address("0.0.0.0", 4000), rtcp=Address("0.0.0.0", 4001), sends=False)
    during = expect(world.do(UpdateLeg("1001", 1, replace(spec, media=(media,)))), LegInfo)
    sources["audio"].send(b"2")
    world.step()
    after = expect(world.do(UpdateLeg("1001", 1, spec)), LegInfo)
    sources["audio"].send(b"3")
    world.step()
    assert during.media[0].rtp == after.media[0].rtp == place.rtp
    assert [p.payload for p in viewer.packets()] == [b"1", b"3"]


def test_a_phone_that_moves_gets_its_media_at_the_new_address_under_the_same_numbering(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, _ = world.viewer("audio")
    sources["audio"].send(b"1")
    world.step()
    moved = world.peer("audio")
    world.do(UpdateLeg("1001", 1, replace(spec, media=(moved.spec(sends=True),))))
    sources["audio"].send(b"2")
    world.step()
    (before,), (after,) = viewer.packets(), moved.packets()
    assert ((after.sequence - before.sequence) & 0xFFFF, after.ssrc) == (1, before.ssrc)


def test_an_ice_restart_changes_the_credentials_and_does_not_interrupt(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio", ice=True)
    viewer.check(place)
    world.step()
    restarted = replace(spec, media=(replace(spec.media[0], remote_ufrag="fresh"),))
    info = expect(world.do(UpdateLeg("1001", 1, restarted)), LegInfo)
    assert info.media[0].ufrag != place.ufrag
    sources["audio"].send(b"x")
    world.step()
    assert [p.payload for p in viewer.packets()] == [b"x"]


def test_a_broadcaster_redials_into_a_full_group() -> None:
    world = World(RelayConfig(port_min=30000, port_max=30999, max_legs_per_group=2))
    world.broadcaster("audio")
    world.viewer("audio")
    before = REGISTRY.get_sample_value("dialcast_relay_limited_total", {"limit": "relay.max_legs_per_group"}) or 0.0
    with pytest.raises(ControlError, match="limit"):
        world.viewer("audio")
    after = REGISTRY.get_sample_value("dialcast_relay_limited_total", {"limit": "relay.max_legs_per_group"})
    assert after == before + 1
    leg = LegSpec("again", "1001", HOST, (world.peer("audio").spec(receives=True),))
    world.do(ReplaceSource("1001", 1, leg))
    assert set(world.relay.groups.by_id["1001"].legs) == {"again", "v1"}
    world.close()


def test_a_new_source_that_starts_without_a_keyframe_is_asked_for_one(world: World) -> None:
    sources, _ = world.broadcaster("video")
    sources["video"].send(SPS, PPS, IDR)
    world.step()
    again = world.peer("video")
    leg = LegSpec("again", "1001", HOST, (again.spec(receives=True),))
    place = expect(world.do(ReplaceSource("1001", 1, leg)), LegInfo).media[0]
    second = Source(again, place.rtp, ssrc=5)
    again.send_rtcp(place.rtcp, Pli(5, 5))
    world.pass_time(0.3, each=lambda: second.send(SLICE))
    assert [packet for packet in again.reports() if isinstance(packet, Pli)]
    assert not [event for event in world.events if type(event).__name__ == "KeyframeWanted"]


def test_a_removed_viewer_gets_nothing_more_and_its_requests_count_for_nothing(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio")
    sources["audio"].send(b"1")
    world.step()
    (packet,) = viewer.packets()
    world.do(RemoveLeg("1001", 1, spec.leg_id))
    world.do(RemoveLeg("1001", 1, spec.leg_id))
    sources["audio"].send(b"2")
    viewer.send_rtcp(place.rtcp, Nack(1, packet.ssrc, (packet.sequence,)))
    world.step()
    assert viewer.packets() == []


def arrived(peer: Peer) -> list[tuple[bytes, Address]]:
    """Media that came since the last call, and from where."""
    found = []
    while True:
        try:
            data, source = peer.rtp.recvfrom(4096)
        except BlockingIOError:
            return found
        found.append((RtpPacket.parse(data).payload, Address(*source)))


def test_a_viewer_that_names_another_s_address_gets_a_port_of_its_own_and_takes_nothing_from_it(world: World) -> None:
    """Two phones behind one NAT, or one that pretends: only by the port can they be told apart."""
    sources, _ = world.broadcaster("audio")
    first, spec, place = world.viewer("audio")

    def first_gets_all_and_is_heard(payload: bytes) -> None:
        sources["audio"].send(payload)
        world.step()
        assert (payload, place.rtp) in arrived(first)
        world.now += 1
        first.send(RtpPacket(PT["audio"], 1, 1, 1, b"x"), place.rtp)
        world.step()
        assert world.silent_for(spec.leg_id) == 0
        world.now += 1
        first.send_rtcp(place.rtcp, ReceiverReport(1))
        world.step()
        assert world.silent_for(spec.leg_id) == 0

    first_gets_all_and_is_heard(b"1")
    pretended = LegSpec("again", "2001", HOST, (first.spec(sends=True),))
    other = expect(world.do(AddViewer("1001", 1, pretended)), LegInfo).media[0]
    assert (place.shared, other.shared) == (True, False)
    assert other.rtp != place.rtp
    first_gets_all_and_is_heard(b"2")
    assert expect(world.do(UpdateLeg("1001", 1, replace(spec, number="2002"))), LegInfo).media[0] == place
    first_gets_all_and_is_heard(b"3")
    world.do(RemoveLeg("1001", 1, "again"))
    first_gets_all_and_is_heard(b"4")
    sources["audio"].send(b"5")
    world.step()
    assert arrived(first) == [(b"5", place.rtp)]


def test_a_viewer_that_moves_to_another_s_address_takes_nothing_from_it(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    first, spec, place = world.viewer("audio")
    _, moving, before = world.viewer("audio")
    after = expect(world.do(UpdateLeg("1001", 1, replace(moving, media=(first.spec(sends=True),)))), LegInfo).media[0]
    assert (before.shared, after.shared, before.rtp == place.rtp) == (True, False, True)
    world.do(RemoveLeg("1001", 1, moving.leg_id))
    sources["audio"].send(b"1")
    first.send(RtpPacket(PT["audio"], 1, 1, 1, b"x"), place.rtp)
    world.step()
    assert arrived(first) == [(b"1", place.rtp)]
    assert world.silent_for(spec.leg_id) == 0


def test_addresses_compare_equal_however_they_are_spelt() -> None:
    world = World(RelayConfig(bind="::1", port_min=30000, port_max=30999))
    source, viewer = (Peer("audio", "::1") for _ in range(2))
    world.peers += [source, viewer]

    def long(media_port: int) -> Address:
        return Address("0:0:0:0:0:0:0:1", media_port)

    media = source.spec(receives=True)
    media = replace(media, rtp=long(media.rtp.port), rtcp=long(media.rtcp.port))
    info = expect(world.do(OpenGroup("1", 1, LegSpec("s", "1", "::1", (media,)))), LegInfo)
    sink = viewer.spec(sends=True)
    sink = replace(sink, rtp=long(sink.rtp.port), rtcp=long(sink.rtcp.port))
    world.do(AddViewer("1", 1, LegSpec("v", "2", "0::1", (sink,))))
    Source(source, info.media[0].rtp).send(b"six")
    world.step()
    assert [p.payload for p in viewer.packets()] == [b"six"]
    assert (info.media[0].rtp.host, world.relay.groups.by_id["1"].legs["v"].media["audio"].port.shared) == ("::1", True)
    world.close()


def test_pages_stay_small_however_long_the_ids_are(world: World) -> None:
    group = "g" * 250
    world.broadcaster("audio", group=group)
    media = (world.peer("audio").spec(sends=True, ice=True),)
    for i in range(199):
        world.do(AddViewer(group, 1, LegSpec(f"{i:0250}", "2", HOST, media)))
    seen: list[str] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page = expect(world.do(ListLegs(after)), LegPage)
        assert len(encode(page)[1]) <= PAGE_BYTES
        seen += [row.leg_id for row in page.rows]
        after = page.next
    assert len(seen) == len(set(seen)) == 200


@pytest.mark.parametrize(
    "change",
    [
        {"payload_type": 128},
        {"clock_rate": 0},
        {"rtp": Address("example.org", 4000)},
        {"rtp": Address(HOST, 70000)},
    ],
)
def test_a_leg_that_makes_no_sense_is_refused_and_leaves_nothing_behind(
    world: World, change: dict[str, object]
) -> None:
    media = world.peer("audio").spec(receives=True)
    wrong = replace(media, **change)  # type: ignore[arg-type]  # the parameters are wrong on purpose
    with pytest.raises(ControlError, match="bad-request"):
        world.do(OpenGroup("1", 1, LegSpec("s", "1", HOST, (wrong,))))
    assert not world.relay.groups.by_id
    assert len(world.relay.groups.ports) == 0
