"""Harnesses of SIP: messages and their views, URIs, headers, digest, streams, stored dialogs."""

from contextlib import suppress

from aioice import stun

from fuzz.target import Target, must_be_small, must_equal, torture
from protocols.net import Address, Flow
from protocols.sip import headers as values
from protocols.sip.body import session_body
from protocols.sip.dialog import DialogState, uas_dialog
from protocols.sip.digest import NonceSource, authorize, challenge, choose_challenge, find_credentials, ha1, verify
from protocols.sip.errors import SipParseError
from protocols.sip.framing import KeepAlive, StreamFramer
from protocols.sip.message import Message, Request, Response, check_request, make_response, parse_message
from protocols.sip.subscription import accepts
from protocols.sip.uri import number_key, parse_uri, uri_equal
from protocols.sip.views import View
from sip_app.transport.datagrams import MAGIC_COOKIE, stun_answer

VIEWS = [name for kind in (Message, Request) for name, value in vars(kind).items() if isinstance(value, View)]
KINDS = (
    values.Via,
    values.NameAddr,
    values.CSeq,
    values.RAck,
    values.AuthParams,
    values.HistoryEntry,
    values.DiversionEntry,
    values.Reason,
)

INVITE = (
    b"INVITE sip:8888@dialcast.internal SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKx\r\n"
    b'From: "Ann" <sip:1001@dialcast.internal>;tag=a\r\nTo: <sip:8888@dialcast.internal>\r\nCall-ID: c@x\r\n'
    b"CSeq: 1 INVITE\r\nContact: <sip:1001@192.0.2.1:5060;transport=udp>;q=0.5;expires=60\r\nMax-Forwards: 70\r\n"
    b"Record-Route: <sip:a;lr>, <sip:b;lr>\r\nRoute: <sip:c;lr>\r\nPath: <sip:d;lr>\r\nSupported: 100rel, timer\r\n"
    b"Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nRAck: 1 2 INVITE\r\nRSeq: 1\r\n"
    b'Reason: Q.850;cause=16;text="bye"\r\nHistory-Info: <sip:1002@d?Reason=SIP>;index=1.1\r\n'
    b"Diversion: <sip:1003@d>;reason=unconditional;counter=1\r\nContent-Type: application/sdp\r\nContent-Length: 4\r\n"
    b'Authorization: Digest username="1001", realm="r", nonce="n", uri="sip:x", response="0", qop=auth, nc=00000001\r\n'
    b"\r\nv=0\r"
)


def messages() -> list[bytes]:
    """RFC 4475 and one message with every header that has a view."""
    return [INVITE, make_response(_request(INVITE), 200, to_tag="t").serialise(), *torture()]


def _request(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def read_message(data: bytes) -> None:
    """A message, every view of it, its answer, and the same again after writing."""
    try:
        message = parse_message(data)
    except SipParseError:
        return
    for name in VIEWS:
        with suppress(SipParseError):
            getattr(message, name, None)
    for header in ("authorization", "www-authenticate"):
        with suppress(SipParseError):
            message.credentials(header)
    written = message.serialise()
    must_be_small(written, data)
    with suppress(SipParseError):
        must_equal(len(session_body(message)) <= len(message.body), True)
    if isinstance(message, Request):
        try:
            check_request(message)
        except SipParseError:
            parse_message(make_response(message, 400, to_tag="t").serialise())
            return
        answer = parse_message(make_response(message, 200, to_tag="t").serialise())
        must_equal(answer.cseq, message.cseq)
        must_equal(answer.vias, message.vias)
    _same(message, parse_message(written))


def _same(one: Request | Response, other: Request | Response) -> None:
    must_equal(type(one), type(other))
    must_equal(one.headers.without("content-length"), other.headers.without("content-length"))
    must_equal(one.body, other.body)


def read_uri(data: bytes) -> None:
    """A URI: read, written, read again, compared with itself, and as a key."""
    text = data.decode("utf-8", "replace")
    try:
        uri = parse_uri(text)
    except SipParseError:
        return
    must_equal(parse_uri(str(uri)), uri)
    if not uri_equal(uri, uri):
        must_equal(uri, "itself")
    with suppress(SipParseError):
        number_key(uri, "d")


def read_header(data: bytes) -> None:
    """Each kind of header value: what is read is the same after writing."""
    text = data.decode("utf-8", "replace")
    for kind in KINDS:
        try:
            value = kind.parse(text)
        except SipParseError:
            continue
        must_equal(kind.parse(str(value)), value)
    with suppress(SipParseError):
        values.split_list(text)
    with suppress(SipParseError):
        values.parse_params(text)
    quoted = values.quote_string(text)
    must_equal(values.unquote_string(quoted), text)


_NONCES = NonceSource(b"k" * 32)


def read_digest(data: bytes) -> None:
    """Credentials from a stranger: never accepted; and a challenge from a hostile server."""
    text = data.decode("utf-8", "replace").replace("\r", " ").replace("\n", " ")
    headers = values.AuthParams
    request = Request("REGISTER", "sip:d", type(_request(INVITE).headers)((("Authorization", text),)))
    given = find_credentials(request, "r")
    if given is not None:
        must_equal(verify(given, "REGISTER", ha1("MD5", "1001", "r", "secret"), _NONCES, 1e9) == "ok", False)
        _NONCES.use(given.get("nonce"), 1, 1e9, "192.0.2.1")
    with suppress(SipParseError):
        offered = choose_challenge([headers.parse(text)])
        if offered is not None:
            headers.parse(str(authorize(offered, "REGISTER", "sip:d", "1001", "secret")))


def read_stream(data: bytes) -> None:
    """A stream: what it holds does not depend on how it is cut."""
    whole, pieces = StreamFramer(4096, 2048), StreamFramer(4096, 2048)
    try:
        at_once = whole.receive(data)
    except SipParseError:
        return
    step = 1 + len(data) // 7
    in_parts = [found for at in range(0, len(data), step) for found in pieces.receive(data[at : at + step])]
    # A ping may arrive as two pongs' worth of bytes; only messages must be the same.
    must_equal([m for m in at_once if isinstance(m, bytes)], [m for m in in_parts if isinstance(m, bytes)])
    must_equal(sum(len(m) for m in in_parts if not isinstance(m, KeepAlive)) <= len(data), True)


def read_dialog(data: bytes) -> None:
    """A stored dialog, as after a restart."""
    try:
        state = DialogState.from_json(data.decode("utf-8", "replace"))
    except SipParseError:
        return
    must_equal(DialogState.from_json(state.to_json()), state)


def read_accept(data: bytes) -> None:
    """Accept lines of a SUBSCRIBE: their order says nothing, everything takes in all of it."""
    request = Request("SUBSCRIBE", "sip:d", type(_request(INVITE).headers)(_accept_lines(data)))
    with suppress(SipParseError):
        given = request.headers.values("accept")
        must_equal(accepts(given, "application/pidf+xml"), accepts(given[::-1], "application/pidf+xml"))
        must_equal(accepts([*given, "*/*"], "application/pidf+xml"), True)


def _accept_lines(data: bytes) -> list[tuple[str, str]]:
    return [("Accept", line) for line in data.decode("utf-8", "replace").split("\n")]


def read_keep_alive(data: bytes) -> None:
    """A STUN keep-alive (RFC 5626): as it came, and made whole. The answer tells its source and no more."""
    whole = b"\0\1" + (len(data) & 0xFFFC).to_bytes(2, "big") + MAGIC_COOKIE + b"t" * 12 + data[: len(data) & 0xFFFC]
    for datagram in (data, whole):
        for source in (Address("192.0.2.1", 5060), Address("2001:db8::1", 5060)):
            answer = stun_answer(datagram, source)
            if answer is not None:
                must_equal(len(answer) <= 44, True)
                message = stun.parse_message(answer)
                must_equal(message.transaction_id, datagram[8:20])
                must_equal(message.attributes["XOR-MAPPED-ADDRESS"], tuple(source))


def _dialog() -> bytes:
    flow = Flow("udp", Address("192.0.2.9", 5060), Address("192.0.2.1", 5060))
    return uas_dialog(_request(INVITE), "t", "<sip:192.0.2.9:5060>", flow).to_json().encode()


def _digests() -> list[bytes]:
    offered = challenge("r", "n")
    return [str(offered).encode(), str(authorize(offered, "REGISTER", "sip:d", "1001", "x")).encode()]


_URIS = (
    b"sip:1001@d;transport=tcp?Subject=x&a=b", b"sips:%41:pw@[::1]:5061;lr;maddr=1.2.3.4", b"tel:+1-23;phone-context=d",
    b"isbn:123", b"sip:user;par=u%40e@e",
)  # fmt: skip
_HEADERS = (
    b"SIP/2.0/UDP [::1]:5060;rport=1;received=1.2.3.4;branch=z9hG4bK", b'"A \\" B" <sip:a@b;lr>;tag=x;q=0.5;expires=1',
    b"1 INVITE", b"1 2 INVITE", b'Digest realm="a, b", nonce="\\"", qop="auth,auth-int", stale=TRUE',
    b"<sip:a@b?Reason=SIP%3Bcause%3D302>;index=1.2.3;mp=1", b"<sip:a@b>;reason=no-answer;counter=2;privacy=off",
    b'SIP;cause=200;text="x, y"', b"sip:a@b;x=y, <sip:c@d>",
)  # fmt: skip


TARGETS = (
    Target("sip-message", read_message, messages),
    Target("sip-uri", read_uri, lambda: _URIS, 4096),
    Target("sip-header", read_header, lambda: _HEADERS, 8192),
    Target("sip-digest", read_digest, _digests, 4096),
    Target("sip-stream", read_stream, lambda: [b"\r\n\r\n" + INVITE + INVITE, *torture()], 8192),
    Target("sip-accept", read_accept, lambda: [b"application/pidf+xml;q=0.5, text/*", b"*/*\n", b'a/b;c="d, e"'], 512),
    Target(
        "sip-keep-alive", read_keep_alive, lambda: [b"\0\1\0\0" + MAGIC_COOKIE + b"t" * 12, b"\x80\x22\0\1a\0\0\0"], 256
    ),
    Target("sip-dialog", read_dialog, lambda: [_dialog()], 8192),
)
