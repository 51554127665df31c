"""SIP over WebSocket, byte by byte: the upgrade, one message per message, and nothing a client sends is too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from protocols.sip.errors import SipParseError
from protocols.sip.framing import KeepAlive
from protocols.sip.websocket import WebSocketFramer

REQUEST = b"OPTIONS sip:d SIP/2.0\r\n\r\n"


def upgraded(**limits: int) -> tuple[WSConnection, WebSocketFramer]:
    """A client and our end, past the upgrade."""
    client, server = WSConnection(ConnectionType.CLIENT), WebSocketFramer(**limits)
    server.receive(client.send(Request(host="h", target="/", subprotocols=["sip"])))
    client.receive_data(server.replies())
    assert list(client.events()) == [AcceptConnection(subprotocol="sip")]
    assert server.ready
    return client, server


def answer(server: WebSocketFramer, client: WSConnection) -> list[Event]:
    client.receive_data(server.replies())
    return list(client.events())


@pytest.mark.parametrize(
    ("subprotocols", "origin", "allowed", "status"),
    [
        ([], None, (), 400),
        (["xmpp"], None, (), 400),
        (["sip"], "https://evil.example", ("https://phone.example",), 403),
        (["xmpp", "sip"], "https://Phone.example", ("https://phone.example",), 101),
        (["sip"], None, ("https://phone.example",), 101),
        (["sip"], "https://any.example", (), 101),
    ],
)
def test_only_sip_and_only_welcome_pages_are_let_in(
    subprotocols: list[str], origin: str | None, allowed: tuple[str, ...], status: int
) -> None:
    client, server = WSConnection(ConnectionType.CLIENT), WebSocketFramer(origins=allowed)
    headers = [(b"Origin", origin.encode())] if origin else []
    server.receive(client.send(Request(host="h", target="/", subprotocols=subprotocols, extra_headers=headers)))
    [event, *_] = answer(server, client)
    if status == 101:
        assert isinstance(event, AcceptConnection)
        assert server.ready
    else:
        assert isinstance(event, RejectConnection)
        assert event.status_code == status
        assert server.finished


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01junk\r\n\r\n"])
def test_what_asks_for_no_websocket_gets_a_400(request_line: bytes) -> None:
    server = WebSocketFramer()
    assert server.receive(request_line) == []
    assert server.replies().startswith(b"HTTP/1.1 400")
    assert server.finished


def test_another_version_of_websocket_is_told_ours() -> None:
    asked = WSConnection(ConnectionType.CLIENT).send(Request(host="h", target="/", subprotocols=["sip"]))
    server = WebSocketFramer()
    assert server.receive(asked.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8")) == []
    head, *lines = server.replies().lower().split(b"\r\n")
    assert head == b"http/1.1 426 upgrade required"
    assert b"sec-websocket-version: 13" in lines
    assert server.finished


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 12))
def test_messages_survive_any_fragments_and_any_segments(cuts: list[int], segment: int) -> None:
    client, server = upgraded()
    text = "".join(chr(65 + at % 26) * size for at, size in enumerate(cuts))
    parts = [text[at : at + 25] for at in range(0, len(text), 25)]
    wire = b"".join(
        client.send(TextMessage(data=part, message_finished=at == len(parts) - 1)) for at, part in enumerate(parts)
    )
    found = [piece for at in range(0, len(wire), segment) for piece in server.receive(wire[at : at + segment])]
    assert found == [text.encode()]
    assert not server.begun


def test_a_binary_message_is_a_message_and_answers_go_out_as_text_if_they_are_text() -> None:
    client, server = upgraded()
    assert server.receive(client.send(BytesMessage(data=REQUEST))) == [REQUEST]
    client.receive_data(server.wrap(b"SIP/2.0 200 OK\r\n\r\n") + server.wrap(b"SIP/2.0 200 OK\r\n\r\n\xff"))
    assert [type(event) for event in client.events()] == [TextMessage, BytesMessage]


def test_keep_alives_of_both_kinds_are_answered() -> None:
    client, server = upgraded()
    assert server.receive(client.send(Ping(payload=b"x"))) == [KeepAlive.PING]
    assert answer(server, client) == [Pong(payload=b"x")]
    assert server.receive(client.send(TextMessage(data="\r\n\r\n"))) == [KeepAlive.PING]
    assert answer(server, client) == [TextMessage(data="\r\n")]
    client.receive_data(server.ping())
    [ping] = client.events()
    assert isinstance(ping, Ping)
    assert server.receive(client.send(ping.response())) == [KeepAlive.PONG]


def test_an_unfinished_message_shows_as_begun() -> None:
    client, server = upgraded()
    whole = client.send(TextMessage(data="x" * 500))
    for at in range(len(whole) - 1):
        assert server.receive(whole[at : at + 1]) == []
        assert server.begun


@pytest.mark.parametrize("limits", [{"max_message_bytes": 1_000}, {"max_fragments": 8}])
def test_a_message_too_large_or_in_too_many_pieces_ends_the_connection(limits: dict[str, int]) -> None:
    client, server = upgraded(**limits)
    for _ in range(9):
        assert server.receive(client.send(TextMessage(data="x" * 120, message_finished=False))) == []
    assert server.finished
    assert [event.code for event in answer(server, client) if isinstance(event, CloseConnection)] == [1009]
    assert server.receive(b"more") == []
    assert server.wrap(b"too late") == b""


def test_a_close_is_answered() -> None:
    client, server = upgraded()
    server.receive(client.send(CloseConnection(code=1000)))
    assert server.finished
    assert [event.code for event in answer(server, client) if isinstance(event, CloseConnection)] == [1000]


@given(st.lists(st.binary(max_size=64), max_size=20), st.booleans())
def test_garbage_raises_nothing_but_a_parse_error(chunks: list[bytes], after_upgrade: bool) -> None:
    server = upgraded()[1] if after_upgrade else WebSocketFramer()
    try:
        for chunk in chunks:
            server.receive(chunk)
            server.replies()
    except SipParseError:
        pass
