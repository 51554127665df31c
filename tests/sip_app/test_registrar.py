"""Phones register with digest, several at one number, and the bindings follow RFC 3261 section 10."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, running

from protocols.sip.message import Request, Response


def contacts(response: Response) -> set[str]:
    return {str(contact.uri) for contact in response.contacts}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("bind", ["127.0.0.1", "::1"])
def test_a_phone_registers_over_every_transport(tmp_path: Path, transport: str, bind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, bind=bind) as world:
            phone = await world.phone("1001", transport=transport, register=False)
            response = await phone.register()
            assert response.status == 200
            assert contacts(response) == {phone.contact.strip("<>")}
            assert response.contacts[0].expires == 600

    asyncio.run(scenario())


def test_a_wrong_password_and_an_unknown_user_are_challenged_alike(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            wrong = await world.phone("1001", register=False, password="guess")
            unknown = await world.phone("7777", register=False)
            one, other = await wrong.register(), await unknown.register()
            assert one.status == other.status == 401
            shapes = [
                [name for name, _ in response.credentials("www-authenticate")[0].params] for response in (one, other)
            ]
            assert shapes[0] == shapes[1]

    asyncio.run(scenario())


def test_registering_as_somebody_else_is_forbidden(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            assert (await phone.request("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1002@{DOMAIN}>")).status == 403
            assert (
                await phone.request(
                    "REGISTER", f"sip:{DOMAIN}", from_=f"<sip:1002@{DOMAIN}>", to=f"<sip:1001@{DOMAIN}>"
                )
            ).status == 403

    asyncio.run(scenario())


def test_a_replayed_credential_is_stale(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            request = phone.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>")
            again = phone.authorized(request, await phone.ask(request))
            assert (await phone.ask(again)).status == 200
            later = again.headers.with_("CSeq", f"{again.cseq.number + 1} REGISTER")
            replayed = await phone.ask(Request("REGISTER", again.uri, later))
            assert replayed.status == 401
            assert replayed.credentials("www-authenticate")[0].get("stale") == "true"

    asyncio.run(scenario())


def test_two_phones_share_a_number_and_one_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            desk, mobile = await world.phone("1001"), await world.phone("1001", transport="tcp")
            assert len((await desk.register()).contacts) == 2
            left = await mobile.register(expires=0)
            assert contacts(left) == {desk.contact.strip("<>")}

    asyncio.run(scenario())


def test_a_star_removes_every_binding_and_needs_expires_zero(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            await world.phone("1001")
            assert (await phone.register(contact="*")).status == 400
            assert (await phone.register(expires=0, contact="*")).contacts == ()

    asyncio.run(scenario())


def test_too_brief_and_too_long_registrations(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            brief = await phone.register(expires=5)
            assert (brief.status, brief.headers.get("Min-Expires")) == (423, "60")
            assert (await phone.register(expires=1_000_000)).contacts[0].expires == 3600

    asyncio.run(scenario())


def test_an_old_register_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            phone.cseq = 0
            assert (await phone.register(expires=0)).status == 400
            bindings = await world.server.registrar.bindings(f"1001@{DOMAIN}")
            assert len(bindings) == 1

    asyncio.run(scenario())


def test_a_number_holds_only_so_many_phones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_bindings=2) as world:
            await world.phone("1001")
            await world.phone("1001")
            third = await world.phone("1001", register=False)
            assert (await third.register()).status == 403

    asyncio.run(scenario())


def test_a_path_is_kept_and_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            path = "<sip:edge@127.0.0.1:5999;lr>"
            response = await phone.register(headers=[("Path", path), ("Supported", "path")])
            assert response.headers.get("Path") == path
            bindings = await world.server.registrar.bindings(f"1001@{DOMAIN}")
            assert bindings[0].path == (path,)

    asyncio.run(scenario())


def test_an_unknown_extension_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False)
            response = await phone.register(headers=[("Require", "teleport")])
            assert (response.status, response.headers.get("Unsupported")) == (420, "teleport")

    asyncio.run(scenario())
