"""Nobody holds a connection by being slow, silent or greedy: each stage has its time in all, and each limit counts."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from prometheus_client import REGISTRY
from ua import running
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request as WebRequest
from wsproto.events import TextMessage

from protocols.net import Address
from provisioning.config import Config, SipConfig, TlsConfig, WebSocketConfig
from sip_app.transport.datagrams import stun_answer

KINDS = ["tcp", "tls", "ws", "wss"]
HALF = b"OPTIONS sip:dialcast.internal SIP/2.0\r\nSubject: "
OPTIONS = (
    b"OPTIONS sip:dialcast.internal SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1;rport\r\nMax-Forwards: 1\r\n"
    b"From: <sip:a@h>;tag=1\r\nTo: <sip:dialcast.internal>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)
TOO_LONG = OPTIONS.replace(b"Length: 0", b"Length: 4000") + b"x" * 4000


def config(folder: Path, web: dict[str, Any] | None = None, handshake: float = 9, **sip: Any) -> Config:
    return Config(
        data_dir=folder,
        sip=SipConfig(**{"port": 0} | sip),
        tls=TlsConfig(port=0, handshake_timeout=handshake),
        websocket=WebSocketConfig(**{"port": 0, "secure_port": 0} | (web or {})),
    )


def refused(limit: str) -> float:
    """How often this limit has refused something."""
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": limit}) or 0.0


class Client:
    """A connection that does as it is told."""

    def __init__(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.web = WSConnection(ConnectionType.CLIENT) if kind in ("ws", "wss") else None

    @classmethod
    async def connect(cls, kind: str, address: Address) -> "Client":
        context = ssl.create_default_context() if kind in ("tls", "wss") else None
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = cls(kind, *await asyncio.open_connection(*address, ssl=context))
        if client.web is not None:
            client.writer.write(client.upgrade)
            client.web.receive_data(await client.reader.readuntil(b"\r\n\r\n"))
            list(client.web.events())
        return client

    @property
    def upgrade(self) -> bytes:
        assert self.web is not None
        return self.web.send(WebRequest(host="h", target="/", subprotocols=["sip"]))

    def framed(self, message: bytes) -> bytes:
        return self.web.send(TextMessage(data=message.decode())) if self.web is not None else message

    async def cut_after(self, drip: Callable[[], bytes] = lambda: b"", every: float = 0.02) -> float:
        """Seconds until the server closes, while `drip` gives what is sent."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        ended = asyncio.ensure_future(self.until_closed())
        while not ended.done():
            assert loop.time() - start < 5, "still open"
            with suppress(ConnectionError):
                self.writer.write(drip())
            await asyncio.wait([ended], timeout=every)
        return loop.time() - start

    async def until_closed(self) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(4096):
                pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_trickles_in_is_cut_off_in_time(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, message_timeout=0.4)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            client.writer.write(client.framed(OPTIONS))
            await client.reader.read(20)
            before = refused("sip.message_timeout")
            trickle = iter(client.framed(HALF + b"x" * 60_000))
            assert 0.3 < await client.cut_after(lambda: bytes([next(trickle)])) < 1.5
            assert refused("sip.message_timeout") == before + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("headers", [True, False], ids=["headers", "body"])
def test_a_message_too_large_for_a_connection_ends_it_and_counts(tmp_path: Path, kind: str, headers: bool) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, max_message_bytes=3000, max_header_bytes=1500)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            limit = "sip.max_header_bytes" if headers and client.web is None else "sip.max_message_bytes"
            before = refused(limit)
            client.writer.write(client.framed(HALF + b"x" * 4000 if headers else TOO_LONG))
            await client.cut_after()
            assert refused(limit) == before + 1

    asyncio.run(scenario())


def test_a_message_in_too_many_frames_ends_the_websocket_and_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, web={"max_fragments": 3})) as world:
            client = await Client.connect("ws", world.server.endpoint.transports.bound["ws"])
            before = refused("websocket.max_fragments")
            assert client.web is not None
            for _ in range(4):
                client.writer.write(client.web.send(TextMessage(data="x", message_finished=False)))
            await client.cut_after()
            assert refused("websocket.max_fragments") == before + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drip", [b"", b"\r\n\r\n"], ids=["silent", "keep-alives only"])
def test_a_first_message_must_come_in_time(tmp_path: Path, kind: str, drip: bytes) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, connection_first_message_timeout=0.3)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            assert 0.2 < await client.cut_after(lambda: client.framed(drip) if drip else b"", every=0.1) < 1.5

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_a_tls_handshake_must_end_in_time(tmp_path: Path, kind: str) -> None:
    """A ClientHello announced at full length, and then a byte at a time."""

    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, handshake=0.3)) as world:
            address = world.server.endpoint.transports.bound[kind]
            client = Client("tcp", *await asyncio.open_connection(*address))
            hello = iter(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
            before = refused("tls.handshake_timeout")
            assert 0.2 < await client.cut_after(lambda: bytes([next(hello)])) < 1.5
            assert refused("tls.handshake_timeout") == before + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["ws", "wss"])
def test_a_websocket_upgrade_must_end_in_time(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, {"upgrade_timeout": 0.3})) as world:
            address = world.server.endpoint.transports.bound[kind]
            client = await Client.connect({"ws": "tcp", "wss": "tls"}[kind], address)
            request = iter(b"GET / HTTP/1.1\r\n" + b"X-Slow: 1\r\n" * 100)
            before = refused("websocket.upgrade_timeout")
            assert 0.2 < await client.cut_after(lambda: bytes([next(request)])) < 1.5
            assert refused("websocket.upgrade_timeout") == before + 1

    asyncio.run(scenario())


def test_a_web_page_that_answers_no_ping_is_gone_and_one_that_does_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, {"ping_interval": 0.1})) as world:
            page = await world.phone("1001", transport="ws")
            dead = await Client.connect("ws", world.server.endpoint.transports.bound["ws"])
            assert await dead.cut_after() < 1
            assert (await page.register()).status == 200

    asyncio.run(scenario())


def test_one_address_holds_only_so_many_connections_of_all_kinds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, max_connections_per_address=4)) as world:
            bound = world.server.endpoint.transports.bound
            clients = [await Client.connect(kind, bound[kind]) for kind in KINDS]
            before = refused("sip.max_connections_per_address")
            one_more = Client("tcp", *await asyncio.open_connection(*bound["tcp"]))
            await one_more.cut_after()
            assert refused("sip.max_connections_per_address") == before + 1
            clients.pop().writer.close()
            await asyncio.sleep(0.05)
            welcome = await Client.connect("tcp", bound["tcp"])
            welcome.writer.write(OPTIONS)
            assert (await welcome.reader.read(100)).startswith(b"SIP/2.0 200")

    asyncio.run(scenario())


def test_one_address_may_connect_only_so_often(tmp_path: Path) -> None:
    """A TLS handshake costs the server a signature: nobody gets thousands a second."""

    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, requests_per_second=10)) as world:
            address = world.server.endpoint.transports.bound["tls"]
            before = refused("sip.requests_per_second")
            attempts = await asyncio.gather(
                *[Client.connect("tls", address) for _ in range(30)], return_exceptions=True
            )
            stood = [attempt for attempt in attempts if isinstance(attempt, Client)]
            assert 10 <= len(stood) <= 15
            assert refused("sip.requests_per_second") - before == 30 - len(stood)

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = config(tmp_path, max_unsent_bytes=65_536, requests_per_second=100_000)
        async with running(tmp_path, config=settings) as world:
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.connect(world.server.endpoint.transports.bound["tcp"])
            client = Client("tcp", *await asyncio.open_connection(sock=small))
            transport: Any = client.writer.transport
            transport.pause_reading()
            before = refused("sip.max_unsent_bytes")
            with suppress(ConnectionError):
                for number in range(40_000):
                    client.writer.write(client.framed(OPTIONS.replace(b"z9hG4bK1", b"z9hG4bK%d" % number)))
                    if number % 50 == 0:
                        await asyncio.wait_for(client.writer.drain(), 5)
                        await asyncio.sleep(0)
                    if refused("sip.max_unsent_bytes") > before:
                        break
            assert refused("sip.max_unsent_bytes") > before

    asyncio.run(scenario())


def test_a_stun_keep_alive_is_answered_with_the_address_it_came_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, requests_per_second=5) as world:
            request = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
            with socket.socket(type=socket.SOCK_DGRAM) as phone:
                phone.bind(("127.0.0.1", 0))
                phone.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendto(phone, request, tuple(world.address))
                answer = stun.parse_message(await asyncio.wait_for(loop.sock_recv(phone, 1000), 3))
                assert answer.message_class is stun.Class.RESPONSE
                assert answer.attributes["XOR-MAPPED-ADDRESS"] == phone.getsockname()
                for _ in range(50):
                    await loop.sock_sendto(phone, request, tuple(world.address))
                await asyncio.sleep(0.2)
                answers = 0
                with suppress(BlockingIOError):
                    while phone.recv(1000):
                        answers += 1
                assert 1 <= answers <= 6, "answers are bounded by requests_per_second"

    asyncio.run(scenario())


@pytest.mark.parametrize("source", [Address("192.0.2.1", 5060), Address("2001:db8::1", 5060)])
def test_a_stun_answer_is_less_than_twice_the_request_on_the_wire(source: Address) -> None:
    request = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
    answer = stun_answer(request, source)
    assert answer is not None
    headers = 28 if "." in source.host else 48
    assert headers + len(answer) < 2 * (headers + len(request))


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x00",
        b"\x00" * 20,
        bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION)),
        bytes(stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)),
        b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x24\x00\x00",
        b"\x00\x01\x00\x78\x21\x12\xa4\x42" + bytes(132),
    ],
    ids=("a byte", "zeros", "indication", "allocate", "cut short", "long"),
)
def test_what_is_no_binding_request_gets_nothing(datagram: bytes) -> None:
    assert stun_answer(datagram, Address("192.0.2.1", 5060)) is None
