"""Descriptions and datagrams made to cost more than they weigh, or to mean what nobody wrote."""

import contextlib
import time
from random import Random

import pytest

from protocols.join import IceCredentials, IceLiteResponder, check_username
from protocols.net import Address, is_host, is_numeric
from protocols.rtp.h264 import Depacketizer
from protocols.rtp.rtcp import RtcpError, parse_compound
from protocols.sdp import H264Format, SdpError, parse

HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
EVERY_TYPE = " ".join(map(str, range(128)))


@pytest.mark.parametrize("host", ["[::1]", "]]1.2.3.4", "fe80::1%eth0", "fe80::1%a\nb", "1.2.3.4 ", "", "example"])
def test_only_a_bare_literal_may_be_an_address(host: str) -> None:
    assert not is_host(host)


def test_a_uri_may_bracket_its_literal_and_nothing_else() -> None:
    assert is_numeric("[::1]") and is_numeric("127.0.0.1")
    assert not is_numeric("]]1.2.3.4") and not is_numeric("[fe80::1%lo]")


def test_feedback_for_all_formats_is_not_multiplied_without_end() -> None:
    line = "a=rtcp-fb:* y\r\n"
    body = f"{HEAD}m=video 4000 RTP/AVPF {EVERY_TYPE}\r\n"
    body += line * ((32_700 - len(body)) // len(line))
    started = time.process_time()
    for _ in range(10):
        assert parse(body).media[0].formats[0].feedback == ("y",)
    assert (time.process_time() - started) / 10 < 0.015, "36 ms before, for 32 KiB"


def test_an_offer_names_no_more_parameter_sets_than_an_encoder_has() -> None:
    assert len(H264Format.from_fmtp("sprop-parameter-sets=" + ",".join(["Zw"] * 10_000)).parameter_sets) <= 16


def test_the_port_above_the_last_one_is_no_port() -> None:
    assert parse(f"{HEAD}m=audio 65535 RTP/AVP 0\r\n").media[0].control_port == 0


def test_garbage_raises_nothing_but_the_parsers_own_errors() -> None:
    random = Random(7)
    responder = IceLiteResponder(IceCredentials("ab", "cd" * 12))
    depacketizer = Depacketizer()
    for number in range(20_000):
        data = random.randbytes(random.randrange(90))
        stun = b"\x00\x01" + max(0, len(data) - 4).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + data
        responder.receive(stun, Address("127.0.0.1", 1), 0.0)
        check_username(stun)
        depacketizer.push(number & 0xFFFF, number // 3, random.random() < 0.3, data)
        with contextlib.suppress(RtcpError):
            parse_compound(bytes((0x80 | random.randrange(32), random.randrange(192, 224))) + data)
        with contextlib.suppress(SdpError):
            parse(HEAD + "m=audio 1 RTP/AVP 0\r\na=" + data.decode("latin-1"))
