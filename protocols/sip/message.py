"""Requests and responses (RFC 3261 section 7): bytes to values and back, answers to requests, and a first check.

Parsing splits the start line and the header lines and no more; the typed views (`request.to`, `response.cseq`, ... see
`views`) are parsed when first asked for, and `check_request` asks for those a server needs. Header text is UTF-8; bytes
that are not become U+FFFD.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.fields import Headers
from protocols.sip.headers import TOKEN, CSeq, NameAddr
from protocols.sip.uri import SipUri, Uri, parse_uri
from protocols.sip.views import Message, View

__all__ = ["REASONS", "BadRequest", "Headers", "Message", "Request", "Response", "SipParseError"]
__all__ += ["check_request", "make_response", "oversized", "parse_message"]

MAX_MESSAGE_BYTES = 65535
MAX_HEADER_BYTES = 32768
MAX_HEADER_LINES = 256

_VERSION = re.compile(r"SIP/[0-9]{1,3}\.[0-9]{1,3}", re.IGNORECASE)
_STATUS = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE | re.DOTALL)
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_SINGLE = ("Call-ID", "CSeq", "From", "To", "Max-Forwards", "Content-Length")
_DIALOG_METHODS = frozenset(("INVITE", "SUBSCRIBE", "REFER", "NOTIFY"))
_COPIED = frozenset(("via", "from", "to", "call-id", "cseq"))
_COPIED_BY_TRYING = _COPIED | {"timestamp"}
_COPIED_INTO_DIALOGS = _COPIED | {"record-route"}

REASONS = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    200: "OK", 202: "Accepted", 204: "No Notification",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
    410: "Gone", 412: "Conditional Request Failed", 413: "Request Entity Too Large", 414: "Request-URI Too Long",
    415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension", 421: "Extension Required",
    422: "Session Interval Too Small", 423: "Interval Too Brief", 430: "Flow Failed",
    439: "First Hop Lacks Outbound Support", 469: "Bad Info Package", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete",
    485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 489: "Bad Event",
    491: "Request Pending", 493: "Undecipherable", 494: "Security Agreement Required",
    500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large", 580: "Precondition Failure",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip


@dataclass(frozen=True)
class Request(Message):
    """A SIP request. `uri` is the Request-URI as written; `parsed_uri` is its typed view."""

    method: str
    uri: str
    headers: Headers
    body: bytes = field(default=b"", repr=False)
    version: str = "SIP/2.0"

    @View
    def parsed_uri(self) -> Uri:
        """The Request-URI."""
        return parse_uri(self.uri)

    def serialise(self) -> bytes:
        """The request as it goes on the wire, with a Content-Length."""
        text = f"{self.method} {self.uri} SIP/2.0\r\n{self.headers.serialise(len(self.body))}"
        return text.encode("utf-8", "replace") + self.body


@dataclass(frozen=True)
class Response(Message):
    """A SIP response."""

    status: int
    reason: str
    headers: Headers
    body: bytes = field(default=b"", repr=False)

    def serialise(self) -> bytes:
        """The response as it goes on the wire, with a Content-Length."""
        reason = self.reason.replace("\r", " ").replace("\n", " ")
        text = f"SIP/2.0 {self.status} {reason}\r\n{self.headers.serialise(len(self.body))}"
        return text.encode("utf-8", "replace") + self.body


def parse_message(
    data: bytes,
    *,
    max_bytes: int = MAX_MESSAGE_BYTES,
    max_header_bytes: int = MAX_HEADER_BYTES,
    max_header_lines: int = MAX_HEADER_LINES,
) -> Request | Response:
    """Read one message from a datagram or a framed piece of a stream; what follows the Content-Length is cut off.

    A request that is readable but wrong (a Content-Length beyond its end, a foreign version) is returned all the same,
    for `check_request` to judge; such a response raises. Raises SipParseError and nothing else.
    """
    if len(data) > max_bytes:
        raise SipParseError("message too large")
    head, blank, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not blank:
        if head[-2:] != b"\r\n":
            raise SipParseError("headers cut short")
        head = head[:-2]
    if len(head) > max_header_bytes:
        raise SipParseError("headers too large")
    text = head.decode("utf-8", "replace")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
    lines = text.split("\r\n")
    if len(lines) > max_header_lines:
        raise SipParseError("too many header lines")
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise SipParseError("stray line break")
    start = lines[0]
    headers = Headers.parse(lines[1:])
    stated = headers.get("content-length")
    if stated is not None and stated.isascii() and stated.isdigit() and len(stated) <= 9:
        length = int(stated)
        if length < len(body) and len(headers.all("content-length")) == 1:
            body = body[:length]
    if start[:4].upper() == "SIP/":
        return _response(start, headers, body)
    method, _, rest = start.rstrip().partition(" ")
    uri, _, version = rest.rpartition(" ")
    uri = uri.strip()
    if not (TOKEN.fullmatch(method) and uri and _VERSION.fullmatch(version)):
        raise SipParseError("malformed start line")
    return Request(method, uri, headers, body, version.upper())


def oversized(data: bytes, max_bytes: int, max_header_bytes: int, max_header_lines: int) -> Request | None:
    """The request that only its size makes unreadable, as far as its first header lines go, for a 513; else None."""
    head = data.lstrip(b"\r\n").partition(b"\r\n\r\n")[0]
    lines = head[:max_header_bytes].split(b"\r\n", max_header_lines)
    if len(head) > max_header_bytes or len(lines) > max_header_lines:
        lines.pop()
    elif len(data) <= max_bytes:
        return None
    try:
        message = parse_message(b"\r\n".join([*lines, b"", b""]))
    except SipParseError:
        return None
    return message if isinstance(message, Request) else None


def _response(start: str, headers: Headers, body: bytes) -> Response:
    match = _STATUS.fullmatch(start)
    if match is None:
        raise SipParseError("malformed status line")
    response = Response(int(match[1]), match[2] or "", headers, body)
    if (response.content_length or 0) > len(body):
        raise SipParseError("body cut short")
    return response


def check_request(request: Request) -> None:
    """Ask a request for all that any server needs of it (RFC 3261 sections 8.1.1 and 8.2, RFC 4475).

    Raises BadRequest with the answer to give (never to an ACK): 400 for headers missing, repeated or malformed, 505 for
    the version. What only some methods need, say a Contact's `q`, its user reads and catches.
    """
    if request.version != "SIP/2.0":
        raise BadRequest(505, REASONS[505])
    headers = request.headers
    some_repeated = len(headers.by_key()) != len(headers)
    if some_repeated and (repeated := headers.repeated(*_SINGLE)) is not None:
        raise BadRequest(400, f"Repeated {repeated}")
    try:
        _read_all(request)
    except BadRequest:
        raise
    except SipParseError as error:
        raise BadRequest(400, f"Bad Request ({error})") from None


def _read_all(request: Request) -> None:
    lines = request.headers.by_key()
    uri = request.parsed_uri
    if isinstance(uri, SipUri) and uri.headers:
        raise BadRequest(400, "Headers in the Request-URI")
    if not (request.vias and request.call_id and request.from_ and request.to):
        raise BadRequest(400, "Missing header")
    cseq: CSeq = request.cseq
    if cseq.method != request.method:
        raise BadRequest(400, "CSeq of another method")
    if (request.content_length or 0) > len(request.body):
        raise BadRequest(400, "Body cut short")
    if "contact" in lines:
        contacts: tuple[NameAddr, ...] = request.contacts
        if request.method == "INVITE" and len(contacts) > 1:
            raise BadRequest(400, "More than one Contact")
    _ = (
        "max-forwards" in lines and request.max_forwards,
        "expires" in lines and request.expires,
        "route" in lines and request.routes,
        "record-route" in lines and request.record_routes,
    )


def make_response(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str | None = None,
) -> Response:
    """The response a UAS gives (RFC 3261 section 8.2.6): Via, From, To, Call-ID, CSeq copied as they came.

    `to_tag` goes on the To unless it has a tag (or is a 100). Record-Route is copied where the response makes a
    dialog, Timestamp into a 100. Works on whatever could be read of a bad request.
    """
    copied = _COPIED
    if status == 100:
        copied, to_tag = _COPIED_BY_TRYING, None
    elif status < 300 and request.method in _DIALOG_METHODS:
        copied = _COPIED_INTO_DIALOGS
    if to_tag and _has_to_tag(request):
        to_tag = None
    fields = request.headers.answering(copied, to_tag, headers)
    if content_type is not None:
        fields = fields.with_("Content-Type", content_type)
    return Response(status, REASONS.get(status, "Unknown") if reason is None else reason, fields, body)


def _has_to_tag(request: Request) -> bool:
    """True also for a To that cannot be read, to which nothing is added."""
    try:
        return bool(request.to.tag)
    except SipParseError:
        return True
