"""What the phone offers, how it answers, and what it reads from the far end's description."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address
from protocols.sdp import SdpError, parse
from terminal_client.offer import SESSION, answer, describe, describe_inactive, read
from terminal_client.streams import LocalMedia, LocalStream

LOCAL = LocalMedia(
    "192.0.2.7",
    LocalStream(5100, 5101, "aufr", "a" * 22),
    LocalStream(5102, 5103, "vufr", "v" * 22),
)
RELAY = (
    "v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\na=ice-lite\r\n"
    "m=audio 20000 RTP/AVP 96\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align=1\r\na=recvonly\r\na=rtcp-mux\r\n"
    "a=ice-ufrag:rrrr\r\na=ice-pwd:rrrrrrrrrrrrrrrrrrrrrr\r\n"
    "m=video {port} RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\na=fmtp:99 profile-level-id=42e01f;packetization-mode=1\r\n"
    "a=recvonly\r\na=ice-ufrag:ssss\r\na=ice-pwd:ssssssssssssssssssssss\r\n"
)
STOCK_PHONE = (
    "v=0\r\no=- 1 1 IN IP4 203.0.113.9\r\ns=-\r\nc=IN IP4 203.0.113.9\r\nt=0 0\r\n"
    "m=audio 7000 RTP/AVP 8 0\r\nm=image 7004 udptl t38\r\n"
    "m=video 7002 RTP/AVP 102\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 profile-level-id=42e01f\r\na=sendonly\r\n"
)


def test_an_offer_names_our_ports_codecs_and_credentials_and_stays_small() -> None:
    text = describe(LOCAL, "sendonly")
    audio, video = parse(SESSION + text).media
    assert [(f.name, f.fmtp) for f in audio.formats[:2]] == [("AMR", "octet-align=1"), ("AMR", "")]
    assert (audio.port, audio.ice_ufrag, audio.direction) == (5100, "aufr", "sendonly")
    assert (video.port, video.ice_ufrag, video.rtcp_mux) == (5102, "vufr", True)
    assert len(text) < 1000, "INVITE and SDP should fit one datagram"


def test_keys_are_offered_and_a_viewer_may_press_them_though_it_says_nothing() -> None:
    audio, video = parse(SESSION + describe(LOCAL, "recvonly")).media
    assert (audio.direction, video.direction) == ("sendrecv", "recvonly")
    assert [(f.payload_type, f.clock_rate, f.fmtp) for f in audio.formats if f.is_codec("telephone-event")] == [
        (101, 8000, "0-15")
    ]


@pytest.mark.parametrize(("directions", "keys"), [("", 96), ("a=sendonly\r\n", None)])
def test_keys_go_under_the_number_the_far_end_named_and_only_where_it_listens(
    directions: str, keys: int | None
) -> None:
    phone = STOCK_PHONE.replace(
        "7000 RTP/AVP 8 0\r\n", f"7000 RTP/AVP 8 96\r\na=rtpmap:96 telephone-event/8000\r\n{directions}"
    )
    ours = describe(LOCAL, "sendrecv")
    audio = read(phone, ours).audio
    assert audio is not None
    assert audio.keys == keys
    answered = parse(SESSION + answer(ours, phone)).media[0]
    assert [f.payload_type for f in answered.formats] == [8, 96]


def test_without_amr_the_offer_is_g711() -> None:
    assert "AMR" not in describe(LOCAL, "sendrecv", amr=False)


def test_a_code_call_offers_one_silent_line_that_is_not_refused() -> None:
    (audio,) = parse(SESSION + describe_inactive("192.0.2.7")).media
    assert (audio.port, audio.direction) == (9, "inactive")


def test_the_relays_answer_becomes_what_the_media_side_needs() -> None:
    remote = read(RELAY.format(port=20002), describe(LOCAL, "sendonly"))
    assert remote.audio is not None
    assert remote.video is not None
    assert (remote.audio.codec, remote.audio.payload_type, remote.audio.direction) == ("AMR", 96, "sendonly")
    assert remote.audio.rtcp_mux
    assert remote.audio.rtcp == Address("198.51.100.1", 20000)
    assert (remote.video.address, remote.video.rtcp) == (
        Address("198.51.100.1", 20002),
        Address("198.51.100.1", 20003),
    )
    assert remote.video.ufrag == "ssss"
    assert "s" * 22 not in repr(remote), "credentials stay out of logs"


def test_a_refused_line_is_none_and_the_other_remains() -> None:
    remote = read(RELAY.format(port=0), describe(LOCAL, "sendonly"))
    assert remote.video is None
    assert remote.audio is not None


def test_answering_keeps_the_offers_lines_and_payload_types_and_refuses_what_is_unknown() -> None:
    replied = answer(describe(LOCAL, "sendrecv"), STOCK_PHONE)
    audio, image, video = parse(SESSION + replied).media
    assert [(f.payload_type, f.name) for f in audio.formats] == [(0, "PCMU")]
    assert (image.kind, image.port) == ("image", 0)
    assert (video.formats[0].payload_type, video.port, video.direction) == (102, 5102, "recvonly")
    assert not audio.has_ice, "the caller knows no ICE"


def test_between_two_phones_ice_is_left_out() -> None:
    """Neither answers checks, so neither may wait for them."""
    ours, theirs = describe(LOCAL, "sendrecv"), SESSION + describe(LOCAL, "sendrecv")
    assert "ice-ufrag" not in answer(ours, theirs)
    remote = read(theirs, ours)
    assert remote.audio is not None
    assert remote.audio.ufrag is None


def test_hold_is_answered_inactive_on_the_same_ports() -> None:
    held = RELAY.format(port=20002).replace("a=recvonly", "a=inactive")
    audio, video = parse(SESSION + answer(describe(LOCAL, "sendonly"), held)).media
    assert (audio.port, audio.direction, video.port, video.direction) == (5100, "inactive", 5102, "inactive")


@given(st.text(max_size=400))
def test_garbage_raises_one_error_only(text: str) -> None:
    for reading in (read, lambda theirs, ours: answer(ours, theirs)):
        try:
            reading(RELAY.format(port=20002) + text, describe(LOCAL, "sendonly"))
            reading(text, describe(LOCAL, "sendonly"))
        except SdpError:
            continue


def test_an_answer_that_names_a_host_is_not_looked_up() -> None:
    remote = read(
        RELAY.format(port=20002).replace("IP4 198.51.100.1", "IP4 relay.example"), describe(LOCAL, "sendonly")
    )
    assert (remote.audio, remote.video) == (None, None)


def test_nothing_at_all_is_an_error() -> None:
    with pytest.raises(SdpError):
        read("", describe(LOCAL, "sendonly"))
