"""The harness of SIP over WebSocket (RFC 7118)."""

from contextlib import suppress

from fuzz.target import Target, must_be_small, must_equal
from protocols.sip.errors import SipParseError
from protocols.sip.websocket import WebSocketFramer

_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
)


def read_websocket(data: bytes) -> None:
    """A WebSocket connection: its upgrade, then frames; and frames after a good upgrade."""
    for beginning in (b"", _UPGRADE):
        framer = WebSocketFramer(4096)
        with suppress(SipParseError):
            found = framer.receive(beginning + data)
            must_be_small(framer.replies(), data)
            must_equal(sum(len(m) for m in found if isinstance(m, bytes)) <= len(data) + len(beginning), True)


_FRAMES = (_UPGRADE, b"\x81\x85\x01\x02\x03\x04hello", b"\x89\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8")

TARGETS = (Target("sip-websocket", read_websocket, lambda: _FRAMES, 8192),)
