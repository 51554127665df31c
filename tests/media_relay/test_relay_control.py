"""The control link for real: a relay server, TCP, AMP; hello, ownership, pages, reconciliation, orphans."""

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from relay_world import HOST, Peer, Source, check
from twisted.protocols import amp

from media_relay.amp_stream import AmpStream
from media_relay.server import RelayServer
from protocols.control import (
    PAGE_BYTES,
    AddViewer,
    ClaimGroup,
    CloseGroup,
    Command,
    ControlError,
    Done,
    Event,
    Hello,
    HelloReply,
    LegInfo,
    LegJoined,
    LegPage,
    LegRow,
    LegSpec,
    ListLegs,
    MediaStarted,
    OpenGroup,
    RemoveLeg,
    Reply,
    UpdateLeg,
)
from protocols.control_amp import ControlCall, RefusedError
from protocols.control_json import decode, encode
from protocols.net import Address
from provisioning.config import Config, ControlConfig, RelayConfig

R = TypeVar("R", bound=Reply)
TOKEN = "shared secret"


class Server(amp.AMP):
    """An application server's end, as small as can be."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's AMP is untyped
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.stream = AmpStream(self, self)

    def received(self, size: int) -> bool:
        return size > 0

    @ControlCall.responder
    def called(self, name: str, body: bytes) -> dict[str, Any]:
        value = decode(name, body)
        assert isinstance(value, Event)
        self.events.put_nowait(value)
        answer, data = encode(Done())
        return {"name": answer, "body": data}

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802 - Twisted's name
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.lost.set()

    async def call(self, command: Command, kind: type[R]) -> R:
        name, body = encode(command)
        wire: Any = self
        try:
            sent = wire.callRemote(ControlCall, name=name, body=body)
            answer = await sent.asFuture(asyncio.get_running_loop())
        except RefusedError as error:
            code, _, text = str(error).partition(": ")
            raise ControlError(code, text) from None  # type: ignore[arg-type]
        reply = decode(answer["name"], answer["body"])
        assert isinstance(reply, kind)
        return reply

    async def event(self, kind: type[Event] | Any) -> Any:
        while True:
            event = await asyncio.wait_for(self.events.get(), 5)
            if isinstance(event, kind):
                return event


async def dial(address: Address, tls: ssl.SSLContext | None = None) -> Server:
    server = Server()
    loop = asyncio.get_running_loop()
    name = "localhost" if tls else None
    await loop.create_connection(lambda: server.stream, address.host, address.port, ssl=tls, server_hostname=name)
    return server


async def hello(address: Address, as_id: str = "as1", epoch: int = 1, token: str = TOKEN) -> Server:
    server = await dial(address)
    await server.call(Hello(as_id, epoch, token), HelloReply)
    return server


def config(**relay: Any) -> Config:
    return Config(
        control=ControlConfig(token=SecretStr(TOKEN)),
        relay=RelayConfig(**{"port_min": 31000, "port_max": 31999, **relay}),
    )


def serve(test: Callable[[Address], Awaitable[None]], made: Config | None = None) -> None:
    """Run a test against a relay server on the loop."""

    async def run() -> None:
        server = RelayServer(made or config())
        address = await server.start()
        try:
            await asyncio.wait_for(test(address), 60)
        finally:
            await server.stop()

    asyncio.run(run())


@contextmanager
def phones(*kinds: Any) -> Iterator[list[Peer]]:
    made = [Peer(kind) for kind in kinds]
    try:
        yield made
    finally:
        for peer in made:
            peer.close()


async def rows_of(server: Server) -> list[LegRow]:
    rows: list[LegRow] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page = await server.call(ListLegs(after), LegPage)
        assert len(page.rows) <= 200 and len(encode(page)[1]) <= PAGE_BYTES
        rows += page.rows
        after = page.next
    return rows


def test_a_broadcast_from_join_to_picture_over_the_real_link() -> None:
    async def test(address: Address) -> None:
        with phones("audio", "audio") as (source, viewer):
            server = await hello(address)
            leg = LegSpec("s", "1001", HOST, (source.spec(receives=True, ice=True),))
            info = await server.call(OpenGroup("1001", 1, leg), LegInfo)
            place = info.media[0]
            source.check(place)
            assert await server.event(LegJoined) == LegJoined("1001", 1, "s")
            sink = LegSpec("v", "2001", HOST, (viewer.spec(sends=True, ice=True),))
            seat = (await server.call(AddViewer("1001", 1, sink), LegInfo)).media[0]
            viewer.rtp.sendto(check(seat), seat.rtp)
            assert (await server.event(LegJoined)).leg_id == "v"
            Source(source, place.rtp).send(b"sound")
            assert (await server.event(MediaStarted)).kind == "audio"
            assert [p.payload for p in viewer.packets()] == [b"sound"]
            await server.call(CloseGroup("1001", 1), Done)
            await server.call(CloseGroup("1001", 1), Done)
            assert await rows_of(server) == []

    serve(test)


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (Hello("as1", 1, "wrong"), "denied"),
        (Hello("as1", 1, TOKEN, version=99), "version"),
        (ListLegs(), "denied"),
        (OpenGroup("1", 1, LegSpec("s", "1", HOST, ())), "denied"),
    ],
)
def test_nothing_is_done_before_a_good_hello(greeting: Command, code: str) -> None:
    async def test(address: Address) -> None:
        server = await dial(address)
        with pytest.raises(ControlError, match=code):
            await server.call(greeting, HelloReply)

    serve(test)


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 5000, b"\xff" * 300, b"\x00\x01a\x00\x01b" * 2000, b"GET / HTTP/1.1\r\n\r\n"]
)
def test_garbage_on_the_control_port_ends_that_connection_only(garbage: bytes) -> None:
    async def test(address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(garbage)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1_000_000), ControlConfig().hello_timeout / 2)
        writer.close()
        assert await rows_of(await hello(address)) == []

    serve(test)


def test_a_stranger_cannot_keep_more_than_a_few_connections_open() -> None:
    async def test(address: Address) -> None:
        idle = [await asyncio.open_connection(*address) for _ in range(40)]
        await asyncio.sleep(0.1)
        ended = sum(reader.at_eof() or reader.exception() is not None for reader, _ in idle)
        assert ended >= 40 - 16
        assert REGISTRY.get_sample_value("dialcast_relay_limited_total", {"limit": "control.max_strangers"})
        for _, writer in idle:
            writer.close()

    serve(test)


def test_a_server_that_dials_again_takes_over_from_its_old_link() -> None:
    async def test(address: Address) -> None:
        first = await hello(address, epoch=1)
        second = await hello(address, epoch=2)
        await asyncio.wait_for(first.lost.wait(), 5)
        assert await rows_of(second) == []
        with pytest.raises(ControlError, match="stale-epoch"):
            await hello(address, epoch=1)

    serve(test)


def test_groups_belong_to_who_opened_them_and_old_epochs_touch_nothing() -> None:
    async def test(address: Address) -> None:
        with phones("audio") as (source,):
            one, two = await hello(address, "as1"), await hello(address, "as2")
            leg = LegSpec("s", "1001", HOST, (source.spec(receives=True),))
            first = await one.call(OpenGroup("1001", 5, leg), LegInfo)
            assert await one.call(OpenGroup("1001", 5, leg), LegInfo) == first
            for command, code in (
                (CloseGroup("1001", 5), "not-owner"),
                (ClaimGroup("1001", 5), "not-owner"),
                (ClaimGroup("1001", 5, "as3"), "not-owner"),
                (OpenGroup("1001", 6, leg), "not-owner"),
            ):
                with pytest.raises(ControlError, match=code):
                    await two.call(command, Done)
            assert await rows_of(two) == []
            for old in (CloseGroup("1001", 4), RemoveLeg("1001", 4, "s"), OpenGroup("1001", 4, leg)):
                with pytest.raises(ControlError, match="stale-epoch"):
                    await one.call(old, Done)
            with pytest.raises(ControlError, match="unknown-leg"):
                await one.call(UpdateLeg("1001", 5, LegSpec("x", "1", HOST, leg.media)), LegInfo)
            await one.call(OpenGroup("1001", 6, leg), LegInfo)
            assert [row.epoch for row in await rows_of(one)] == [6]
            await two.call(ClaimGroup("1001", 6, "as1"), Done)
            assert await rows_of(one) == [], "it hangs, as the other knows"
            with pytest.raises(ControlError, match="not-owner"):
                await one.call(CloseGroup("1001", 6), Done)

    serve(test)


def test_five_thousand_legs_are_listed_in_pages_and_reconciled_after_a_drop() -> None:
    async def test(address: Address) -> None:
        with phones("audio", "audio") as (source, viewer):
            server = await hello(address)
            for group in range(10):
                leg = LegSpec("s", str(group), HOST, (source.spec(receives=True),))
                await server.call(OpenGroup(str(group), 1, leg), LegInfo)
                media = (viewer.spec(sends=True, ice=True),)
                viewers = [
                    server.call(AddViewer(str(group), 1, LegSpec(f"v{i}", "2", HOST, media)), LegInfo)
                    for i in range(499)
                ]
                await asyncio.gather(*viewers)
            rows = await rows_of(server)
            assert len(rows) == len({(row.group_id, row.leg_id) for row in rows}) == 5000
            server.stream.abortConnection()
            await server.lost.wait()
            again = await hello(address, epoch=2)
            assert len(await rows_of(again)) == 5000
            for group in range(9):
                await again.call(CloseGroup(str(group), 1), Done)
            assert {row.group_id for row in await rows_of(again)} == {"9"}

    serve(test)


def test_media_goes_on_without_the_server_and_an_orphan_closes_after_its_grace() -> None:
    async def test(address: Address) -> None:
        with phones("audio", "audio") as (source, viewer):
            server = await hello(address)
            leg = LegSpec("s", "1001", HOST, (source.spec(receives=True),))
            place = (await server.call(OpenGroup("1001", 1, leg), LegInfo)).media[0]
            await server.call(AddViewer("1001", 1, LegSpec("v", "2", HOST, (viewer.spec(sends=True),))), LegInfo)
            server.stream.abortConnection()
            await server.lost.wait()
            sender = Source(source, place.rtp)
            await asyncio.sleep(0.2)
            sender.send(b"on")
            await asyncio.sleep(0.1)
            assert [p.payload for p in viewer.packets()] == [b"on"]
            heir = await hello(address, "as2")
            await heir.call(ClaimGroup("1001", 1), Done)
            await asyncio.sleep(0.8)
            assert len(await rows_of(heir)) == 2
            heir.stream.abortConnection()
            await asyncio.sleep(1.0)
            assert await rows_of(await hello(address, "as2")) == []

    serve(test, config(orphan_grace=0.5))


def test_off_loopback_the_link_is_mutual_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    control = ControlConfig(token=SecretStr(TOKEN), tls_certificate=certificate, tls_key=key, tls_ca=certificate)

    async def test(address: Address) -> None:
        with_certificate = ssl.create_default_context(cafile=str(certificate))
        with_certificate.load_cert_chain(str(certificate), str(key))
        server = await dial(address, with_certificate)
        await server.call(Hello("as1", 1, TOKEN), HelloReply)
        bare = await dial(address, ssl.create_default_context(cafile=str(certificate)))
        await asyncio.wait_for(bare.lost.wait(), 5)
        plain = await dial(address)
        plain.stream.write(b"\x00\x01not tls at all, but long enough to be looked at")
        await asyncio.wait_for(plain.lost.wait(), 5)

    serve(test, Config(control=control, relay=RelayConfig(port_min=31000, port_max=31999)))
