"""Keep-alives, control frames and empty messages without end: cheap to send, and not so cheap to read."""

import asyncio
import time
from pathlib import Path

import pytest
from test_transport_limits import OPTIONS, Client, config, refused
from ua import running
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request as WebRequest
from wsproto.events import TextMessage

from protocols.sip.errors import SipParseError
from protocols.sip.framing import StreamFramer
from protocols.sip.websocket import WebSocketFramer

CHUNK = 65_536
FLOODS = {
    "tcp": [b"\r\n", b"\r\n\r\n"],
    "ws": [b"\x89\x80mask", b"\x8a\x80mask", b"\x81\x80mask", b"\x81\x81maskX"],
}
"""CRLF and pings; ping, pong, an empty and a tiny message as masked frames."""
KINDS = [(kind, flood) for kind, floods in FLOODS.items() for flood in floods]


@pytest.mark.parametrize(("kind", "flood"), KINDS)
def test_a_chunk_full_of_nothing_is_given_up_long_before_its_end(kind: str, flood: bytes) -> None:
    framer: StreamFramer | WebSocketFramer = StreamFramer()
    if kind == "ws":
        framer = WebSocketFramer()
        client = WSConnection(ConnectionType.CLIENT)
        framer.receive(client.send(WebRequest(host="h", target="/", subprotocols=["sip"])))
    begun = time.process_time()
    with pytest.raises(SipParseError):
        framer.receive(flood * (CHUNK // len(flood)))
    assert time.process_time() - begun < 0.02  # 0.04 to 0.13 s to read it all


@pytest.mark.parametrize(("kind", "flood"), KINDS)
def test_a_connection_that_brings_nothing_but_signs_of_life_is_cut(tmp_path: Path, kind: str, flood: bytes) -> None:
    async def scenario() -> None:
        before = refused("sip.keep_alives_per_second")
        async with running(tmp_path, config=config(tmp_path, keep_alives_per_second=5)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            assert await client.cut_after(lambda: flood, every=0.005) < 1.5
        assert refused("sip.keep_alives_per_second") == before + 1

    asyncio.run(scenario())


@pytest.mark.parametrize(("kind", "flood"), [("tcp", b"\r\n\r\n"), ("ws", b"\x89\x80mask")])
def test_a_phone_that_keeps_its_connection_alive_is_left_alone(tmp_path: Path, kind: str, flood: bytes) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            for _ in range(4):
                client.writer.write(flood)
                await asyncio.sleep(0.05)
            assert not client.reader.at_eof()
            client.writer.close()

    asyncio.run(scenario())


def test_pings_give_a_message_that_does_not_end_no_more_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = refused("sip.message_timeout")
        async with running(tmp_path, config=config(tmp_path, message_timeout=0.5)) as world:
            client = await Client.connect("ws", world.server.endpoint.transports.bound["ws"])
            assert client.web is not None
            client.writer.write(client.framed(OPTIONS))
            await asyncio.sleep(0.1)
            client.writer.write(client.web.send(TextMessage(data="OPTIONS", message_finished=False)))
            await asyncio.sleep(0.05)
            assert await client.cut_after(lambda: b"\x89\x80mask", every=0.2) < 1.5
        assert refused("sip.message_timeout") == before + 1

    asyncio.run(scenario())
