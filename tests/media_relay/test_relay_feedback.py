"""RTCP: sender reports on the viewer's timeline, receiver reports to the source, keyframe requests held in bounds."""

import itertools
from collections.abc import Callable

from relay_world import IDR, PPS, SLICE, SPS, Peer, Source, World

from protocols.control import KeyframeWanted, LegMedia
from protocols.rtp.rtcp import (
    Fir,
    Nack,
    Pli,
    ReceiverReport,
    SenderReport,
    SourceDescription,
    Tmmbn,
    Tmmbr,
    ntp_time,
    unix_time,
)


def live(world: World) -> tuple[Source, LegMedia]:
    """A video broadcaster that sends and reports, at 10 pictures a second, keyframe first."""
    sources, info = world.broadcaster("video")
    source = sources["video"]
    source.frame = 9000
    source.send(SPS, PPS, IDR)
    source.peer.send_rtcp(info.media[0].rtcp, ReceiverReport(source.ssrc))
    world.pass_time(3, each=lambda: source.send(SLICE))
    source.peer.reports()
    return source, info.media[0]


def requests(source: Source) -> list[str]:
    return [type(packet).__name__ for packet in source.peer.reports() if isinstance(packet, Pli | Fir)]


def asker(viewer: Peer, place: LegMedia, source: Source, ssrc: int) -> Callable[[], None]:
    def ask() -> None:
        viewer.send_rtcp(place.rtcp, Pli(1, ssrc))
        source.send(SLICE)

    return ask


def test_a_viewer_that_starts_without_a_picture_costs_one_request(world: World) -> None:
    source, _ = live(world)
    for _ in range(5):
        world.viewer("video")
    assert requests(source) == ["Pli"]
    world.pass_time(0.5, each=lambda: source.send(SLICE))
    assert requests(source) == []
    source.send(SPS, PPS, IDR)
    world.pass_time(5, each=lambda: source.send(SLICE))
    assert requests(source) == []


def test_an_unheeded_pli_becomes_a_fir_and_then_a_wish_for_sip_info(world: World) -> None:
    source, _ = live(world)
    world.viewer("video")
    world.pass_time(3.5, each=lambda: source.send(SLICE))
    assert requests(source) == ["Pli", "Fir"]
    assert KeyframeWanted("1001", 1) in world.events


def test_one_viewers_requests_count_once_in_five_seconds_with_back_off(world: World) -> None:
    source, _ = live(world)
    source.send(SPS, PPS, IDR)
    world.step()
    viewer, _, place = world.viewer("video")
    world.settle()
    ssrc = viewer.packets()[0].ssrc
    ask = asker(viewer, place, source, ssrc)
    asked = 0
    for _ in range(200):
        ask()
        world.pass_time(0.1)
        if requests(source):
            asked += 1
            source.send(SPS, PPS, IDR)
            world.step()
    assert asked == 3, "at 0, 5 and 15 seconds"


def test_many_viewers_requests_are_at_most_one_a_second(world: World) -> None:
    source, _ = live(world)
    source.send(SPS, PPS, IDR)
    world.step()
    viewers = [world.viewer("video") for _ in range(5)]
    world.settle()
    ssrcs = [viewer.packets()[0].ssrc for viewer, _, _ in viewers]
    asked: list[float] = []
    for (viewer, _, place), ssrc in zip(viewers, ssrcs, strict=True):
        viewer.send_rtcp(place.rtcp, Pli(1, ssrc))
        world.step()
        asked += [world.now] * len(requests(source))
        source.send(SPS, PPS, IDR)
        world.pass_time(0.1)
    for _ in range(20):
        source.send(SLICE)
        viewers[0][0].send_rtcp(place.rtcp, Pli(1, ssrcs[0]))
        world.pass_time(0.1)
        asked += [world.now] * len(requests(source))
    assert len(asked) in (1, 2)
    assert all(b - a >= 1 for a, b in itertools.pairwise(asked))


def test_a_request_about_another_stream_counts_for_nothing(world: World) -> None:
    source, _ = live(world)
    source.send(SPS, PPS, IDR)
    world.step()
    viewer, _, place = world.viewer("video")
    world.settle()
    viewer.send_rtcp(place.rtcp, Pli(1, 12345))
    world.pass_time(1, each=lambda: source.send(SLICE))
    assert requests(source) == []


def test_sender_reports_place_the_rewritten_timestamps_on_one_clock(world: World) -> None:
    sources, info = world.broadcaster("audio", "video")
    audio, _, _ = world.viewer("audio")
    video, _, _ = world.viewer("video")
    captured = 1_600_000_000.0  # the source's clock has nothing to do with ours
    for source, media, rate in zip(sources.values(), info.media, (8000, 90000), strict=True):
        source.send(SPS)
        source.peer.send_rtcp(
            media.rtcp,
            SenderReport(source.ssrc, ntp_time(captured), (source.timestamp - source.frame) % 2**32, 1, 1),
        )
        source.frame = rate // 10
    world.step()
    _sign_of_life(world, audio, video)

    def send_both() -> None:
        for source in sources.values():
            source.send(SPS)

    world.pass_time(1.5, each=send_both)
    for viewer, rate in ((audio, 8000), (video, 90000)):
        newest = viewer.packets()[-1]
        report = next(packet for packet in viewer.reports() if isinstance(packet, SenderReport))
        behind = (newest.timestamp - report.rtp_timestamp) % 2**32
        behind -= 2**32 if behind > 2**31 else 0
        at = unix_time(report.ntp) - captured + behind / rate
        assert abs(at - 1.5) < 0.15, "the newest packet was captured 1.5 s after the source's report"
        assert report.ssrc == newest.ssrc


def _sign_of_life(world: World, *viewers: Peer) -> None:
    for viewer in viewers:
        place = next(
            medium.port.rtcp_address
            for leg in world.relay.groups.by_id["1001"].legs.values()
            for medium in leg.media.values()
            if medium.spec.rtp == viewer.address
        )
        viewer.send_rtcp(place, ReceiverReport(1))
    world.step()


def test_all_streams_of_a_viewer_carry_one_cname(world: World) -> None:
    source, _ = live(world)
    source.send(SPS, PPS, IDR)
    world.step()
    viewer, _, _ = world.viewer("video")
    _sign_of_life(world, viewer)
    world.pass_time(6)
    names = {chunk[1][0][1] for p in viewer.reports() if isinstance(p, SourceDescription) for chunk in p.chunks}
    assert len(names) == 1


def test_the_source_hears_how_much_was_lost(world: World) -> None:
    source, _ = live(world)
    for _ in range(10):
        source.send(SLICE)
        source.packet(SLICE)  # never sent
    world.pass_time(6)
    blocks = [block for p in source.peer.reports() if isinstance(p, ReceiverReport) for block in p.reports]
    assert blocks and blocks[-1].ssrc == source.ssrc
    assert blocks[-1].cumulative_lost == 9


def test_a_viewers_rate_request_is_acknowledged(world: World) -> None:
    live(world)
    viewer, _, place = world.viewer("video")
    viewer.send_rtcp(place.rtcp, Tmmbr(1, ((7, 500_000, 40),)))
    world.step()
    assert any(isinstance(packet, Tmmbn) for packet in viewer.reports())


def losing(world: World, *feedback: str) -> tuple[Source, Peer]:
    """A broadcaster whose 65,532nd to 1st packets were lost on their way, but for the one that came late."""
    sources, info = world.broadcaster("video", feedback=feedback)
    viewer, _, _ = world.viewer("video")
    source = sources["video"]
    source.send(SPS, PPS)
    source.peer.send_rtcp(info.media[0].rtcp, ReceiverReport(source.ssrc))
    world.step()
    lost = [source.packet(SLICE) for _ in range(6)]
    source.send(SLICE)
    source.peer.send(lost[3], source.to)
    world.step()
    return source, viewer


def test_a_source_that_repeats_is_asked_at_once_for_what_a_burst_lacks_and_viewers_get_it_in_its_place(
    world: World,
) -> None:
    source, viewer = losing(world, "nack", "nack pli")
    asked = [packet for packet in source.peer.reports() if isinstance(packet, Nack)]
    assert [packet.sequences for packet in asked] == [(65532, 65533, 65534, 0, 1)]
    assert {packet.media for packet in asked} == {source.ssrc}
    before = viewer.packets()[-2:]
    source.sequence = 65536
    source.peer.send(source.packet(SLICE), source.to)
    world.step()
    assert [packet for packet in source.peer.reports() if isinstance(packet, Nack)] == []
    late = viewer.packets()
    assert [(before[0].sequence - packet.sequence) & 0xFFFF for packet in late] == [2]


def test_a_source_that_does_not_repeat_is_not_asked(world: World) -> None:
    source, _ = losing(world, "nack pli", "ccm fir")
    assert [packet for packet in source.peer.reports() if isinstance(packet, Nack)] == []


def test_a_gap_a_keyframe_fills_sooner_is_not_asked_for(world: World) -> None:
    sources, info = world.broadcaster("video", feedback=("nack",))
    source = sources["video"]
    source.send(SPS, PPS)
    source.peer.send_rtcp(info.media[0].rtcp, ReceiverReport(source.ssrc))
    world.step()
    source.sequence += 100
    source.send(SLICE)
    world.step()
    assert [packet for packet in source.peer.reports() if isinstance(packet, Nack)] == []
