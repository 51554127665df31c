"""Offer and answer of broadcasts: what a group gets from its broadcaster, and what viewers can have of it."""

import pytest

from protocols.control import LegInfo, LegMedia
from protocols.net import Address
from protocols.sdp import parse
from provisioning.config import MediaConfig
from sip_app.broadcast.media import dump_formats, load_formats, plan_leg, plan_source
from sip_app.calls.incoming import Rejected

CONFIG = MediaConfig()
RELAY = LegInfo(
    "leg",
    (
        LegMedia("audio", Address("192.0.2.9", 20000), Address("192.0.2.9", 20001), "ua", "password-of-audio-leg-1"),
        LegMedia("video", Address("192.0.2.9", 20002), Address("192.0.2.9", 20003), "uv", "password-of-video-leg-1"),
    ),
)


def sdp(*lines: str, host: str = "198.51.100.7") -> bytes:
    return "\r\n".join(["v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", *lines, ""]).encode()


AMR_ALIGNED = ("m=audio 4000 RTP/AVP 97 0", "a=rtpmap:97 AMR/8000", "a=fmtp:97 octet-align=1")
AMR_EFFICIENT = ("m=audio 4000 RTP/AVP 98", "a=rtpmap:98 AMR/8000")
PCMU = ("m=audio 4000 RTP/AVP 0",)
H264_MODE_1 = (
    "m=video 4002 RTP/AVP 99",
    "a=rtpmap:99 H264/90000",
    "a=fmtp:99 profile-level-id=42e01f;packetization-mode=1",
    "a=rtcp-fb:99 nack pli",
)
H264_MODE_0 = ("m=video 4002 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 profile-level-id=42e00c")


def test_a_broadcaster_is_taken_at_its_best_configured_format() -> None:
    plan = plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG)
    assert [(fmt.kind, fmt.codec) for fmt in plan.formats] == [("audio", "AMR"), ("video", "H264")]
    assert [spec.receives for spec in plan.leg("l", "1001", "198.51.100.7").media] == [True, True]
    assert not any(spec.sends for spec in plan.leg("l", "1001", "198.51.100.7").media)


def test_the_answer_names_the_relay_and_takes_phone_audio_both_ways_and_video_one_way() -> None:
    answer = parse(plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG).answer(RELAY, 7, 1, 1_500_000))
    audio, video = answer.media
    assert (audio.port, audio.direction, audio.connection) == (20000, "sendrecv", "192.0.2.9")
    assert (video.port, video.direction) == (20002, "recvonly")
    assert video.formats[0].feedback == ("nack pli",), "feedback only as far as offered"
    assert dict(video.bandwidth) == {"AS": 1500}
    assert (answer.origin.session_id, answer.origin.version) == (7, 1)
    assert not answer.ice_lite


def test_an_explicit_direction_is_honoured() -> None:
    offer = sdp(*AMR_ALIGNED, "a=sendonly", *H264_MODE_1, "a=sendonly")
    assert [media.direction for media in parse(plan_source(offer, CONFIG).answer(RELAY, 1)).media] == ["recvonly"] * 2


def test_ice_is_answered_with_the_legs_own_credentials() -> None:
    ice = ("a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901")
    plan = plan_source(sdp(*AMR_ALIGNED, *ice, *H264_MODE_1, *ice), CONFIG)
    answer = parse(plan.answer(RELAY, 1))
    assert plan.ice
    assert answer.ice_lite
    assert [media.ice_ufrag for media in answer.media] == ["ua", "uv"]
    assert [(c.component, c.port) for c in answer.media[1].candidates] == [(1, 20002), (2, 20003)]


def test_an_amr_viewer_may_have_the_other_packing_but_never_another_codec() -> None:
    group = plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG).formats
    other = plan_leg(sdp(*AMR_EFFICIENT, *H264_MODE_1), "sink", group)
    assert [spec.payload_type for spec in other.leg("l", "1002", "198.51.100.7").media] == [98, 99]
    no_amr = plan_leg(sdp(*PCMU, *H264_MODE_1), "sink", group)
    refused, video = parse(no_amr.answer(RELAY, 1)).media
    assert refused.port == 0
    assert (video.port, video.direction) == (20002, "sendonly")


def test_an_audio_only_phone_may_listen() -> None:
    group = plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG).formats
    (audio,) = parse(plan_leg(sdp(*AMR_ALIGNED), "sink", group).answer(RELAY, 1)).media
    assert (audio.port, audio.direction) == (20000, "sendrecv")


def test_nothing_in_common_is_488_and_says_what_there_is() -> None:
    group = plan_source(sdp(*AMR_ALIGNED), CONFIG).formats
    with pytest.raises(Rejected) as refusal:
        plan_leg(sdp(*PCMU), "sink", group)
    assert refusal.value.status == 488
    assert "AMR/8000" in dict(refusal.value.headers)["Warning"]


def test_a_mode_0_receiver_never_gets_a_mode_1_stream_but_the_other_way_round_is_fine() -> None:
    mode_1 = plan_source(sdp(*H264_MODE_1), CONFIG).formats
    mode_0 = plan_source(sdp(*H264_MODE_0), CONFIG).formats
    with pytest.raises(Rejected):
        plan_leg(sdp(*H264_MODE_0), "sink", mode_1)
    assert plan_leg(sdp(*H264_MODE_1), "sink", mode_0).chosen
    assert plan_leg(sdp(*H264_MODE_0), "source", mode_1).chosen
    with pytest.raises(Rejected):
        plan_leg(sdp(*H264_MODE_1), "source", mode_0)


@pytest.mark.parametrize("host", ["evil.example.com", "0.0.0.0"])
def test_names_are_never_looked_up_and_a_null_address_gets_nothing(host: str) -> None:
    group = plan_source(sdp(*AMR_ALIGNED), CONFIG).formats
    (spec,) = plan_leg(sdp(*AMR_ALIGNED, host=host), "sink", group).leg("l", "1002", "198.51.100.7").media
    assert spec.rtp.host == "0.0.0.0"
    assert not spec.sends


def test_srtp_and_rtp_over_tcp_lines_are_refused_not_misread() -> None:
    offer = sdp("m=audio 4000 RTP/SAVP 0", "m=audio 9 TCP/RTP/AVP 0", *H264_MODE_1)
    srtp, tcp, video = parse(plan_source(offer, CONFIG).answer(RELAY, 1)).media
    assert (srtp.port, tcp.port) == (0, 0)
    assert video.port == 20002


def test_an_invite_with_an_unreadable_offer_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        plan_source(b"not sdp", CONFIG)
    assert refusal.value.status == 400


def test_an_invite_without_an_offer_gets_ours_in_formats_most_phones_have() -> None:
    plan = plan_source(b"", CONFIG)
    audio, video = parse(plan.answer(RELAY, 1)).media
    assert plan.ours
    assert (audio.port, audio.direction, [fmt.name for fmt in audio.formats]) == (20000, "sendrecv", ["PCMU"])
    assert (video.port, video.direction, [fmt.name for fmt in video.formats]) == (20002, "recvonly", ["H264"])
    assert not any(medium.sends for medium in plan.leg("1", "1001", "10.0.0.1").media), "nobody has said where to"


def test_our_offer_to_a_viewer_is_what_the_group_has() -> None:
    formats = plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG).formats
    audio, video = parse(plan_leg(b"", "sink", formats).answer(RELAY, 1)).media
    assert audio.formats[0].name == "AMR" and "octet-align=1" in audio.formats[0].fmtp
    assert video.direction == "sendonly" and "packetization-mode=1" in video.formats[0].fmtp


def test_formats_survive_the_store() -> None:
    formats = plan_source(sdp(*AMR_ALIGNED, *H264_MODE_1), CONFIG).formats
    assert load_formats(dump_formats(formats)) == formats
