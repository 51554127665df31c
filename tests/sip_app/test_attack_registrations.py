"""Registrations that would be a burden to every call: Paths of hundreds of hops, Call-IDs of kilobytes."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, running

from protocols.net import Address
from sip_app.calls.incoming import Caller


def test_a_path_too_long_for_any_request_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            hop = "<sip:127.0.0.1:5070;lr>"
            short = (("Path", hop), ("Path", "<sip:edge.example;lr>"), ("Supported", "path"))
            assert (await phone.register(headers=short)).status == 200
            for path in ([hop] * 100, [hop, f"<sip:{'a' * 5000}@edge.example;lr>"]):
                lines = [*[("Path", entry) for entry in path], ("Supported", "path")]
                assert (await phone.register(headers=lines)).status == 400
            assert [len(binding.path) for binding in await world.server.registrar.bindings(f"1001@{DOMAIN}")] == [2]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["+sip.instance", "Call-ID"])
def test_names_of_kilobytes_are_not_stored(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            if name == "Call-ID":
                phone.call_id = "x" * 8000
                answer = await phone.register()
            else:
                answer = await phone.register(contact=f'{phone.contact};+sip.instance="<{"x" * 8000}>"')
            assert answer.status == 400
            assert not await world.server.registrar.bindings(f"1001@{DOMAIN}")

    asyncio.run(scenario())


def test_guests_of_one_ipv6_household_are_one_caller() -> None:
    ones = [Caller("a@b", "a", False, Address(f"2001:db8:1:2::{number:x}", 5060)).key for number in (1, 2)]
    other = Caller("a@b", "a", False, Address("2001:db8:1:3::1", 5060)).key
    assert ones[0] == ones[1] != other
    assert Caller("a@b", "a", False, Address("192.0.2.1", 5060)).key == "192.0.2.1"
