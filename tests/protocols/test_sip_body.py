"""Finding the session description in a body, and leaving the rest alone."""

import pytest

from protocols.sip.body import MAX_PARTS, session_body
from protocols.sip.errors import BadRequest
from protocols.sip.message import Headers, Request

SDP = b"v=0\r\n"


def request(content_type: str, body: bytes, *headers: tuple[str, str]) -> Request:
    return Request("INVITE", "sip:a@b", Headers([("Content-Type", content_type), *headers]), body)


def multipart(*parts: bytes, kind: str = "mixed") -> Request:
    body = b"preamble\r\n" + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\nepilogue"
    return request(f'multipart/{kind}; boundary="b"', body)


def part(body: bytes = SDP, kind: str = "application/sdp", disposition: str = "") -> bytes:
    extra = f"Content-Disposition: {disposition}\r\n" if disposition else ""
    return f"Content-Type: {kind}\r\n{extra}\r\n".encode() + body


def test_a_plain_body_is_the_description_and_none_is_none() -> None:
    assert session_body(request("application/sdp;charset=utf-8", SDP)) == SDP
    assert session_body(request("application/sdp", b"")) == b""


def test_of_mixed_parts_the_first_description_counts_of_alternatives_the_last() -> None:
    parts = part(b"v=1"), b"\r\njust text", part(b"v=2")
    assert session_body(multipart(*parts)) == b"v=1"
    assert session_body(multipart(*parts, kind="alternative")) == b"v=2"
    assert session_body(multipart(part(b"<x/>", "text/xml"))) == b""


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (request("text/plain", b"hello"), 415),
        (request("application/sdp", SDP, ("Content-Disposition", "icon")), 415),
        (multipart(part(), part(b"x", "image/png", "icon;handling=required")), 415),
        (request("multipart/mixed", b"--b\r\n\r\n--b--"), 400),
        (request("multipart/mixed;boundary=b", b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0"), 400),
        (request("multipart/mixed;boundary=b", b"--b\r\nno header line\r\n\r\nv=0\r\n--b--"), 400),
        (multipart(*[part()] * (MAX_PARTS + 2)), 400),
    ],
)
def test_what_must_be_understood_and_cannot_is_refused(message: Request, status: int) -> None:
    with pytest.raises(BadRequest) as refusal:
        session_body(message)
    assert refusal.value.status == status


@pytest.mark.parametrize("disposition", ["icon;handling=optional", "render ; handling = optional"])
def test_what_need_not_be_understood_is_passed_over(disposition: str) -> None:
    assert session_body(request("text/plain", b"hello", ("Content-Disposition", disposition))) == b""
    assert session_body(multipart(part(b"x", "image/png", disposition), part())) == SDP
