"""RFC 4475 in the parser: what is inside the messages, and that none gets past the one error.

What each must come to stands in `tests/sip_app/rfc4475.py`.
"""

from contextlib import suppress
from pathlib import Path

import pytest

from protocols.sip.errors import SipParseError
from protocols.sip.message import Message, Request, Response, check_request, parse_message
from protocols.sip.views import View

CORPUS = Path(__file__).resolve().parents[1] / "rfc4475"


def words(text: str) -> list[str]:
    return text.split()


NAMES = words("""badaspec badbranch baddate baddn badinv01 badvers bcast bext01 bigcode clerr cparam01 cparam02 dblreq
    esc01 esc02 escnull escruri insuf intmeth inv2543 invut longreq ltgtruri lwsdisp lwsruri lwsstart mcl01 mismatch01
    mismatch02 mpart01 multi01 ncl noreason novelsc quotbal regaut01 regbadct regescrt scalar02 scalarlg sdp01 semiuri
    transports trws unkscm unksm2 unreason wsinv zeromf""")
VIEWS = [name for kind in (Message, Request) for name, value in vars(kind).items() if isinstance(value, View)]


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.dat").read_bytes()


def read_every_view(message: Request | Response) -> None:
    for name in VIEWS:
        with suppress(SipParseError):
            getattr(message, name, None)
    for header in ("authorization", "www-authenticate"):
        with suppress(SipParseError):
            message.credentials(header)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_raises_but_the_parse_error(name: str) -> None:
    try:
        message = parse_message(read(name))
        read_every_view(message)
        if isinstance(message, Request):
            check_request(message)
    except SipParseError:
        return
    again = parse_message(message.serialise())
    assert list(again.headers.without("content-length")) == list(message.headers.without("content-length"))


def test_wild_white_space_is_read_through() -> None:
    request = parse_message(read("wsinv"))
    assert [(via.transport, via.host, via.branch) for via in request.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    assert (request.to.tag, request.from_.tag) == ("1918181833n", "98asjd8")
    assert request.from_.display == 'J Rosenberg \\"'
    assert (request.cseq.number, request.cseq.method) == (9, "INVITE")
    assert request.max_forwards == 68
    assert request.contacts[0].q == 0.33
    assert request.contacts[0].display == 'Quoted string ""'
    assert request.routes[0].sip_uri.param("lr") == ""
    assert len(request.body) == 150


def test_second_message_in_a_datagram_is_dropped() -> None:
    message = parse_message(read("dblreq"))
    assert isinstance(message, Request)
    assert (message.method, message.body) == ("REGISTER", b"")


def test_escaped_names_stay_what_they_are() -> None:
    request = parse_message(read("esc02"))
    assert isinstance(request, Request)
    assert request.method == "RE%47IST%45R"
    assert len(request.contacts) == 2
    assert request.from_.display == "%Z%45"


def test_long_request_keeps_all_its_vias() -> None:
    assert len(parse_message(read("longreq")).vias) == 34


def test_all_forty_nine_are_there() -> None:
    assert sorted(path.stem for path in CORPUS.glob("*.dat")) == sorted(NAMES)
