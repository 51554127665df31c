"""A relay with keyed legs: media, reports, prompts and packets before a latch are SRTP; without the key, nothing."""

from dataclasses import replace

import pytest
from pylibsrtp import Session
from relay_world import HOST, PT, Peer, Source, World

from media_relay.engine.security import session
from protocols.control import AddViewer, LegInfo, LegMedia, LegSpec, OpenAnnouncement, OpenGroup, PlayPrompt, expect
from protocols.prompts import PROMPTS
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Pli, ReceiverReport, SenderReport, compound, parse_compound
from protocols.srtp import KEY_BYTES, Profile, Srtp


@pytest.fixture(params=list(KEY_BYTES))
def profile(request: pytest.FixtureRequest) -> Profile:
    chosen: Profile = request.param
    return chosen


def keys(profile: Profile, name: int) -> Srtp:
    return Srtp(profile, bytes([name]) * KEY_BYTES[profile])


def go_live(world: World, profile: Profile) -> tuple[Source, LegMedia, Session]:
    """A broadcaster of sound, whose first packet has yet to tell where it sends from."""
    peer = world.peer("audio")
    media = replace(
        peer.spec(receives=True, codec="PCMU"),
        receive_security=keys(profile, 1),
        send_security=keys(profile, 2),
    )
    info = expect(world.do(OpenGroup("1001", 1, LegSpec("src", "1001", HOST, (media,)))), LegInfo)
    source = Source(peer, info.media[0].rtp)
    return source, info.media[0], session(keys(profile, 1), source.ssrc)


def watch(world: World, profile: Profile) -> tuple[Peer, LegMedia]:
    peer = world.peer("audio")
    media = replace(
        peer.spec(sends=True, codec="PCMU"), send_security=keys(profile, 3), receive_security=keys(profile, 4)
    )
    info = expect(world.do(AddViewer("1001", 1, LegSpec("v", "2001", HOST, (media,)))), LegInfo)
    return peer, info.media[0]


def heard(peer: Peer, ears: Session) -> list[bytes]:
    return [RtpPacket.parse(ears.unprotect(data)).payload for data in peer.answers()]


def test_a_keyed_broadcast_reaches_a_keyed_viewer_from_its_first_packet_on(world: World, profile: Profile) -> None:
    source, _, mouth = go_live(world, profile)
    viewer, _ = watch(world, profile)
    ears = session(keys(profile, 3), None)
    for number in range(20):
        source.peer.send(mouth.protect(source.packet(b"%d" % number).serialise()), source.to)
        world.step()
    assert heard(viewer, ears) == [b"%d" % number for number in range(20)], "numbers roll over at the sixth"


def test_nobody_without_the_key_is_latched_to_or_heard(world: World, profile: Profile) -> None:
    source, _, mouth = go_live(world, profile)
    viewer, _ = watch(world, profile)
    stranger = world.peer("audio")
    stranger.send(source.packet(b"in the clear"), source.to)
    world.step()
    stranger.send(session(keys(profile, 9), source.ssrc).protect(source.packet(b"x").serialise()), source.to)
    world.step()
    assert not viewer.answers()
    leg = world.relay.groups.by_id["1001"].legs["src"]
    assert leg.heard_at is None
    source.peer.send(mouth.protect(source.packet(b"genuine").serialise()), source.to)
    world.step()
    assert heard(viewer, session(keys(profile, 3), None)) == [b"genuine"]


def test_reports_are_protected_both_ways_and_others_are_not_believed(world: World, profile: Profile) -> None:
    source, _, mouth = go_live(world, profile)
    viewer, place = watch(world, profile)
    leg = world.relay.groups.by_id["1001"].legs["v"]

    def talk() -> None:
        source.peer.send(mouth.protect(source.packet(b"sound").serialise()), source.to)

    world.pass_time(1, each=talk)
    viewer.rtcp.sendto(compound([ReceiverReport(5)]), place.rtcp)
    world.step()
    assert leg.heard_at is None, "in the clear it is no sign of life"
    report = session(keys(profile, 4), 5).protect_rtcp(compound([ReceiverReport(5)]))
    viewer.rtcp.sendto(report, place.rtcp)
    world.step()
    assert leg.heard_at == world.now
    first = world.now
    world.pass_time(3, each=talk)
    viewer.rtcp.sendto(report, place.rtcp)
    world.step()
    assert leg.heard_at == first, "a replay is none either"
    ears = session(keys(profile, 3), None)
    received = [ears.unprotect_rtcp(data) for data in viewer._drain(viewer.rtcp)]
    assert any(isinstance(packet, SenderReport) for data in received for packet in parse_compound(data))


def test_a_prompt_is_protected(world: World, profile: Profile) -> None:
    peer = world.peer("audio")
    media = replace(
        peer.spec(sends=True, codec="PCMU"), send_security=keys(profile, 6), receive_security=keys(profile, 7)
    )
    expect(world.do(OpenAnnouncement("announcement:a", 0, LegSpec("a", "2001", HOST, (media,)))), LegInfo)
    world.do(PlayPrompt("announcement:a", 0, "a", 1, (next(iter(PROMPTS)),), "en"))
    world.pass_time(0.5, every=0.02)
    ears = session(keys(profile, 6), None)
    packets = [RtpPacket.parse(ears.unprotect(data)) for data in peer.answers()]
    assert len(packets) > 10
    assert {packet.payload_type for packet in packets} == {PT["audio"]}


def test_a_keyframe_request_of_the_relay_reaches_a_keyed_source(world: World, profile: Profile) -> None:
    peer = world.peer("video")
    media = replace(peer.spec(receives=True), receive_security=keys(profile, 1), send_security=keys(profile, 2))
    info = expect(world.do(OpenGroup("1001", 1, LegSpec("src", "1001", HOST, (media,)))), LegInfo)
    source, mouth = Source(peer, info.media[0].rtp), session(keys(profile, 1), 0xABCD)

    def send() -> None:
        peer.send(mouth.protect(source.packet(b"\x41slice").serialise()), source.to)

    peer.rtcp.sendto(mouth.protect_rtcp(compound([ReceiverReport(source.ssrc)])), info.media[0].rtcp)
    world.pass_time(1, each=send)
    world.viewer("video")
    world.pass_time(1, each=send)
    ears = session(keys(profile, 2), None)
    told = [packet for data in peer._drain(peer.rtcp) for packet in parse_compound(ears.unprotect_rtcp(data))]
    assert any(isinstance(packet, Pli) for packet in told)
