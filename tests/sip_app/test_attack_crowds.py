"""Crowds: connections that take every place, and datagrams from addresses nobody has; who is known is served."""

import asyncio
import socket
from pathlib import Path

from prometheus_client import REGISTRY
from ua import DOMAIN, World, running

from protocols.net import Address

REGISTER = (
    f"REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.1.1.1:5060;branch=z9hG4bK%(n)d\r\n"
    f"From: <sip:1001@{DOMAIN}>;tag=%(n)d\r\nTo: <sip:1001@{DOMAIN}>\r\nCall-ID: %(n)d\r\nCSeq: 1 REGISTER\r\n"
    "Max-Forwards: 70\r\nContact: <sip:1001@127.1.1.1:5060>\r\nContent-Length: 0\r\n\r\n"
).encode()


def refused(limit: str) -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": limit}) or 0.0


async def connect(world: World, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*world.server.endpoint.transports.bound["tcp"], local_addr=(host, 0))


async def cut(reader: asyncio.StreamReader, within: float = 0.1) -> bool:
    try:
        async with asyncio.timeout(within):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_connections_of_strangers_give_way_and_those_of_the_greediest_address_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_connections=5, outgoing_share=0) as world:
            before = refused("sip.max_connections")
            ann = await world.phone("1001", transport="tcp")
            newcomer = await connect(world, "127.0.0.2")
            crowd = [await connect(world, "127.0.0.3") for _ in range(6)]
            await asyncio.sleep(0.1)
            assert [await cut(reader) for reader, _ in crowd] == [True] * 3 + [False] * 3
            assert not await cut(newcomer[0])
            assert refused("sip.max_connections") == before + 3
            assert (await ann.ask(ann.build("OPTIONS", f"sip:{DOMAIN}"))).status == 200

    asyncio.run(scenario())


def test_a_share_of_the_connections_is_kept_for_those_made_by_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_connections=4, outgoing_share=0.5) as world:
            for number in ("1001", "1002"):
                await world.phone(number, transport="tcp")
            reader, _ = await connect(world, "127.0.0.2")
            assert await cut(reader), "phones that have proven who they are give way to nobody"
            with socket.create_server(("127.0.0.1", 0)) as other:
                transports = world.server.endpoint.transports
                flow = transports.connect(Address("127.0.0.1", other.getsockname()[1]))
                assert transports.alive(flow)

    asyncio.run(scenario())


def test_a_flood_of_forged_datagrams_is_shed_and_known_phones_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, unauthenticated_per_second=20) as world:
            ann = await world.phone("1001")
            before = refused("sip.unauthenticated_per_second")
            for number in range(300):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
                    anyone.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
                    anyone.sendto(REGISTER % {b"n": number}, tuple(world.address))
                if number % 50 == 0:
                    assert (await ann.ask(ann.build("OPTIONS", f"sip:{DOMAIN}"))).status == 200
            assert (await ann.register()).status == 200
            assert refused("sip.unauthenticated_per_second") - before > 200

    asyncio.run(scenario())
