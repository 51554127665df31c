"""SIP over WebSocket, the server's end (RFC 7118 on RFC 6455, framed by `wsproto`): one message each way per message.

`WebSocketFramer` stands where `StreamFramer` does for TCP: bytes in, messages and keep-alives out. Everything a client
may send is bounded: the HTTP request (by wsproto), a message's size and its fragments.
"""

from collections.abc import Collection, Sequence
from http import HTTPStatus

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from protocols.sip.errors import SipParseError
from protocols.sip.framing import MAX_IDLE_PIECES, Bound, KeepAlive, idle_pieces

SUBPROTOCOL = "sip"


class WebSocketFramer:
    """One connection. `ready` once the upgrade is done, `finished` when it is to be closed after `replies`.

    `origins` are the pages that may connect, empty for all; a client without an Origin is no page. After a
    SipParseError: close the connection.
    """

    def __init__(self, max_message_bytes: int = 65_535, origins: Collection[str] = (), max_fragments: int = 64) -> None:
        self.ready = False
        self.finished = False
        self.exceeded: Bound | None = None
        self.begun = False
        self._socket = WSConnection(ConnectionType.SERVER)
        self._max_message = max_message_bytes
        self._origins = frozenset(origin.lower() for origin in origins)
        self._max_fragments = max_fragments
        self._parts: list[bytes] = []
        self._size = 0
        self._fragments = 0
        self._replies = bytearray()

    def receive(self, data: bytes) -> list[bytes | KeepAlive]:
        """Take what the stream brought; the whole messages it completes, and a keep-alive for each control frame."""
        found: list[bytes | KeepAlive] = []
        if self.finished or not data:  # no data would mean the end of the stream to wsproto
            return found
        heard = False
        try:
            self._socket.receive_data(data)
            for event in self._socket.events():
                heard = True
                match event:
                    case TextMessage() | BytesMessage():
                        self._take(event, found)
                    case Ping() as ping:
                        self._replies += self._socket.send(ping.response())
                        found.append(KeepAlive.PING)
                    case Pong():
                        found.append(KeepAlive.PONG)
                    case Request() as request:
                        self._open(request)
                    case CloseConnection() as close:
                        if self._socket.state is ConnectionState.REMOTE_CLOSING:
                            self._replies += self._socket.send(close.response())
                        self.finished = True
                if self.finished:
                    break
                if len(found) % MAX_IDLE_PIECES == MAX_IDLE_PIECES - 1 and idle_pieces(found) >= MAX_IDLE_PIECES - 1:
                    raise SipParseError("a flood of keep-alives")
        except RemoteProtocolError as error:
            refusal = error.event_hint
            if self.ready or not isinstance(refusal, RejectConnection):
                raise SipParseError("not WebSocket") from error
            self._refuse(refusal.status_code, refusal.headers)  # 426 names our version (RFC 6455 section 4.4)
        except (LocalProtocolError, ValueError) as error:
            raise SipParseError("not WebSocket") from error
        self.begun = bool(self._parts or self._fragments) or not heard
        return found

    def _open(self, request: Request) -> None:
        origin = next((value for name, value in request.extra_headers if name.lower() == b"origin"), None)
        if SUBPROTOCOL not in request.subprotocols:
            self._refuse(400)
        elif origin is not None and self._origins and origin.decode("latin-1").lower() not in self._origins:
            self._refuse(403)
        else:
            self._replies += self._socket.send(AcceptConnection(subprotocol=SUBPROTOCOL))
            self.ready = True

    def _refuse(self, status: int, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        headers = [*more, (b"content-length", b"0"), (b"connection", b"close")]
        answer = self._socket.send(RejectConnection(status_code=status, headers=headers))
        line = b"HTTP/1.1 %d " % status  # to which wsproto adds no reason phrase
        self._replies += answer.replace(line, line + HTTPStatus(status).phrase.encode(), 1)
        self.finished = True

    def _take(self, event: Message, found: list[bytes | KeepAlive]) -> None:  # type: ignore[type-arg]  # either kind
        part = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        self._parts.append(part)
        self._size += len(part)
        self._fragments += event.frame_finished
        if self._size > self._max_message or self._fragments > self._max_fragments:
            self.exceeded = "message" if self._size > self._max_message else "fragments"
            reason = CloseReason.MESSAGE_TOO_BIG
            self._replies += self._socket.send(CloseConnection(code=reason))
            self.finished = True
        elif event.message_finished:
            message = b"".join(self._parts)
            if message == KeepAlive.PING.value:  # not in RFC 7118, but web phones do it
                self._replies += self.wrap(KeepAlive.PONG.value)
                found.append(KeepAlive.PING)
            else:
                found.append(message or KeepAlive.PONG)
        if event.message_finished:
            self._parts, self._size, self._fragments = [], 0, 0

    def wrap(self, message: bytes) -> bytes:
        """A message as it goes out: as text, which is what pages expect, unless its body is none; b"" once closed."""
        try:
            frame: Message = TextMessage(data=message.decode())  # type: ignore[type-arg]  # either kind
        except UnicodeDecodeError:
            frame = BytesMessage(data=message)
        return self._send(frame)

    def ping(self) -> bytes:
        """A ping, which every client answers by itself; b"" once closed."""
        return self._send(Ping())

    def _send(self, event: Message | Ping) -> bytes:  # type: ignore[type-arg]  # text or bytes
        try:
            return self._socket.send(event)
        except LocalProtocolError:
            return b""

    def replies(self) -> bytes:
        """Take what is to be sent in answer: the upgrade's, pongs, a closing frame."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies
