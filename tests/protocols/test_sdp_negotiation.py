"""What follows from an offer: directions, codecs, and the m-lines of an answer."""

from pathlib import Path
from typing import get_args

import pytest

from protocols.sdp import (
    AmrFormat,
    Direction,
    Format,
    H264Format,
    Media,
    SessionDescription,
    answer_amr,
    answer_direction,
    answer_h264,
    answer_media,
    matches,
    parse,
    parse_fmtp,
    reject,
    select_format,
)
from protocols.sdp.negotiation import receives, sends

SAMPLES = Path(__file__).parent / "sdp_samples"
AUDIO = ("AMR/8000;octet-align=1", "AMR/8000", "PCMU/8000", "PCMA/8000")
VIDEO = ("H264;packetization-mode=1", "H264;packetization-mode=0")


@pytest.mark.parametrize(
    ("phone", "audio", "video"),
    [("baresip-1.0", 97, 97), ("linphone-5.1", 0, 97), ("pjsua2-2.15-ice", 0, None)],
)
def test_each_stock_phone_gets_the_best_common_codec(phone: str, audio: int, video: int | None) -> None:
    offer = parse((SAMPLES / f"{phone}.sdp").read_bytes())
    chosen = {media.kind: select_format(media, AUDIO if media.kind == "audio" else VIDEO) for media in offer.media}
    audio_format, video_format = chosen["audio"], chosen.get("video")
    assert audio_format is not None
    assert audio_format.payload_type == audio
    assert (video_format and video_format.payload_type) == video


@pytest.mark.parametrize(
    ("offered", "wanted", "answer"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendrecv", "sendonly", "sendonly"),
        ("sendonly", "sendrecv", "recvonly"),
        ("recvonly", "sendrecv", "sendonly"),
        ("recvonly", "recvonly", "inactive"),
        ("sendonly", "sendonly", "inactive"),
        ("inactive", "sendrecv", "inactive"),
    ],
)
def test_directions_mirror(offered: Direction, wanted: Direction, answer: Direction) -> None:
    assert answer_direction(offered, wanted) == answer


def test_nobody_is_sent_what_he_will_not_receive() -> None:
    for offered in get_args(Direction):
        for wanted in get_args(Direction):
            answer = answer_direction(offered, wanted)
            assert not sends(answer) or (receives(offered) and sends(wanted))
            assert not receives(answer) or (sends(offered) and receives(wanted))


@pytest.mark.parametrize(
    ("fmtp", "preference", "result"),
    [
        ("", "AMR/8000", True),
        ("", "AMR/8000;octet-align=1", False),
        ("octet-align=0", "AMR/8000", True),
        ("octet-align=1; mode-set=0,7", "AMR/8000;octet-align=1", True),
        ("octet-align=1;crc=1", "AMR/8000;octet-align=1", False),
        ("interleaving=30", "AMR/8000;octet-align=1", False),
        ("", "AMR-WB/16000", False),
        ("", "AMR/16000", False),
    ],
)
def test_amr_agrees_only_on_equal_alignment(fmtp: str, preference: str, result: bool) -> None:
    assert matches(Format(96, "amr", 8000, fmtp=fmtp), preference) is result


def test_an_amr_answer_echoes_what_changes_the_payload() -> None:
    answer = answer_amr(Format(96, "AMR", 8000, fmtp="mode-set=7,0; octet-align=1; max-red=220"))
    assert answer.fmtp == "octet-align=1;mode-set=0,7"
    assert AmrFormat.from_fmtp("").fmtp() == ""


@pytest.mark.parametrize(
    ("profile_level_id", "profile"),
    [
        (0x42E01F, "constrained-baseline"),
        (0x42C00C, "constrained-baseline"),
        (0x42801F, "baseline"),
        (0x42000A, "baseline"),
        (0x4D0028, "main"),
        (0x4D8028, "constrained-baseline"),
        (0x58C01E, "constrained-baseline"),
        (0x64001F, "high"),
        (0x640C1F, "constrained-high"),
        (0xF4001F, "high-other"),
        (0x000000, "other"),
    ],
)
def test_profiles_are_told_by_their_bits(profile_level_id: int, profile: str) -> None:
    assert H264Format(profile_level_id).profile == profile


def test_h264_without_parameters_is_baseline_level_1_single_nal() -> None:
    for fmtp in ("", "profile-level-id=nonsense;packetization-mode=9;sprop-parameter-sets=!"):
        assert H264Format.from_fmtp(fmtp) == H264Format(0x42000A, 0)


def test_h264_parameters_survive_the_wire() -> None:
    ours = H264Format(0x42E01F, 1, True, (b"\x67\x42\xe0\x1f", b"\x68\xce"))
    assert H264Format.from_fmtp(ours.fmtp()) == ours


def test_level_1b_lies_between_1_and_1_1() -> None:
    levels = [H264Format(value).level_rank for value in (0x42E00A, 0x42F00B, 0x42E00B, 0x42E01F)]
    assert levels == sorted(set(levels))


@pytest.mark.parametrize(
    ("offered", "preference", "result"),
    [
        ("profile-level-id=42801F", "H264;packetization-mode=0", True),
        ("profile-level-id=42801F", "H264;packetization-mode=1", False),
        ("packetization-mode=1;profile-level-id=640c1f", "H264;packetization-mode=1", True),
        ("packetization-mode=1;profile-level-id=f4001f", "H264;packetization-mode=1", False),
    ],
)
def test_any_profile_that_decodes_constrained_baseline_will_do(offered: str, preference: str, result: bool) -> None:
    assert matches(Format(97, "H264", 90000, fmtp=offered), preference) is result


def test_the_lower_level_wins_unless_both_allow_asymmetry() -> None:
    ours = H264Format(0x42E01F, 1, True, (b"\x67",))
    assert answer_h264(H264Format(0x42E00C, 1), ours) == H264Format(0x42E00C, 1, False, (b"\x67",))
    assert answer_h264(H264Format(0x428028, 0), ours) == H264Format(0x42801F, 0, False, (b"\x67",))
    assert answer_h264(H264Format(0x42E00C, 1, True), ours) == H264Format(0x42E01F, 1, True, (b"\x67",))
    assert answer_h264(H264Format(0x42F00B, 1), ours) == H264Format(0x42F00B, 1, False, (b"\x67",))


def test_mode_1_is_never_answered_by_one_who_speaks_only_mode_0() -> None:
    assert answer_h264(H264Format(0x42E01F, 1), H264Format(0x42E01F, 0)) is None
    assert answer_h264(H264Format(0xF4001F, 0), H264Format(0x42E01F, 0)) is None


def test_an_answer_keeps_the_transport_and_offers_no_new_feedback() -> None:
    h264 = Format(97, "H264", 90000, feedback=("nack pli", "ccm fir"))
    offered = Media(
        "video", 5000, "RTP/AVPF", (Format(97, "H264", 90000, feedback=("nack pli",)),), direction="sendonly", mid="v"
    )
    answer = answer_media(offered, port=6000, connection="192.0.2.1", formats=(h264,))
    assert (answer.protocol, answer.mid, answer.direction, answer.rtcp_mux) == ("RTP/AVPF", "v", "recvonly", False)
    assert answer.formats[0].feedback == ("nack pli",)


@pytest.mark.parametrize("line", ["m=audio 5000 RTP/AVP 96 97", "m=image 4000 udptl t38"])
def test_a_refused_medium_keeps_its_line(line: str) -> None:
    (offered,) = parse(f"v=0\no=- 1 1 IN IP4 h\n{line}\n").media
    text = SessionDescription(media=(reject(offered),)).serialise().decode()
    (refused,) = parse(text).media
    assert refused.rejected
    assert (refused.kind, refused.protocol) == (offered.kind, offered.protocol)


def test_parameter_names_are_case_insensitive() -> None:
    assert parse_fmtp(" Octet-Align=1 ;; crc ; octet-align=0") == {"octet-align": "1", "crc": ""}
