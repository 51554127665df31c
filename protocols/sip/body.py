"""Which part of a body is the session description: Content-Disposition (RFC 3261 section 20.11), multipart (RFC 5621).

What a peer says need not be understood is left out; what it requires and nobody here can read is refused.
"""

import re

from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.fields import Headers
from protocols.sip.message import REASONS, Request, Response

SDP = "application/sdp"
MAX_PARTS = 16
"""Parts a body may have; more are refused."""

_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,70})"|([^\s;",]{1,70}))', re.IGNORECASE)


def session_body(message: Request | Response) -> bytes:
    """The SDP a message carries, b"" for none. Raises BadRequest: 415 for what it requires but we cannot read, 400."""
    if not message.body:
        return b""
    if message.content_type.startswith("multipart/"):
        return _of_parts(message)
    return message.body if _usable(message.headers, message.content_type) else b""


def _usable(headers: Headers, content_type: str, *, part: bool = False) -> bool:
    """True for a session description, False for what may be passed over. Raises BadRequest 415."""
    stated = headers.get("content-disposition")
    disposition, _, params = (stated or "").lower().partition(";")
    if content_type == SDP and disposition.strip() in ("", "session"):
        return True
    if "handling=optional" in params.replace(" ", "") or (part and stated is None):
        return False
    raise BadRequest(415, REASONS[415])


def _of_parts(message: Request | Response) -> bytes:
    boundary = _BOUNDARY.search(message.headers.get("content-type") or "")
    if boundary is None:
        raise BadRequest(400, "No Boundary")
    mark = b"\r\n--" + (boundary[1] or boundary[2]).encode()
    pieces = (b"\r\n" + message.body).split(mark, MAX_PARTS + 2)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise BadRequest(400, "Malformed Multipart")
    found = []
    for piece in pieces[1:-1]:
        head, _, body = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if piece.lstrip(b" \t").startswith(b"\r\n\r\n"):
            continue  # a part without header fields is plain text
        try:
            headers = Headers.parse(head.decode("utf-8", "replace").split("\r\n"))
        except SipParseError:
            raise BadRequest(400, "Malformed Multipart") from None
        if _usable(headers, (headers.get("content-type") or "").partition(";")[0].strip().lower(), part=True):
            found.append(body)
    best_last = message.content_type == "multipart/alternative"
    return (found[-1] if best_last else found[0]) if found else b""
