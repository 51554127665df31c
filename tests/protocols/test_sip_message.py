"""Messages: bytes to values and back, the server's first check, and the making of responses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.message import Headers, Request, Response, check_request, make_response, parse_message

INVITE = (
    b"INVITE sip:8888@dialcast.internal SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2\r\n"
    b"Record-Route: <sip:192.0.2.1;lr>\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Ann" <sip:1001@dialcast.internal>;tag=f\r\n'
    b"To: <sip:8888@dialcast.internal>\r\n"
    b"Call-ID: c1\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Contact: <sip:1001@192.0.2.2>\r\n"
    b"Supported: 100rel, Timer\r\n"
    b"Session-Expires: 1800;refresher=uac\r\n"
    b"Content-Type: Application/SDP; charset=utf-8\r\n"
    b"Content-Length: 4\r\n"
    b"\r\n"
    b"v=0\ntrailing"
)


def request(data: bytes = INVITE) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def without(header: bytes) -> bytes:
    head, _, body = INVITE.partition(b"\r\n\r\n")
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(header)) + b"\r\n\r\n" + body


def test_an_invite_is_read() -> None:
    invite = request()
    check_request(invite)
    assert (invite.method, invite.uri, invite.body) == ("INVITE", "sip:8888@dialcast.internal", b"v=0\n")
    assert invite.top_via.branch == "z9hG4bK1"
    assert len(invite.vias) == 2
    assert (invite.from_.tag, invite.to.tag, invite.call_id) == ("f", "", "c1")
    assert invite.supported == {"100rel", "timer"}
    assert (invite.session_expires, invite.refresher) == (1800, "uac")
    assert invite.content_type == "application/sdp"
    assert invite.expires is None


def test_a_message_goes_out_as_it_came_in() -> None:
    assert parse_message(request().serialise()) == request()


def test_content_length_is_always_ours() -> None:
    text = replace(request(), body=b"longer body").serialise()
    assert text.count(b"Content-Length") == 1
    assert b"Content-Length: 11\r\n\r\nlonger body" in text


def test_views_are_read_once() -> None:
    invite = request()
    assert invite.to is invite.to


def test_leading_empty_lines_are_skipped() -> None:
    assert request(b"\r\n\r\n" + INVITE) == request()


def test_a_datagram_without_the_empty_line_is_read_if_its_lines_are_whole() -> None:
    head = INVITE.partition(b"\r\n\r\n")[0].replace(b"Content-Length: 4", b"l: 0")
    check_request(request(head + b"\r\n"))
    with pytest.raises(SipParseError):
        parse_message(head)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", b"\x00" * 100, b"INVITE\r\n\r\n", b"INVITE sip:a@b\r\n\r\n", b"SIP/2.0 999 X\r\n\r\n",
        b"SIP/2.0 20 X\r\n\r\n", b"INVITE sip:a@b SIP/2.0\r\nno colon\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nA: b\nEvil: c\r\n\r\n", b"INVITE sip:a@b SIP/2.0\r\nA\x00B: c\r\n\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\nA: " + b"b" * 40000 + b"\r\n\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n\r\n" + b"b" * 65536,
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(SipParseError):
        parse_message(data)


@pytest.mark.parametrize("header", [b"Via", b"From", b"To", b"Call-ID", b"CSeq"])
def test_a_missing_mandatory_header_is_answered_400(header: bytes) -> None:
    with pytest.raises(BadRequest, match="400"):
        check_request(request(without(header)))


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (b"From", b"From: <sip:a@b"),
        (b"CSeq", b"CSeq: 1 BYE"),
        (b"Max-Forwards", b"Max-Forwards: 256"),
        (b"Contact", b"Contact: <sip:a@b>, <sip:c@d>"),
        (b"Content-Length", b"Content-Length: 400"),
        (b"Content-Length", b"Content-Length: -4"),
        (b"Call-ID", b"Call-ID: a b"),
        (b"Zzz", b"To: <sip:second@b>"),
    ],
)
def test_a_broken_header_is_answered_400(header: bytes, line: bytes) -> None:
    with pytest.raises(BadRequest, match="400"):
        check_request(request(without(header).replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n", 1)))


def test_a_response_cut_short_is_refused() -> None:
    with pytest.raises(SipParseError):
        parse_message(b"SIP/2.0 200 OK\r\nContent-Length: 9\r\n\r\nshort")


def test_a_response_answers_its_request() -> None:
    response = make_response(request(), 200, to_tag="t", body=b"v=0", content_type="application/sdp")
    again = parse_message(response.serialise())
    assert isinstance(again, Response)
    assert (again.status, again.reason, again.body) == (200, "OK", b"v=0")
    assert again.headers.all("via") == request().headers.all("via")
    assert (again.to.tag, again.from_.tag, again.call_id, again.cseq) == ("t", "f", "c1", request().cseq)
    assert len(again.record_routes) == 1
    assert again.content_type == "application/sdp"


def test_only_what_makes_a_dialog_carries_record_route_and_100_no_tag() -> None:
    assert make_response(request(), 404, to_tag="t").headers.get("record-route") is None
    assert make_response(request(), 100, to_tag="t").to.tag == ""
    tagged = replace(request(), headers=request().headers.with_("To", "<sip:x@y>;tag=old"))
    assert make_response(tagged, 200, to_tag="t").to.tag == "old"


def test_a_response_can_be_made_for_a_request_without_anything() -> None:
    bare = Request("OPTIONS", "sip:a@b", Headers())
    assert make_response(bare, 400, to_tag="t").serialise() == b"SIP/2.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


def test_star_contact() -> None:
    register = replace(request(), headers=request().headers.with_("Contact", "*"))
    assert register.wildcard_contact
    assert register.contacts == ()


@given(st.binary() | st.binary().map(lambda noise: INVITE[:60] + noise + INVITE[60:]))
def test_any_bytes_give_a_message_or_the_one_error(data: bytes) -> None:
    try:
        message = parse_message(data)
        if isinstance(message, Request):
            check_request(message)
    except SipParseError:
        return
    assert parse_message(message.serialise()) is not None


@given(st.integers(0, len(INVITE) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_invite_gives_a_message_or_the_one_error(at: int, noise: bytes) -> None:
    try:
        check_request(request(INVITE[:at] + noise + INVITE[at + len(noise) :]))
    except SipParseError:
        return
