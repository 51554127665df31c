"""Announcements: prompts reach a phone in time and whole, keys are told once, and strangers neither hear nor press."""

from dataclasses import replace

import numpy as np
import pytest
from relay_world import HOST, PT, Peer, World

from media_relay.prompts import FOLDER, payloads
from protocols.control import (
    AddViewer,
    CloseGroup,
    ControlError,
    Digit,
    GroupClosed,
    LegInfo,
    LegLost,
    LegMedia,
    LegPage,
    LegSpec,
    ListLegs,
    MediaSpec,
    OpenAnnouncement,
    PlayPrompt,
    PromptEnded,
    StopPrompt,
    UpdateLeg,
    expect,
)
from protocols.net import Address
from protocols.prompts import LANGUAGES, PROMPTS, Language, Prompt, digits, language_of
from protocols.rtp import amr
from protocols.rtp.g711 import from_ulaw
from protocols.rtp.packet import RtpPacket
from protocols.rtp.telephone_event import build
from provisioning.config import RelayConfig

KEYS = 101


def announced(
    world: World,
    *,
    codec: str = "PCMU",
    fmtp: str = "",
    client: str = HOST,
    group: str = "announcement:a",
    leg: str = "a",
    video: bool = False,
    **options: bool,
) -> tuple[Peer, LegSpec, tuple[LegMedia, ...]]:
    """Open an announcement for a new phone."""
    peers = [world.peer("audio"), *([world.peer("video")] if video else [])]
    media = [replace(peer.spec(sends=True, **options), codec=codec, fmtp=fmtp) for peer in peers[:1]]
    media = [replace(medium, telephone_event=KEYS) for medium in media] + [p.spec(sends=True) for p in peers[1:]]
    spec = LegSpec(leg, "2001", client, tuple(media))
    info = expect(world.do(OpenAnnouncement(group, 0, spec)), LegInfo)
    return peers[0], spec, info.media


def play(world: World, *prompts: Prompt, number: int = 1, language: Language = "en", leg: str = "a") -> None:
    world.do(PlayPrompt(f"announcement:{leg}", 0, leg, number, prompts, language))


def endings(world: World) -> list[tuple[int, str]]:
    return [(event.play, event.cause) for event in world.events if isinstance(event, PromptEnded)]


def pressed(world: World) -> str:
    return "".join(event.digit for event in world.events if isinstance(event, Digit))


def press(peer: Peer, key: str, to: Address, *, timestamp: int = 0, sequence: int = 1) -> None:
    for place, event in enumerate(build(key, 800)):
        peer.send(RtpPacket(KEYS, sequence + place, timestamp, 7, event.serialise(), marker=place == 0), to)


def listen(world: World, peer: Peer, seconds: float) -> list[tuple[float, RtpPacket]]:
    heard: list[tuple[float, RtpPacket]] = []

    def take() -> None:
        heard.extend((world.now, packet) for packet in peer.packets())

    world.pass_time(seconds, every=0.02, each=take)
    take()
    return heard


def recording(*prompts: Prompt, language: Language = "en") -> bytes:
    return b"".join((FOLDER / language / f"{name}.ulaw").read_bytes() for name in prompts)


def test_a_phone_hears_the_prompts_one_after_the_other_in_real_time(world: World) -> None:
    peer, _, _ = announced(world)
    began = world.now
    play(world, "3", "1", language="zh")
    sound = recording("3", "1", language="zh")
    heard = listen(world, peer, 2.0)
    packets = [packet for _, packet in heard]
    assert b"".join(packet.payload for packet in packets) == sound
    assert {len(packet.payload) for packet in packets} == {160}
    numbers = [packet.sequence - packets[0].sequence & 0xFFFF for packet in packets]
    times = [packet.timestamp - packets[0].timestamp & 0xFFFFFFFF for packet in packets]
    assert numbers == list(range(len(packets)))
    assert times == [160 * number for number in numbers]
    assert [packet.marker for packet in packets] == [True] + [False] * (len(packets) - 1)
    late = [at - began - 0.02 * place for place, (at, _) in enumerate(heard)]
    assert max(late) <= 0.041
    assert endings(world) == [(1, "played")]


def test_the_stream_goes_on_after_a_silence_under_the_same_name(world: World) -> None:
    peer, _, _ = announced(world)
    play(world, "1", language="zh")
    first = [packet for _, packet in listen(world, peer, 1.0)]
    world.pass_time(2.0)
    play(world, "2", number=2, language="zh")
    second = [packet for _, packet in listen(world, peer, 1.0)]
    assert first[0].ssrc == second[0].ssrc
    assert second[0].sequence == (first[-1].sequence + 1) & 0xFFFF
    assert second[0].marker
    gap = (second[0].timestamp - first[0].timestamp & 0xFFFFFFFF) / 8000
    assert gap == pytest.approx(3.0, abs=0.05)
    assert endings(world) == [(1, "played"), (2, "played")]


def test_the_same_wish_again_is_no_second_prompt(world: World) -> None:
    peer, _, _ = announced(world)
    play(world, "1")
    play(world, "1")
    listen(world, peer, 2.5)
    play(world, "1")
    assert listen(world, peer, 1.0) == []
    assert endings(world) == [(1, "played")]


def test_a_relay_that_was_held_up_sends_no_burst(world: World) -> None:
    peer, _, _ = announced(world)
    play(world, "active")
    listen(world, peer, 0.5)
    world.now += 1.0
    world.step()
    burst = [packet for _, packet in listen(world, peer, 0.04)]
    assert 0 < len(burst) <= 5
    assert burst[0].marker


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "AMR"])
def test_every_prompt_is_there_in_every_language_and_codec(codec: str, language: Language) -> None:
    nowhere = Address("192.0.2.1", 1)
    spec = MediaSpec("audio", codec, 0, 8000, True, True, nowhere, nowhere, "octet-align=1" if codec == "AMR" else "")
    for name in PROMPTS:
        assert 0.3 < 0.02 * len(payloads(name, language, spec)) < 6, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_are_equally_loud_and_never_clipped(language: Language) -> None:
    for name in PROMPTS:
        sound = np.array(from_ulaw(recording(name, language=language))) / 32768
        levels = np.sqrt(np.mean(sound.reshape(-1, 160) ** 2, axis=1))
        speech = 20 * np.log10(np.sqrt(np.mean(levels[levels > 0.01] ** 2)))
        assert speech == pytest.approx(-20, abs=1.5), name
        assert np.max(np.abs(sound)) < 0.95, name
        assert np.flatnonzero(levels > 0.01)[0] < 10, f"{name} begins late"


@pytest.mark.parametrize("fmtp", ["", "octet-align=1", "octet-align=1;mode-set=0,2,4,7"])
def test_amr_comes_in_the_packing_that_was_negotiated(world: World, fmtp: str) -> None:
    peer, _, _ = announced(world, codec="AMR", fmtp=fmtp)
    play(world, "1")
    packets = [packet for _, packet in listen(world, peer, 1.0)]
    for packet in packets:
        parsed = amr.parse(packet.payload, octet_align="octet-align" in fmtp)
        assert [frame.type for frame in parsed.frames] in ([7], [8], [15])
    assert len(packets) > 20


@pytest.mark.parametrize(("codec", "fmtp"), [("AMR-WB", ""), ("AMR", "mode-set=0,1"), ("opus", "")])
def test_a_codec_without_recordings_is_refused(world: World, codec: str, fmtp: str) -> None:
    announced(world, codec=codec, fmtp=fmtp)
    with pytest.raises(ControlError) as refused:
        play(world, "1")
    assert refused.value.code == "unsupported"


def test_a_phone_behind_nat_hears_the_whole_prompt_once_it_has_been_heard(world: World) -> None:
    peer, _, (place,) = announced(world, client="127.0.0.9")
    play(world, "1", language="zh")
    assert listen(world, peer, 3.0) == []
    peer.send(RtpPacket(PT["audio"], 1, 1, 1, b"hello"), place.rtp)
    heard = listen(world, peer, 1.0)
    assert b"".join(packet.payload for _, packet in heard) == recording("1", language="zh")
    assert endings(world) == [(1, "played")]


def test_an_address_that_never_proves_itself_is_sent_nothing_and_the_prompt_given_up(world: World) -> None:
    peer, _, (place,) = announced(world, client="127.0.0.9")
    stranger = world.peer("audio", "127.0.0.5")
    play(world, "active")
    stranger.send(RtpPacket(PT["audio"], 1, 1, 1, b"me"), place.rtp)
    assert listen(world, peer, 12.0) == []
    assert listen(world, stranger, 0.1) == []
    assert endings(world) == [(1, "unheard")]


def test_a_phone_that_never_answers_is_cut(world: World) -> None:
    announced(world)
    world.pass_time(world.config.unanswered_timeout + 2, every=0.5)
    assert any(isinstance(event, LegLost) and event.cause == "unanswered" for event in world.events)


def test_keys_are_told_once_each_with_their_duration(world: World) -> None:
    peer, _, (place,) = announced(world)
    for count, key in enumerate("1003#"):
        press(peer, key, place.rtp, timestamp=1600 * count, sequence=10 * count)
        press(peer, key, place.rtp, timestamp=1600 * count, sequence=10 * count)  # the network doubles it
        world.step()
    assert pressed(world) == "1003#"
    digit = next(event for event in world.events if isinstance(event, Digit))
    assert digit == Digit("announcement:a", 0, "a", "1", 100)


def test_a_key_whose_release_is_lost_still_counts(world: World) -> None:
    peer, _, (place,) = announced(world)
    peer.send(RtpPacket(KEYS, 1, 0, 7, build("5", 800)[0].serialise()), place.rtp)
    world.step()
    assert pressed(world) == ""
    world.pass_time(1.5)
    assert pressed(world) == "5"


def test_nobody_else_can_press_keys(world: World) -> None:
    _, _, (place,) = announced(world)
    for host in (HOST, "127.0.0.5"):
        press(world.peer("audio", host), "9", place.rtp)
    world.step()
    assert pressed(world) == ""


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\xff\xff\xff\xff", b"\x00" * 900])
def test_garbage_for_keys_changes_nothing(world: World, payload: bytes) -> None:
    peer, _, (place,) = announced(world)
    peer.send(RtpPacket(KEYS, 1, 0, 7, payload), place.rtp)
    world.step()
    world.pass_time(2)
    press(peer, "4", place.rtp, timestamp=90_000)
    world.step()
    assert pressed(world).endswith("4")


def test_silence_on_request_and_on_hold(world: World) -> None:
    peer, spec, _ = announced(world)
    play(world, "active")
    play(world, "1", number=2)
    assert listen(world, peer, 0.2)
    world.do(UpdateLeg("announcement:a", 0, replace(spec, media=(replace(spec.media[0], sends=False),))))
    peer.packets()
    assert listen(world, peer, 1.0) == []
    world.do(UpdateLeg("announcement:a", 0, spec))
    assert listen(world, peer, 0.2)[0][1].marker
    world.do(StopPrompt("announcement:a", 0, "a"))
    assert endings(world) == [(1, "stopped"), (2, "stopped")]
    peer.packets()
    assert listen(world, peer, 0.5) == []


def test_announcements_and_their_prompts_are_bounded() -> None:
    world = World(RelayConfig(port_min=30000, port_max=30999, max_announcements=2, max_prompts=3))
    try:
        announced(world)
        announced(world, group="announcement:b", leg="b")
        with pytest.raises(ControlError) as refused:
            announced(world, group="announcement:c", leg="c")
        assert refused.value.code == "limit"
        with pytest.raises(ControlError) as refused:
            play(world, *digits("1003"))
        assert refused.value.code == "limit"
        for number in range(3):
            play(world, "1", number=number)
        with pytest.raises(ControlError) as refused:
            play(world, "1", number=9)
        assert refused.value.code == "limit"
        world.do(CloseGroup("announcement:b", 0))
        announced(world, group="announcement:c", leg="c")
    finally:
        world.close()


def test_an_announcement_is_its_owners_listed_and_closed_like_a_group(world: World) -> None:
    peer, spec, places = announced(world)
    assert expect(world.do(OpenAnnouncement("announcement:a", 0, spec)), LegInfo).media == places
    play(world, "1")
    listen(world, peer, 0.5)
    (row,) = expect(world.do(ListLegs()), LegPage).rows
    assert (row.group_id, row.leg_id, row.role) == ("announcement:a", "a", "announcement")
    assert row.packets > 10
    assert expect(world.do(ListLegs(), "as2"), LegPage).rows == ()
    with pytest.raises(ControlError) as refused:
        world.do(PlayPrompt("announcement:a", 0, "a", 2, ("1",), "en"), "as2")
    assert refused.value.code == "not-owner"
    with pytest.raises(ControlError) as refused:
        world.do(AddViewer("announcement:a", 0, replace(spec, leg_id="b")))
    assert refused.value.code == "bad-request"
    ports = len(world.relay.groups.ports)
    world.do(CloseGroup("announcement:a", 0))
    assert len(world.relay.groups.ports) == ports - 1
    world.do(CloseGroup("announcement:a", 0))
    peer.packets()
    assert listen(world, peer, 0.5) == []


def test_an_announcement_without_its_server_goes_on_for_the_grace_and_then_closes(world: World) -> None:
    announced(world)
    world.owners.clear()
    world.pass_time(world.config.orphan_grace - 1, every=0.5)
    assert world.relay.groups.by_id
    world.pass_time(2, every=0.5)
    assert not world.relay.groups.by_id
    assert GroupClosed("announcement:a", 0, "orphaned") in world.events


def test_who_was_announced_to_becomes_a_viewer_at_the_same_address(world: World) -> None:
    sources, _ = world.broadcaster("audio", codec="PCMU")
    sources["audio"].send(b"before")
    world.step()
    peer, spec, places = announced(world)
    play(world, "active")
    spoken = [packet for _, packet in listen(world, peer, 0.3)]
    sources["audio"].send(b"not for who is being asked")
    world.step()
    assert not [packet for packet in peer.packets() if packet.payload.startswith(b"not for")]

    info = expect(world.do(AddViewer("1001", 1, spec)), LegInfo)
    assert info.media == places
    assert set(world.relay.groups.by_id) == {"1001"}
    peer.packets()
    sources["audio"].send(b"welcome")
    world.step()
    (packet,) = peer.packets()
    assert packet.payload == b"welcome"
    assert packet.ssrc != spoken[0].ssrc
    world.pass_time(1.0, every=0.02)
    assert peer.packets() == []  # the prompt is over
    assert expect(world.do(AddViewer("1001", 1, spec)), LegInfo).media == places
    world.do(CloseGroup("1001", 1))
    assert len(world.relay.groups.ports) == 0


def test_keys_of_a_broadcaster_do_not_reach_viewers(world: World) -> None:
    sources, info = world.broadcaster("audio")
    viewer, _, _ = world.viewer("audio")
    source = sources["audio"]
    source.send(b"sound")
    press(source.peer, "1", info.media[0].rtp)
    world.step()
    assert [packet.payload for packet in viewer.packets()] == [b"sound"]
    assert pressed(world) == ""


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de, zh;q=0.4, en;q=0.7", "en"),
        ("zh;q=0", "en"),
        ("zh;q=x", "en"),
        ("ZH-hans", "zh"),
        ("fr," * 500 + "zh", "en"),
    ],
)
def test_the_language_is_the_one_liked_best_that_is_spoken(accepted: str, language: Language) -> None:
    assert language_of(accepted, "en") == language
