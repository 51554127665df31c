"""Whom the relay believes: authenticated checks, latched phones, and nobody else."""

import os
import socket
from dataclasses import replace

from aioice import stun
from relay_world import HOST, IDR, PPS, SPS, Source, World, check
from structlog.testing import capture_logs

from protocols.control import AddViewer, LegBack, LegInfo, LegJoined, LegLost, LegSpec, OpenGroup, expect
from protocols.net import Address
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Pli, ReceiverReport
from provisioning.config import RelayConfig

ELSEWHERE = "127.0.0.2"


def joined(world: World) -> list[str]:
    return [event.leg_id for event in world.events if isinstance(event, LegJoined)]


def lost(world: World) -> list[tuple[str, str]]:
    return [(event.leg_id, event.cause) for event in world.events if isinstance(event, LegLost)]


def test_a_leg_is_joined_when_every_m_line_was_checked_with_use_candidate(world: World) -> None:
    sources, info = world.broadcaster("audio", "video", ice=True)
    audio, video = info.media
    sources["audio"].peer.check(audio)
    sources["video"].peer.check(video, nominate=False)
    world.step()
    assert joined(world) == []
    sources["video"].peer.check(video)
    world.step()
    assert joined(world) == [info.leg_id]
    reply = stun.parse_message(sources["video"].peer.answers()[-1])
    assert reply.check_message_integrity(video.password.encode())
    assert reply.attributes["XOR-MAPPED-ADDRESS"] == tuple(sources["video"].peer.address)


def test_a_check_with_a_wrong_password_is_met_with_silence(world: World) -> None:
    sources, info = world.broadcaster("audio", ice=True)
    sources["audio"].peer.check(info.media[0], password="guess" * 5)
    world.step()
    assert sources["audio"].peer.answers() == []
    assert joined(world) == []


def test_a_viewer_with_ice_gets_nothing_before_its_check(world: World) -> None:
    sources, _ = world.broadcaster("video")
    viewer, _, place = world.viewer("video", ice=True)
    sources["video"].send(SPS, PPS, IDR)
    world.step()
    assert viewer.packets() == []
    viewer.check(place)
    world.step()
    world.settle()
    assert [p.payload for p in viewer.packets()] == [SPS, PPS, IDR]


def test_two_viewers_on_the_shared_socket_are_told_apart_by_their_credentials(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    one, _, place_one = world.viewer("audio", ice=True)
    two, _, place_two = world.viewer("audio", ice=True)
    assert place_one.rtp == place_two.rtp
    one.check(place_one)
    two.rtp.sendto(check(place_one, password=place_two.password), place_one.rtp)
    world.step()
    sources["audio"].send(b"x")
    world.step()
    assert (len(one.packets()), len(two.packets())) == (1, 0)


def test_a_stranger_can_neither_inject_nor_get_an_answer(world: World) -> None:
    sources, info = world.broadcaster("audio")
    viewer, _, place = world.viewer("audio")
    source = sources["audio"]
    source.send(b"real")
    world.step()
    stranger = world.peer("audio")
    forged = RtpPacket(97, source.sequence & 0xFFFF, 0, source.ssrc, b"forged")
    for target in (info.media[0].rtp, info.media[0].rtcp, place.rtp, place.rtcp):
        for data in (forged.serialise(), b"", b"\x00", os.urandom(500), b"\x16\xfe\xfd" + bytes(60)):
            stranger.send(data, target)
        stranger.send_rtcp(target, Pli(1, 2), ReceiverReport(1))
    world.step()
    assert [p.payload for p in viewer.packets()] == [b"real"]
    assert stranger.answers() == []
    assert stranger.reports() == []


def test_a_viewers_own_sound_is_dropped_but_is_a_sign_of_life(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    talking, spec, place = world.viewer("audio")
    other, _, _ = world.viewer("audio")
    voice = Source(talking, place.rtp, ssrc=0x77)

    def both_talk() -> None:
        sources["audio"].send(b"s")
        voice.send(b"v")

    world.pass_time(40, every=1.0, each=both_talk)
    assert {p.payload for p in other.packets()} == {b"s"}
    assert spec.leg_id in joined(world)
    assert spec.leg_id not in [leg for leg, _ in lost(world)]


def test_a_stock_phone_behind_nat_latches_once(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    public = world.peer("audio", ELSEWHERE)
    private = world.peer("audio").spec(sends=True)  # the SDP names an address that is not the client's
    spec = LegSpec("nat", "2001", ELSEWHERE, (private,))
    place = expect(world.do(AddViewer("1001", 1, spec)), LegInfo).media[0]
    public.send(RtpPacket(97, 1, 1, 1, b"hello"), place.rtp)
    world.step()
    thief = world.peer("audio", ELSEWHERE)
    thief.send(RtpPacket(97, 1, 1, 1, b"mine"), place.rtp)
    world.step()
    sources["audio"].send(b"x")
    world.step()
    assert (len(public.packets()), len(thief.packets())) == (1, 0)
    assert "nat" in joined(world)


def test_a_phone_behind_nat_gets_the_picture_at_once_when_it_latches(world: World) -> None:
    sources, _ = world.broadcaster("video")
    sources["video"].send(SPS, IDR + bytes(900))
    world.step()
    public = world.peer("video", ELSEWHERE)
    spec = LegSpec("nat", "2001", ELSEWHERE, (world.peer("video").spec(sends=True),))
    place = expect(world.do(AddViewer("1001", 1, spec)), LegInfo).media[0]
    world.settle()
    public.send(RtpPacket(96, 1, 1, 1, b"hello"), place.rtp)
    world.step()
    world.settle()
    assert [packet.payload[0] for packet in public.packets()][:2] == [SPS[0], IDR[0]]


def test_a_leg_that_has_not_latched_gets_a_trickle_and_only_for_a_while(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio", client="192.0.2.7")
    sources["audio"].send(b"first")
    world.step()
    viewer.packets()
    world.now = 1001.0
    for _ in range(50):
        sources["audio"].send(b"small")
        sources["audio"].send(bytes(500))
    world.step()
    trickle = viewer.packets()
    assert len(trickle) == 10 and {p.payload for p in trickle} == {b"small"}
    world.pass_time(15)
    viewer.packets()
    sources["audio"].send(b"late")
    world.step()
    assert viewer.packets() == []


def test_a_viewer_behind_nat_that_only_reports_gets_media_where_its_sdp_says(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, place = world.viewer("audio", client="192.0.2.7")
    viewer.send_rtcp(place.rtcp, ReceiverReport(1))
    world.step()
    sources["audio"].send(bytes(500))
    world.step()
    assert len(viewer.packets()) == 1


def test_the_log_says_once_a_leg_whose_media_is_dropped_and_which_setting_drops_it(world: World) -> None:
    """As of a phone that signals from 127.0.0.1 with its outside address in SDP."""
    peer, other = world.peer("audio"), world.peer("audio", "127.0.0.3")
    leg = LegSpec("src", "1001", ELSEWHERE, (peer.spec(receives=True),))
    place = expect(world.do(OpenGroup("1001", 1, leg)), LegInfo).media[0]
    with capture_logs() as events:
        for number in range(3):
            other.send(RtpPacket(97, number, number, 1, b"dropped"), place.rtp)
            world.step()
    assert events == [
        {
            "event": "leg.media_refused",
            "log_level": "warning",
            "group": "1001",
            "leg": "src",
            "kind": "audio",
            "source": str(other.address),
            "expected": str(peer.address),
            "setting": "relay.latch: signalling",
        }
    ]


def test_strict_latching_believes_the_sdp_address_only() -> None:
    world = World(RelayConfig(port_min=30000, port_max=30999, latch="strict"))
    sources, info = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio")
    other = Source(world.peer("audio"), info.media[0].rtp)
    other.send(b"same host, another port")
    sources["audio"].send(b"from the SDP's address")
    world.step()
    assert [p.payload for p in viewer.packets()] == [b"from the SDP's address"]
    world.close()


def test_nothing_is_sent_to_an_address_of_nowhere(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    media = replace(world.peer("audio").spec(sends=True), rtp=Address("0.0.0.0", 4000))
    nowhere = LegSpec("n", "2001", HOST, (media,))
    world.do(AddViewer("1001", 1, nowhere))
    sources["audio"].send(b"x")
    world.step()
    state = world.engine.leg("1001", "n")
    assert state is not None and state.packets == 0


def test_consent_that_runs_out_stops_the_media_and_a_new_check_brings_it_back(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio", ice=True)
    viewer.check(place)
    world.step()
    world.pass_time(10, each=lambda: sources["audio"].send(b"x"))
    viewer.check(place)
    world.pass_time(29, each=lambda: sources["audio"].send(b"x"))
    assert ("consent", spec.leg_id) not in [(c, leg) for leg, c in lost(world)]
    world.pass_time(3, each=lambda: sources["audio"].send(b"x"))
    viewer.packets()
    sources["audio"].send(b"no consent")
    world.step()
    assert viewer.packets() == []
    viewer.check(place)
    world.pass_time(1.5)
    sources["audio"].send(b"again")
    world.step()
    assert [p.payload for p in viewer.packets()] == [b"again"]
    assert [e.leg_id for e in world.events if isinstance(e, LegBack)] == [spec.leg_id]


def test_a_silent_broadcaster_is_reported_lost_and_back(world: World) -> None:
    sources, info = world.broadcaster("audio")
    sources["audio"].send(b"x")
    world.step()
    world.pass_time(14)
    assert lost(world) == []
    world.pass_time(3)
    assert lost(world) == [(info.leg_id, "silent")]
    sources["audio"].send(b"x")
    world.pass_time(2)
    assert [e.leg_id for e in world.events if isinstance(e, LegBack)] == [info.leg_id]


def test_a_viewer_that_never_answers_is_cut(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, _ = world.viewer("audio")
    world.pass_time(33, each=lambda: sources["audio"].send(b"x"))
    assert lost(world) == [(spec.leg_id, "unanswered")]
    viewer.packets()
    sources["audio"].send(b"x")
    world.step()
    assert viewer.packets() == []


def test_an_ice_viewer_may_take_its_time_before_it_joins_but_is_asked_after(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio", ice=True)
    world.pass_time(14, every=0.5, each=lambda: sources["audio"].send(b"x"))
    assert lost(world) == []
    world.pass_time(60, every=0.5, each=lambda: sources["audio"].send(b"x"))
    assert lost(world) == [(spec.leg_id, "silent")]
    viewer.check(place)
    world.pass_time(2, each=lambda: sources["audio"].send(b"x"))
    assert [e.leg_id for e in world.events if isinstance(e, LegBack)] == [spec.leg_id]
    assert viewer.packets(), "it may still join"


def test_ports_are_given_back_and_an_exhausted_range_is_refused_cleanly() -> None:
    world = World(RelayConfig(port_min=30000, port_max=30003))
    for _ in range(3):
        peer = world.peer("audio")
        spec = LegSpec("a", "1", HOST, (peer.spec(receives=True), world.peer("video").spec(receives=True)))
        expect(world.do(OpenGroup("1", 1, spec)), LegInfo)
        try:
            world.do(AddViewer("1", 1, LegSpec("b", "2", HOST, (peer.spec(sends=True),))))
        except ValueError as error:
            assert "limit" in str(error)
        else:
            raise AssertionError("no port was left")
        world.relay.close()
    assert len(world.relay.groups.ports) == 0
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((HOST, 30000))
    probe.close()
    world.close()
