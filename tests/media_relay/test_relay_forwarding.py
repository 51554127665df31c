"""What viewers receive: numbers of their own, an instant picture, no effect of losses and late packets on others."""

import itertools
import os

from relay_world import HOST, IDR, PPS, SLICE, SPS, Source, World, held

from protocols.control import (
    AddViewer,
    LegInfo,
    LegSpec,
    MediaStarted,
    ReplaceSource,
    UpdateLeg,
    expect,
)
from protocols.rtp.amr import AmrFrame, build, parse
from protocols.rtp.rtcp import Nack


def test_viewers_get_each_packet_under_numbers_of_their_own(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    first, _, _ = world.viewer("audio")
    second, _, _ = world.viewer("audio")
    for i in range(20):
        sources["audio"].send(b"frame%d" % i)
    world.step()
    one, two = first.packets(), second.packets()
    assert [p.payload for p in one] == [p.payload for p in two] == [b"frame%d" % i for i in range(20)]
    assert len({one[0].ssrc, two[0].ssrc, 0xABCD}) == 3
    for received in (one, two):
        start = received[0].sequence
        assert [(p.sequence - start) & 0xFFFF for p in received] == list(range(20))
        assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise(received)} == {160}
    assert (one[0].sequence, one[0].timestamp) != (two[0].sequence, two[0].timestamp)


def test_the_owner_hears_that_media_started_once_per_medium(world: World) -> None:
    sources, info = world.broadcaster("audio")
    for _ in range(3):
        sources["audio"].send(b"x")
        world.step()
    assert [e for e in world.events if isinstance(e, MediaStarted)] == [MediaStarted("1001", 1, info.leg_id, "audio")]


def test_a_packet_missing_upstream_leaves_a_gap_and_a_late_one_fills_it(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio")
    source = sources["audio"]
    a, b, c, d = (source.packet(name) for name in (b"a", b"b", b"c", b"d"))
    for packet in (a, c, d, b, b, c):
        source.peer.send(packet, source.to)
    world.step()
    got = viewer.packets()
    assert [p.payload for p in got] == [b"a", b"c", b"d", b"b"]
    start = got[0].sequence
    assert [(p.sequence - start) & 0xFFFF for p in got] == [0, 2, 3, 1]


def test_a_viewer_in_the_middle_of_a_group_of_pictures_has_the_picture_at_once(world: World) -> None:
    sources, _ = world.broadcaster("video")
    source = sources["video"]
    source.send(SPS, PPS, IDR)
    for i in range(40):
        source.send(SLICE + b"%d" % i)
        world.pass_time(1 / 30)
    viewer, _, _ = world.viewer("video")
    world.settle()
    replayed = viewer.packets()
    assert [p.payload for p in replayed] == [SPS, PPS, IDR, *(SLICE + b"%d" % i for i in range(40))]
    assert [(p.sequence - replayed[0].sequence) & 0xFFFF for p in replayed] == list(range(43))
    span = (replayed[-1].timestamp - replayed[0].timestamp) & 0xFFFFFFFF
    assert span <= 40 * 90, "1.3 s of pictures must not put the viewer 1.3 s behind"
    source.send(SLICE + b"live")
    world.step()
    (live,) = viewer.packets()
    assert (live.sequence - replayed[-1].sequence) & 0xFFFF == 1
    assert (live.timestamp - replayed[-1].timestamp) & 0xFFFFFFFF == 3000


def test_live_packets_wait_their_turn_while_a_large_cached_picture_is_paced(world: World) -> None:
    sources, _ = world.broadcaster("video")
    source = sources["video"]
    source.send(SPS, PPS, IDR, *[SLICE + bytes(1000)] * 100)
    world.step()
    viewer, _, _ = world.viewer("video")
    assert 0 < len(viewer.packets()) <= 16, "not the whole picture in one burst"
    source.send(SLICE + b"live")
    world.step()
    world.settle()
    rest = viewer.packets()
    assert rest[-1].payload == SLICE + b"live"
    assert [(b.sequence - a.sequence) & 0xFFFF for a, b in itertools.pairwise(rest)] == [1] * (len(rest) - 1)


def test_a_viewer_past_the_cache_waits_for_a_keyframe_rather_than_decode_rubbish(world: World) -> None:
    sources, _ = world.broadcaster("video")
    source = sources["video"]
    source.send(SPS, PPS, IDR)
    world.pass_time(2.5)
    viewer, _, _ = world.viewer("video")
    source.send(SLICE)
    world.step()
    assert viewer.packets() == []
    source.send(SPS, PPS, IDR)
    world.step()
    assert [p.payload for p in viewer.packets()] == [SPS, PPS, IDR]


def test_parameter_sets_known_from_the_sdp_only_come_before_each_keyframe(world: World) -> None:
    sources, _ = world.broadcaster("video", fmtp="packetization-mode=1;sprop-parameter-sets=Z3Nwcw==,aHBwcw==")
    viewer, _, _ = world.viewer("video")
    source = sources["video"]
    source.send(IDR + b"1", IDR + b"2")
    source.send(SLICE)
    world.step()
    source.send(IDR)
    world.step()
    got = viewer.packets()
    assert [p.payload for p in got] == [SPS, PPS, IDR + b"1", IDR + b"2", SLICE, SPS, PPS, IDR]
    assert [(p.sequence - got[0].sequence) & 0xFFFF for p in got] == list(range(8))
    assert got[0].timestamp == got[3].timestamp


def test_amr_is_repacked_for_a_viewer_that_negotiated_the_other_layout(world: World) -> None:
    frame = AmrFrame(7, os.urandom(30) + b"\xf0")
    sources, _ = world.broadcaster("audio", fmtp="octet-align=1")
    aligned, _, _ = world.viewer("audio", fmtp="octet-align=1")
    efficient, _, _ = world.viewer("audio")
    payload = build([frame], octet_align=True)
    sources["audio"].send(payload)
    world.step()
    assert [p.payload for p in aligned.packets()] == [payload]
    (packet,) = efficient.packets()
    assert len(packet.payload) == len(payload) - 1
    assert parse(packet.payload, octet_align=False).frames == parse(payload, octet_align=True).frames


def test_what_cannot_be_repacked_is_left_out_without_a_gap(world: World) -> None:
    sources, _ = world.broadcaster("audio", fmtp="octet-align=1")
    viewer, _, _ = world.viewer("audio")
    good = build([AmrFrame(7, bytes(31))], octet_align=True)
    sources["audio"].send(good)
    sources["audio"].send(b"\xf0\x64")
    sources["audio"].send(good)
    world.step()
    one, two = viewer.packets()
    assert (two.sequence - one.sequence) & 0xFFFF == 1


def test_hold_pauses_one_leg_only_and_resuming_leaves_no_gap(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, spec, _ = world.viewer("audio")
    other, _, _ = world.viewer("audio")
    source = sources["audio"]
    source.send(b"1")
    world.step()
    world.do(UpdateLeg("1001", 1, held(spec)))
    source.send(b"2")
    world.step()
    world.do(UpdateLeg("1001", 1, spec))
    source.send(b"3")
    world.step()
    one, three = viewer.packets()
    assert (one.payload, three.payload) == (b"1", b"3")
    assert (three.sequence - one.sequence) & 0xFFFF == 1
    assert (three.timestamp - one.timestamp) & 0xFFFFFFFF == 320
    assert [p.payload for p in other.packets()] == [b"1", b"2", b"3"]


def test_a_replaced_source_is_one_continuation_for_viewers(world: World) -> None:
    sources, _ = world.broadcaster("video")
    viewer, _, _ = world.viewer("video")
    source = sources["video"]
    source.send(SPS, PPS, IDR)
    source.send(SLICE)
    world.step()
    world.pass_time(2.0)
    again = world.peer("video")
    leg = LegSpec("again", "1001", HOST, (again.spec(receives=True),))
    info = expect(world.do(ReplaceSource("1001", 1, leg)), LegInfo)
    second = Source(again, info.media[0].rtp, ssrc=0x1234, sequence=7, timestamp=99)
    second.send(SPS, PPS, IDR)
    source.send(b"\x41from the old source")
    world.step()
    got = viewer.packets()
    assert [p.payload for p in got] == [SPS, PPS, IDR, SLICE, SPS, PPS, IDR]
    assert len({p.ssrc for p in got}) == 1
    assert [(p.sequence - got[0].sequence) & 0xFFFF for p in got] == list(range(7))
    assert (got[4].timestamp - got[3].timestamp) & 0xFFFFFFFF == 2 * 90000


def test_a_nack_is_answered_with_the_very_packet_and_within_bounds(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    viewer, _, place = world.viewer("audio")
    for i in range(10):
        sources["audio"].send(b"%d" % i)
    world.step()
    got = viewer.packets()
    viewer.send_rtcp(place.rtcp, Nack(1, got[3].ssrc, (got[3].sequence, got[5].sequence)))
    world.step()
    assert viewer.packets() == [got[3], got[5]]
    for _ in range(200):
        viewer.send_rtcp(place.rtcp, Nack(1, got[3].ssrc, tuple(p.sequence for p in got)))
    world.step()
    assert len(viewer.packets()) <= 64


def test_packets_are_let_go_after_two_seconds_of_the_stream(world: World) -> None:
    """Nobody can play them any more; a packet as late is no news either."""
    sources, _ = world.broadcaster("video")
    viewer, _, place = world.viewer("video")
    source = sources["video"]
    source.send(IDR)
    late = source.packet(b"late", marker=False)
    for _ in range(70):
        source.send(SLICE)
    world.step()
    got = viewer.packets()
    source.peer.send(late, source.to)
    world.step()
    assert viewer.packets() == [] and len(got) == 71
    lost = (got[0].sequence, got[5].sequence, got[15].sequence, got[60].sequence)
    viewer.send_rtcp(place.rtcp, Nack(1, got[0].ssrc, lost))
    world.step()
    assert viewer.packets() == [got[15], got[60]]


def test_a_dead_viewer_does_not_starve_the_others(world: World) -> None:
    sources, _ = world.broadcaster("audio")
    dead, spec, _ = world.viewer("audio")
    alive = [world.viewer("audio")[0] for _ in range(3)]
    dead.close()
    for i in range(50):
        sources["audio"].send(b"%d" % i)
        world.step()
    assert [len(viewer.packets()) for viewer in alive] == [50, 50, 50]
    world.pass_time(4, each=lambda: sources["audio"].send(b"x"))
    lost = [event for event in world.events if type(event).__name__ == "LegLost"]
    assert [(event.leg_id, event.cause) for event in lost] == [(spec.leg_id, "unreachable")]  # type: ignore[union-attr]
    world.peers.remove(dead)


def test_adding_the_same_viewer_again_gives_the_same_answer(world: World) -> None:
    world.broadcaster("audio")
    viewer, spec, place = world.viewer("audio", ice=True)
    again = expect(world.do(AddViewer("1001", 1, spec)), LegInfo)
    assert again.media[0] == place
    assert viewer.packets() == []
