"""Strangers at the XCAP door: all places taken, requests without end, odd paths."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from test_xcap import World, run

from protocols.net import Address
from sip_app.xcap.errors import XcapError
from sip_app.xcap.selector import parse_path

ASKED = b"GET /xcap-caps/global/index HTTP/1.1\r\nHost: xcap\r\n\r\n"


async def connected(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
    """A connection, and whether it still stands a moment later."""
    reader, writer = await asyncio.open_connection(*address)
    with suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(reader.read(1), 0.2)
        return reader, writer, False
    return reader, writer, True


def test_one_address_cannot_take_every_place(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        held = [await connected(world.address) for _ in range(4)]
        assert [stands for _, _, stands in held] == [True, True, True, False]
        held[0][1].close()
        await asyncio.sleep(0.1)
        assert (await connected(world.address))[2]
        for _, writer, _ in held:
            writer.close()

    run(tmp_path, scenario, max_connections_per_address=3)


def test_whoever_asks_without_end_loses_the_connection_and_gets_no_other_at_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        reader, writer = await asyncio.open_connection(*world.address)
        writer.write(ASKED * 50)
        async with asyncio.timeout(5):
            answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200"] * 5 + [b"503"]
        writer.close()
        more = await asyncio.gather(*(connected(world.address) for _ in range(15)))
        assert sum(stands for _, _, stands in more) <= 11
        for _, writer, _ in more:
            writer.close()

    run(tmp_path, scenario, requests_per_second=5)


@pytest.mark.parametrize("query", ["xmlns(x=%00)", "xmlns(x=a%1Fb)", "xmlns(x=%E2%80%A8)"])
def test_a_name_no_document_can_have_is_a_bad_request(query: str) -> None:
    path = "/simservs.ngn.etsi.org/users/sip:1001@d/simservs.xml/~~/simservs%5B@x:y='z'%5D"
    with pytest.raises(XcapError, match="400"):
        parse_path(path, query)
