"""Whatever the network sends, the server neither falls over nor goes deaf: RFC 4475 and plain garbage, UDP and TCP."""

import asyncio
import logging
import secrets
from pathlib import Path

import pytest
from rfc4475 import CORPUS
from ua import DOMAIN, World, running

from protocols.sip.message import make_response


async def hears(world: World, transport: str) -> None:
    """The server still answers a newcomer."""
    phone = await world.phone("1001", transport=transport, register=False)
    assert (await phone.register()).status == 200


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_no_torture_message_leaves_a_traceback_or_a_deaf_server(
    tmp_path: Path, transport: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            for data in messages:
                stranger = await world.phone("9", transport=transport, register=False)
                stranger.send_raw(data)
                await asyncio.sleep(0.005)
                if transport == "udp":
                    assert (await stranger.ask(stranger.build("OPTIONS", f"sip:{DOMAIN}"))).status == 200
            await asyncio.sleep(0.3)
            await hears(world, transport)

    messages = [path.read_bytes() for path in sorted(CORPUS.glob("*.dat"))]
    assert len(messages) == 49
    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert not caplog.records
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def test_garbage_is_dropped_in_silence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            stranger = await world.phone("9", register=False)
            pieces = [b"", b"\0", b"\r\n\r\n", secrets.token_bytes(1400), b"INVITE", b"INVITE sip:a SIP/2.0\r\n\r\n"]
            for data in [*pieces, b"A" * 60_000, b"\r\n" * 100, b"REGISTER sip:x SIP/2.0\r\nVia:\r\n\r\n"]:
                stranger.send_raw(data)
            await hears(world, "udp")
            assert stranger.raw == []

    asyncio.run(scenario())


def test_a_stream_that_loses_its_place_is_cut_and_a_ping_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", transport="tcp")
            phone.send_raw(b"\r\n\r\n")
            await asyncio.sleep(0.1)
            assert phone.pongs == 1
            phone.send_raw(b"INVITE sip:x SIP/2.0\r\nContent-Length: many\r\n\r\n")
            await asyncio.wait_for(phone.reading, 2)
            await hears(world, "tcp")

    asyncio.run(scenario())


def test_silent_connections_and_too_many_connections_are_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_connections=2, connection_first_message_timeout=0.2) as world:
            phones = [await world.phone("9", transport="tcp", register=False) for _ in range(3)]
            await asyncio.wait_for(phones[2].reading, 1)
            await asyncio.wait_for(phones[0].reading, 1)
            await hears(world, "tcp")

    asyncio.run(scenario())


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_connections=50, max_connections_per_address=2) as world:
            phones = [await world.phone("9", transport="tcp", register=False) for _ in range(3)]
            await asyncio.wait_for(phones[2].reading, 1)
            assert not phones[0].reading.done()
            assert not phones[1].reading.done()

    asyncio.run(scenario())


def test_messages_in_pieces_and_several_at_once_are_understood_on_a_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", transport="tcp")
            request = phone.build("OPTIONS", f"sip:{DOMAIN}")
            lines = request.headers.prepend("Via", "SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKa")
            one = type(request)("OPTIONS", request.uri, lines).serialise()
            other = one.replace(b"z9hG4bKa", b"z9hG4bKb")
            for byte in one[:-1]:
                phone.send_raw(bytes([byte]))
            phone.send_raw(one[-1:] + other)
            await asyncio.sleep(0.2)
            assert sum(data.startswith(b"SIP/2.0 200") for data in phone.raw) == 3  # with the REGISTER's

    asyncio.run(scenario())


def test_a_bad_request_in_a_call_does_not_hurt_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, invite = await bob.asked("INVITE")
            bob.send_raw(make_response(invite, 180).serialise().replace(b"CSeq", b"CSoq"))
            bob.respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())
