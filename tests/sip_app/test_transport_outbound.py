"""Phones with several flows (RFC 5626) and phones behind proxies that add Path (RFC 3327)."""

import asyncio
from pathlib import Path

import pytest
from ua import DOMAIN, Phone, World, running

from protocols.sip.message import Response
from sip_app.transport import streams

INSTANCE = "<urn:uuid:00000000-0000-1000-8000-aabbccddeeff>"
SAME_CONTACT = "sip:1002@phone.invalid"


async def flow(world: World, number: int, *, transport: str = "udp") -> tuple[Phone, Response]:
    """One more flow of the same phone of 1002."""
    phone = await world.phone("1002", transport=transport, register=False)
    contact = f'<{SAME_CONTACT}>;+sip.instance="{INSTANCE}";reg-id={number}'
    return phone, await phone.register(contact=contact, headers=[("Supported", "outbound, path")])


def test_two_flows_of_a_phone_are_two_bindings_but_one_phone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            _, first = await flow(world, 1)
            assert (first.status, first.headers.get("Require")) == (200, "outbound")
            assert first.headers.get("Flow-Timer") == "120"
            wire, second = await flow(world, 2, transport="tcp")
            assert {contact.param("reg-id") for contact in second.contacts} == {"1", "2"}
            assert {str(contact.uri) for contact in second.contacts} == {SAME_CONTACT}
            ann = await world.phone("1001")
            call = await ann.dial("1002")
            tx, _ = await wire.asked("INVITE")
            wire.respond(tx, 200)
            await call.answered()
            assert all(phone.requests.empty() for phone in world.phones)

    asyncio.run(scenario())


def test_a_flow_registered_anew_replaces_its_binding(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            await flow(world, 1)
            _, again = await flow(world, 1, transport="tcp")
            assert len(again.contacts) == 1
            phone, gone = await flow(world, 2)
            assert len(gone.contacts) == 2
            contact = f'<{SAME_CONTACT}>;+sip.instance="{INSTANCE}";reg-id=2'
            left = await phone.register(expires=0, contact=contact, headers=[("Supported", "outbound")])
            assert [entry.param("reg-id") for entry in left.contacts] == ["1"]

    asyncio.run(scenario())


def test_a_call_goes_to_the_next_flow_when_one_says_430(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phones = [(await flow(world, 1))[0], (await flow(world, 2))[0]]
            call = await (await world.phone("1001")).dial("1002")
            first = await asyncio.wait(
                [asyncio.ensure_future(phone.asked("INVITE")) for phone in phones],
                return_when=asyncio.FIRST_COMPLETED,
            )
            (asked,), waiting = first
            tx, _ = asked.result()
            owner = next(phone for phone in phones if tx.flow == phone.flow)
            owner.respond(tx, 430)
            tx, _ = await asyncio.wait_for(waiting.pop(), 3)
            other = next(phone for phone in phones if phone is not owner)
            other.respond(tx, 200)
            assert (await call.answered()).status == 200

    asyncio.run(scenario())


def test_a_dead_flow_is_not_tried(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            alive, _ = await flow(world, 1)
            dead, _ = await flow(world, 2, transport="tcp")
            dead.writer.close()
            await asyncio.sleep(0.1)
            call = await (await world.phone("1001")).dial("1002")
            tx, _ = await alive.asked("INVITE")
            alive.respond(tx, 200)
            await call.answered()
            assert (await alive.register(expires=0, contact="*")).status == 200

    asyncio.run(scenario())


def test_a_flow_that_dies_while_the_call_is_on_its_way_is_followed_by_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            alive, _ = await flow(world, 1)
            dying, _ = await flow(world, 2, transport="tcp")
            call = await (await world.phone("1001")).dial("1002")
            await dying.asked("INVITE")
            dying.writer.transport.abort()
            tx, _ = await alive.asked("INVITE")
            alive.respond(tx, 200)
            await call.answered()

    asyncio.run(scenario())


def test_a_registered_connection_lives_by_its_keep_alives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FLOW_SLACK", -0.5)

    async def scenario() -> None:
        async with running(tmp_path, flow_timer=1) as world:
            silent, _ = await flow(world, 1, transport="tcp")
            lively, _ = await flow(world, 2, transport="tcp")
            for _ in range(8):
                lively.send_raw(b"\r\n\r\n")
                await asyncio.sleep(0.1)
            assert silent.reading.done()
            assert not lively.reading.done()
            assert lively.pongs

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "status"), [(None, 439), ("<sip:127.0.0.1:5999;lr>", 439), ("<sip:127.0.0.1:5999;lr;ob>", 200)]
)
def test_a_first_hop_must_know_flows(tmp_path: Path, path: str | None, status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1002", register=False)
            headers = [("Supported", "outbound, path"), ("Via", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKfirst")]
            headers += [("Path", path)] if path else []
            contact = f'<{SAME_CONTACT}>;+sip.instance="{INSTANCE}";reg-id=1'
            answer = await phone.register(contact=contact, headers=headers)
            assert answer.status == status
            if status == 200:
                assert answer.headers.get("Require") == "outbound"
                assert "flow-timer" not in answer.headers, "our first hop tells its own"

    asyncio.run(scenario())


@pytest.mark.parametrize("extra", ["reg-id=0x1", "reg-id=99999999999"])
def test_a_reg_id_that_is_no_number_is_refused(tmp_path: Path, extra: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1002", register=False)
            contact = f'<{SAME_CONTACT}>;+sip.instance="{INSTANCE}";{extra}'
            assert (await phone.register(contact=contact, headers=[("Supported", "outbound")])).status == 400

    asyncio.run(scenario())


def test_a_strangers_path_must_begin_where_the_request_comes_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1002", register=False)
            for path in ("<sip:192.0.2.7;lr>", "<sip:victim.example;lr>"):
                answer = await phone.register(headers=[("Path", path), ("Supported", "path")])
                assert (answer.status, answer.reason) == (403, "Path Leads Elsewhere")

    asyncio.run(scenario())


def test_a_trusted_proxys_path_is_kept_and_used_as_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, trusted_peers=("127.0.0.0/8",)) as world:
            edge = await world.phone("1002", register=False)
            path = ("<sip:token@192.0.2.7;lr;ob>", "<sip:192.0.2.8;lr>")
            answer = await edge.register(headers=[("Path", ", ".join(path))])
            assert answer.status == 200
            call = await (await world.phone("1001", register=False)).dial("1002")
            _, request = await edge.asked("INVITE")
            assert tuple(map(str, request.routes)) == path
            call.cancel()

    asyncio.run(scenario())


def test_strictness_refuses_a_path_its_phone_does_not_know_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, path="strict") as world:
            phone = await world.phone("1002", register=False)
            path = ("Path", "<sip:127.0.0.1:5999;lr>")
            refused = await phone.register(headers=[path])
            assert (refused.status, refused.headers.get("Unsupported")) == (420, "path")
            assert (await phone.register(headers=[path, ("Supported", "path")])).status == 200
            bindings = await world.server.registrar.bindings(f"1002@{DOMAIN}")
            assert bindings[0].path == ("<sip:127.0.0.1:5999;lr>",)

    asyncio.run(scenario())
