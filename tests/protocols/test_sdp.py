"""Session descriptions: real phones' offers, round trips, and what must be refused.

The samples of baresip and pjsua2 were captured from the wire; linphone's was put together from its public logs.
"""

from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sdp import Candidate, Format, Media, Origin, SdpError, SessionDescription, parse

SAMPLES = Path(__file__).parent / "sdp_samples"


def sample(name: str) -> SessionDescription:
    return parse((SAMPLES / f"{name}.sdp").read_bytes())


def test_baresip_offers_amr_and_two_kinds_of_h264() -> None:
    audio, video = sample("baresip-1.0").media
    assert (audio.kind, audio.port, audio.connection, audio.direction) == ("audio", 46076, "192.0.2.2", "sendrecv")
    assert audio.format(97) == Format(97, "AMR", 8000, fmtp="octet-align=1")
    assert audio.format(98) == Format(98, "opus", 48000, 2, "stereo=1;sprop-stereo=1")
    assert (audio.ptime, audio.label, audio.control_port) == (20, "1", 46077)
    assert [format_.name for format_ in video.formats] == ["H264", "H264", "H263", "MP4V-ES", "H265", "VP8"]
    assert all(format_.feedback == ("nack pli",) for format_ in video.formats)
    assert video.bandwidth == (("AS", 896),)
    assert video.attribute("content") == "main"
    assert video.attribute("rtcp-rsize") == ""


def test_pjsua2_offers_ice() -> None:
    (audio,) = sample("pjsua2-2.15-ice").media
    assert audio.has_ice
    assert (audio.ice_ufrag, audio.ice_pwd) == ("2532a340", "23a4c6ed27644c0a3959bbcf")
    assert audio.control_port == 4006
    assert audio.candidates[0] == Candidate("Hc0000202", 1, "UDP", 2130706431, "192.0.2.2", 4031)
    ours = [Candidate.host("192.0.2.2", 4031), Candidate.host("192.0.2.2", 4006, component=2)]
    assert [candidate.priority for candidate in audio.candidates] == [candidate.priority for candidate in ours]
    assert audio.format(8) == Format(8, "PCMA", 8000)


def test_linphone_wildcard_feedback_reaches_every_format() -> None:
    description = sample("linphone-5.1")
    audio, video = description.media
    assert audio.format(0) == Format(0, "PCMU", 8000, feedback=("trr-int 1000", "ccm tmmbr"))
    h264 = video.format(97)
    assert h264 is not None
    assert h264.feedback == ("trr-int 5000", "ccm tmmbr", "nack pli", "ccm fir")
    assert description.origin == Origin("1001", 2425, 290, "192.0.2.7")
    assert description.attribute("record") == "off"


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.sdp")), ids=lambda path: path.stem)
def test_real_offers_survive_being_written_again(path: Path) -> None:
    description = parse(path.read_bytes())
    assert parse(description.serialise()) == description


words = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-+/", min_size=1, max_size=12)
numbers = st.integers(0, 0xFFFF)
addresses = st.sampled_from(["127.0.0.1", "192.0.2.7", "2001:db8::1", "phone.example.org"])
formats = st.builds(
    Format,
    payload_type=st.integers(96, 127),
    name=words.map(lambda word: word.replace("/", "")).filter(bool),
    clock_rate=st.integers(1, 192_000),
    channels=st.integers(1, 6),
    fmtp=words | st.just(""),
    feedback=st.lists(st.sampled_from(["nack", "nack pli", "ccm fir", "goog-remb"]), unique=True).map(tuple),
)
candidates = st.builds(
    Candidate,
    foundation=words,
    component=st.integers(1, 256),
    transport=st.sampled_from(["UDP", "TCP"]),
    priority=st.integers(0, 2**32 - 1),
    address=addresses,
    port=numbers,
    type=st.sampled_from(["host", "srflx"]),
    extra=st.lists(st.tuples(words, words), max_size=2).map(tuple),
)
media = st.builds(
    Media,
    kind=st.sampled_from(["audio", "video"]),
    port=numbers,
    protocol=st.sampled_from(["RTP/AVP", "RTP/AVPF", "TCP/RTP/AVP", "RTP/SAVP"]),
    formats=st.lists(formats, min_size=1, max_size=4, unique_by=lambda format_: format_.payload_type).map(tuple),
    connection=addresses,
    direction=st.sampled_from(["sendrecv", "sendonly", "recvonly", "inactive"]),
    bandwidth=st.lists(st.tuples(st.sampled_from(["AS", "TIAS"]), numbers), max_size=2).map(tuple),
    rtcp_port=st.none() | numbers,
    rtcp_mux=st.booleans(),
    ice_ufrag=words | st.just(""),
    ice_pwd=words | st.just(""),
    candidates=st.lists(candidates, max_size=3).map(tuple),
    setup=st.sampled_from(["", "active", "passive", "actpass"]),
    tcp_connection=st.sampled_from(["", "new", "existing"]),
    mid=words | st.just(""),
    label=words | st.just(""),
    ptime=st.none() | st.integers(1, 200),
    attributes=st.lists(st.tuples(words.map("x-{}".format), st.none() | words), max_size=3).map(tuple),
)
descriptions = st.builds(
    SessionDescription,
    origin=st.builds(Origin, words, st.integers(0, 2**63), st.integers(0, 2**63), addresses),
    name=words,
    connection=addresses,
    ice_lite=st.booleans(),
    media=st.lists(media, max_size=3).map(tuple),
)


@given(descriptions)
def test_a_description_survives_the_wire(description: SessionDescription) -> None:
    assert parse(description.serialise()) == description


@given(st.text() | st.binary())
def test_garbage_raises_sdp_error(body: str | bytes) -> None:
    with pytest.raises(SdpError):
        parse(body)


LINES = [
    "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", "m=audio 9 RTP/AVP 0 96",
    "m=video 5000/2 RTP/AVP 97", "m=audio", "c=IN", "b=AS:x", "a=rtpmap:96 AMR/8000", "a=rtpmap:97", "a=rtpmap:x y/z",
    "a=fmtp:97", "a=rtcp-fb:* nack", "a=rtcp:99999999", "a=candidate:1 1 UDP", "a=", "a=ptime:²", "m=audio ² RTP/AVP 0",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=30), max_size=30))
def test_broken_lines_raise_nothing_but_sdp_error(lines: list[str]) -> None:
    text = "\r\n".join([*LINES[:5], *lines])
    try:
        description = parse(text)
    except SdpError:
        return
    assert parse(description.serialise()).media == description.media


OFFERS = [path.read_bytes() for path in sorted(SAMPLES.glob("*.sdp"))]


@given(st.data())
def test_damaged_offers_raise_nothing_but_sdp_error(data: st.DataObject) -> None:
    offer = bytearray(data.draw(st.sampled_from(OFFERS)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(offer) - 1))
        offer[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=10))
    try:
        description = parse(bytes(offer))
    except SdpError:
        return
    parse(description.serialise())


def test_the_worst_offer_that_fits_is_read_quickly() -> None:
    formats_ = " ".join(map(str, range(128)))
    feedback = "".join(f"a=rtcp-fb:* {number}\n" for number in range(1800))
    offer = f"v=0\no=- 1 1 IN IP4 h\nm=video 9 RTP/AVP {formats_}\n{feedback}"
    began = process_time()
    (video,) = parse(offer).media
    assert process_time() - began < 1
    assert len(video.formats[0].feedback) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=1\r\n",
        "v=0\r\ns=no origin\r\n",
        "v=0\no=- 1 1 IN IP4 h\nm=audio 70000 RTP/AVP 0\n",
        "v=0\no=- 1 1 IN IP4 h\nm=audio 7000 RTP/AVP\n",
        "v=0\no=- 1 1 IN IP4 h\n" + "m=audio 9 RTP/AVP 0\n" * 33,
        "v=0\no=- 1 1 IN IP4 h\n" + "a=x\n" * 10_000,
    ],
)
def test_hopeless_descriptions_are_refused(text: str) -> None:
    with pytest.raises(SdpError):
        parse(text)


def test_session_level_values_count_for_every_medium() -> None:
    description = parse(
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP6 2001:db8::1\nt=0 0\na=sendonly\na=ice-lite\n"
        "a=ice-ufrag:abcd\na=ice-pwd:secretsecretsecretsecret\n"
        "m=audio 5000 RTP/AVP 0\nm=video 5002 RTP/AVP 96\nc=IN IP4 192.0.2.9/127\na=recvonly\na=ice-ufrag:efgh\n"
    )
    audio, video = description.media
    assert description.ice_lite
    assert (audio.connection, audio.direction, audio.ice_ufrag) == ("2001:db8::1", "sendonly", "abcd")
    assert (video.connection, video.direction, video.ice_ufrag) == ("192.0.2.9", "recvonly", "efgh")
    assert audio.ice_pwd == video.ice_pwd == "secretsecretsecretsecret"


def test_media_that_is_not_rtp_can_be_carried_along() -> None:
    (image,) = parse("v=0\no=- 1 1 IN IP4 h\nm=image 4000 udptl t38\n").media
    assert (image.is_rtp, image.other_formats) == (False, ("t38",))
    assert b"m=image 4000 udptl t38" in SessionDescription(media=(image,)).serialise()


def test_credentials_stay_out_of_reprs() -> None:
    description = parse(
        "v=0\no=- 1 1 IN IP4 h\nm=audio 9 RTP/SAVP 0\na=ice-ufrag:abcd\na=ice-pwd:TOPSECRET\n"
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:TOPSECRET\n"
    )
    assert "TOPSECRET" not in repr(description)
    assert description.media[0].attribute("crypto") == "1 AES_CM_128_HMAC_SHA1_80 inline:TOPSECRET"


def test_no_value_can_smuggle_in_a_line() -> None:
    with pytest.raises(SdpError):
        SessionDescription(name="x\r\nm=audio 1 RTP/AVP 0").serialise()


def test_our_own_offer_stays_small() -> None:
    offer = SessionDescription(
        Origin("-", 3999999999, 3999999999, "192.168.100.100"),
        connection="192.168.100.100",
        media=tuple(
            Media(
                kind,
                40000 + 2 * index,
                formats=formats_,
                rtcp_mux=True,
                ice_ufrag="abcdefgh",
                ice_pwd="abcdefghabcdefghabcdefgh",
                candidates=(Candidate.host("192.168.100.100", 40000 + 2 * index),),
            )
            for index, (kind, formats_) in enumerate(
                [
                    ("audio", (Format(96, "AMR", 8000, fmtp="octet-align=1"), Format(0, "PCMU", 8000))),
                    (
                        "video",
                        (
                            Format(
                                99,
                                "H264",
                                90000,
                                fmtp="profile-level-id=42e01f;packetization-mode=1",
                                feedback=("nack pli", "ccm fir"),
                            ),
                        ),
                    ),
                ]
            )
        ),
    ).serialise()
    assert len(offer) < 800
