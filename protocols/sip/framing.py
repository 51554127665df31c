"""Messages on a byte stream (RFC 3261 section 18.3) and the keep-alives between them (RFC 5626 section 4.4.1)."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Literal

from protocols.sip.errors import SipParseError

_START = re.compile(rb"[A-Za-z0-9.!%*_+`'~-]{1,64}(?:[ \t/]|\Z)")
"""How a message begins: a method, or `SIP` and a slash."""
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.IGNORECASE)


MAX_IDLE_PIECES = 64
"""Keep-alives and other pieces too short for any message that may come at once; nobody honest sends so many."""
SHORTEST_MESSAGE = 16


class KeepAlive(Enum):
    """What may stand between messages."""

    PING = b"\r\n\r\n"
    """Answered by `StreamFramer.replies`."""
    PONG = b"\r\n"


def idle_pieces(pieces: Iterable[bytes | KeepAlive]) -> int:
    """How many of what a connection brought say no more than that it is alive."""
    return sum(isinstance(piece, KeepAlive) or len(piece) < SHORTEST_MESSAGE for piece in pieces)


Bound = Literal["message", "headers", "fragments"]
"""What of a message is bounded: its size, that of its header lines, the WebSocket frames it is cut into."""


class StreamFramer:
    """Cuts a stream into messages. After a SipParseError the stream has lost its place: close the connection."""

    ready = True
    """There is no handshake: messages may be sent at once."""
    exceeded: Bound | None = None
    """The bound a peer went beyond, once it has."""

    def __init__(self, max_message_bytes: int = 65535, max_header_bytes: int = 32768) -> None:
        self._max_message = max_message_bytes
        self._max_header = max_header_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._need: int | None = None
        self._started = False
        self.finished = False
        """True once something came that is no SIP: nothing more is read, the connection is to be closed."""
        self._half_ping = False
        self._replies = b""

    @property
    def begun(self) -> bool:
        """True while part of a message has come and the rest has not."""
        return bool(self._buffer)

    def wrap(self, message: bytes) -> bytes:
        """A message as it goes out."""
        return message

    def replies(self) -> bytes:
        """Take what is to be sent in answer to keep-alives."""
        replies, self._replies = self._replies, b""
        return replies

    def receive(self, data: bytes) -> list[bytes | KeepAlive]:
        """Take what the stream brought; give the whole messages and keep-alives it completes."""
        if self.finished:
            return []
        self._buffer += data
        found: list[bytes | KeepAlive] = []
        while self._buffer and (item := self._next()) is not None:
            found.append(item)
            if len(found) % MAX_IDLE_PIECES == 0 and idle_pieces(found) >= MAX_IDLE_PIECES:
                raise SipParseError("a flood of keep-alives")
        return found

    def _next(self) -> bytes | KeepAlive | None:
        buffer = self._buffer
        if self._need is None:
            if buffer[:1] == b"\r" and b"\r\n".startswith(buffer[:2]):
                return self._keep_alive() if len(buffer) > 1 else None
            self._half_ping = False
            if not self._started and not self._starts():
                self.finished = True
                buffer.clear()
                return None
            end = buffer.find(b"\r\n\r\n", self._searched)
            if end < 0:
                self._searched = max(0, len(buffer) - 3)
            if max(end, self._searched) > self._max_header:
                self.exceeded = "headers"
                raise SipParseError("headers too large")
            if end < 0:
                return None
            self._need = end + 4 + _content_length(bytes(buffer[:end]))
            if self._need > self._max_message:
                self.exceeded = "message"
                raise SipParseError("message too large")
        if len(buffer) < self._need:
            return None
        message = bytes(buffer[: self._need])
        del buffer[: self._need]
        self._need, self._searched, self._started = None, 0, False
        return message

    def _starts(self) -> bool:
        """True if this may be a message, by its first line as far as it has come: what is none is not waited for."""
        end = self._buffer.find(b"\r\n", 0, self._max_header)
        self._started = end >= 0
        return bool(_START.match(self._buffer)) and (end < 0 or b"SIP/" in self._buffer[:end].upper())

    def _keep_alive(self) -> KeepAlive:
        """CRLF CRLF is a ping; a CRLF alone a pong, unless the other half of a ping follows in the next segment."""
        ping = self._buffer.startswith(KeepAlive.PING.value)
        del self._buffer[: 4 if ping else 2]
        if ping or self._half_ping:
            self._half_ping = False
            self._replies += KeepAlive.PONG.value
            return KeepAlive.PING
        self._half_ping = not self._buffer
        return KeepAlive.PONG


def _content_length(head: bytes) -> int:
    values = {value.strip() for value in _LENGTH.findall(head)}
    if not values:
        return 0
    value = values.pop()
    if values or not value.isdigit() or len(value) > 9:
        raise SipParseError("no telling where the message ends")
    return int(value)
