"""What this server can do, as it tells and as it holds requests to it (RFC 3261 sections 8.2.2, 8.2.3, 11.2, 20.5)."""

from collections.abc import Sequence

from protocols.sip.body import SDP, session_body
from protocols.sip.errors import BadRequest
from protocols.sip.message import Request, Response, make_response

HeaderList = Sequence[tuple[str, str]]
EARLY_METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE")
"""What a call takes until it is answered."""
CALL_METHODS = (*EARLY_METHODS, "INFO", "MESSAGE")
"""What a call and the numbers that make one take."""
METHODS = (*CALL_METHODS, "SUBSCRIBE", "REGISTER")
"""What this server takes, by one of its resources at least."""
ALLOW = ", ".join(CALL_METHODS)
"""The Allow of a call."""
WITHIN_CALLS = frozenset(("BYE", "PRACK", "UPDATE", "INFO"))
"""Methods of a dialog: a server that has no such dialog says 481."""
_KNOWN = frozenset((*METHODS, "NOTIFY", "PUBLISH", "REFER"))
SUPPORTED = frozenset(("100rel", "timer", "path", "histinfo", "outbound"))
SUPPORTED_TEXT = "100rel, timer, path, histinfo, outbound"
BODIES = (("Accept", f"{SDP}, multipart/mixed, multipart/alternative"), ("Accept-Encoding", "identity"))
_ABLE = (*BODIES, ("Accept-Language", "en"), ("Supported", SUPPORTED_TEXT))
CALL_CAPABILITIES = (("Allow", ALLOW), *_ABLE)
CAPABILITIES = (("Allow", ", ".join(METHODS)), *_ABLE)


class Rejected(Exception):
    """A request is refused: the status, phrase, header fields and (in INFO) body of the answer."""

    def __init__(
        self,
        status: int,
        reason: str | None = None,
        headers: HeaderList = (),
        *,
        body: bytes = b"",
        content_type: str | None = None,
    ) -> None:
        super().__init__(f"{status} {reason or ''}".rstrip())
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.content_type = content_type

    def answer(self, request: Request, to_tag: str) -> Response:
        """The refusal as the response to this request."""
        kind, body = self.content_type, self.body
        return make_response(
            request, self.status, self.reason, to_tag=to_tag, headers=self.headers, body=body, content_type=kind
        )


def not_allowed(method: str, methods: Sequence[str] = METHODS) -> Rejected:
    """The answer to a method that is not served by a resource that serves `methods` at most: 405 with those that
    remain for one we know, 501 for one we never heard of."""
    allow = ", ".join([known for known in methods if known != method])
    return Rejected(405 if method in _KNOWN else 501, headers=(("Allow", allow),))


def check_required(request: Request) -> None:
    """Raises `Rejected` 420 for an extension the request requires and nobody here knows."""
    unknown = request.required - SUPPORTED
    if unknown:
        raise Rejected(420, headers=(("Unsupported", ", ".join(sorted(unknown))),))


def check_accepted(request: Request) -> None:
    """Raises `Rejected` 406 for a caller who takes no SDP in an answer."""
    taken = {value.partition(";")[0].strip().lower() for value in request.headers.values("accept")}
    if taken and taken.isdisjoint(("application/sdp", "application/*", "*/*")):
        raise Rejected(406)


def offer_in(request: Request) -> bytes:
    """The SDP of a request, b"" for none. Raises `Rejected` 415 for a body that must be understood and cannot, 400."""
    encoding = request.headers.get("content-encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise Rejected(415, headers=BODIES[1:])
    try:
        return session_body(request)
    except BadRequest as error:
        raise Rejected(error.status, error.reason, BODIES if error.status == 415 else ()) from None
