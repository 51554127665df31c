"""What the two sides of a diverted call learn of it: the caller from responses, the target from the INVITE."""

import asyncio
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from test_diversion import forward
from test_diversion_conditional import ANSWER, diverted, entries
from test_service_calls import Service
from test_transport_resolver import SRV, ZONE, A, name_server
from ua import DOMAIN, running

from protocols.records import DiversionRule, DiversionRules
from protocols.sip.message import parse_message
from provisioning.config import Config, DnsConfig, SipConfig

HISTINFO = [("Supported", "histinfo")]
KNOWN = [f"<sip:1002@{DOMAIN}>;index=1", f"<sip:1003@{DOMAIN};cause=302>;index=1.1;mp=1"]


def test_a_caller_that_asks_gets_the_history_in_every_response(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            for headers, status in ((HISTINFO, 200), (HISTINFO, 486), ((), 200)):
                call = await ann.dial("1002", headers=headers)
                told, tx, _ = await diverted(call, carol)
                assert entries(told) == KNOWN
                leak = [("History-Info", "<sip:1009@elsewhere.example>;index=1")]
                carol.respond(tx, 180, headers=leak)
                carol.respond(tx, 183, headers=leak)
                carol.respond(tx, status, headers=leak, **(ANSWER if status == 200 else {}))
                shown = KNOWN if headers else []
                assert entries(await call.until(180)) == shown
                assert entries(await call.until(183)) == shown
                final = await call.final()
                assert (final.status, entries(final)) == (status, shown)
                if status == 200:
                    call.ack(final)
                    await carol.acknowledged()

    asyncio.run(scenario())


def test_responses_say_no_more_than_the_rule_lets_the_caller_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003", reveal_identity_to_caller="false")
            await forward(world, "1004", "1003", notify_caller=False)
            call = await ann.dial("1002", headers=HISTINFO)
            _, tx, _ = await diverted(call, carol)
            carol.respond(tx, 486)
            assert entries(await call.final()) == [
                KNOWN[0],
                "<sip:anonymous@anonymous.invalid;cause=302>;index=1.1;mp=1",
            ]
            call = await ann.dial("1004", headers=HISTINFO)
            tx, _ = await carol.asked("INVITE")
            carol.respond(tx, 486)
            final = await call.final()
            assert not entries(final)
            assert not [response for response in call.seen if response.status == 181]

    asyncio.run(scenario())


def test_what_a_call_was_refused_for_after_a_diversion_comes_with_its_history(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            await forward(world, "1002", "1003")
            final = await (await ann.dial("1002", headers=HISTINFO)).final()
            assert (final.status, final.reason) == (480, "1003 Is Not Registered")
            assert entries(final) == KNOWN

    asyncio.run(scenario())


def test_a_viewer_that_asks_gets_the_history_with_the_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, Service()) as world:
            ann = await world.phone("1001")
            await forward(world, "1002", "8888")
            for headers in (HISTINFO, ()):
                call = await ann.dial("1002", headers=headers)
                told = await call.until(181)
                assert [entry.cause for entry in told.history] == [None, 302]
                answered = await call.answered()
                assert entries(answered) == (entries(told) if headers else [])
                assert (await call.send("BYE")).status == 200

    asyncio.run(scenario())


def test_a_gateway_learns_why_a_call_is_deflected_to_it_at_the_port_it_was_sent_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, allow_targets=(r"55@127\.0\.0\.2",)) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            gateway = await world.phone("5000", register=False, host="127.0.0.2")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 302, headers=[("Contact", f"<sip:55@{gateway.flow.local};user=phone>")])
            tx, invite = await gateway.asked("INVITE")
            assert invite.uri == f"sip:55@{gateway.flow.local};user=phone;cause=480"
            assert entries(invite)[-1] == "<sip:55@127.0.0.2;cause=480>;index=1.2;mp=1"
            gateway.respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


@pytest.mark.parametrize("elsewhere", ["127.0.0.3:5060", "127.0.0.2:{port};maddr=127.0.0.3"])
def test_a_deflection_leads_to_no_host_the_operator_did_not_name(tmp_path: Path, elsewhere: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, allow_targets=(r"55@127\.0\.0\.2",)) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            other = await world.phone("5000", register=False, host="127.0.0.3")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            uri = f"sip:55@{elsewhere.format(port=other.flow.local.port)}"
            bob.respond(tx, 302, headers=[("Contact", f"<{uri}>")])
            assert (await call.final()).status in (403, 480)
            assert other.requests.empty()

    asyncio.run(scenario())


def test_a_gateway_learns_why_a_call_is_forwarded_to_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        # The gateway is found by name; its record has the port, so it need not be the standard one.
        async with name_server({}) as (zone, address):
            sip = SipConfig(port=0, allow_targets=(rf"55@{ZONE}",))
            config = Config(data_dir=tmp_path, sip=sip, dns=DnsConfig(servers=(address,), private_addresses=True))
            async with running(tmp_path, config=config) as world:
                ann = await world.phone("1001")
                gateway = await world.phone("5000", register=False, host="127.0.0.2")
                port = gateway.flow.local.port
                records: Any = zone.records
                records[f"_sip._udp.{ZONE}".encode()] = [SRV(1, 0, port, f"gw.{ZONE}", 60)]
                records[f"gw.{ZONE}".encode()] = [A("127.0.0.2", 60)]
                rule = DiversionRule("unconditional", f"55@{ZONE}")
                await world.store.diversions.change(f"1002@{DOMAIN}", lambda _: DiversionRules((rule,)))
                call = await ann.dial("1002")
                tx, invite = await gateway.asked("INVITE")
                assert invite.uri == f"sip:55@{ZONE};cause=302"
                gateway.respond(tx, 486)
                assert (await call.final()).status == 486

    asyncio.run(scenario())


def names(data: bytes, number: bytes) -> bool:
    """True if a message names a number anywhere, plainly or within the tokens of our routes."""
    message = parse_message(data)
    users = [route.sip_uri.user or "" for route in (*message.record_routes, *getattr(message, "routes", ()))]
    tokens = [user.partition(".")[0] for user in users]
    return number in data or any(number in urlsafe_b64decode(token + "=" * (-len(token) % 4)) for token in tokens)


def test_a_target_that_must_not_learn_who_forwarded_finds_no_trace_in_the_whole_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            served = b"1002@"
            await forward(world, "1002", "1003", reveal_identity_to_target="false")
            call = await ann.dial("1002", headers=HISTINFO)
            _, tx, invite = await diverted(call, carol)
            assert str(invite.to) == f"<sip:1003@{DOMAIN}>"
            carol.respond(tx, 180)
            theirs = carol.respond(tx, 200, **ANSWER)
            assert theirs is not None
            assert str((await call.until(180)).to.uri) == f"sip:1002@{DOMAIN}"
            answered = await call.answered()
            assert str(answered.to) == f"<sip:1002@{DOMAIN}>;tag=t1003"
            await carol.acknowledged()
            # The caller speaks within the call, then the callee.
            info = asyncio.create_task(call.send("INFO"))
            assert str((await carol.accept("INFO")).to) == f"<sip:1003@{DOMAIN}>;tag=t1003"
            assert str((await info).to) == f"<sip:1002@{DOMAIN}>;tag=t1003"
            theirs, again = theirs.request("INVITE")
            asking = asyncio.create_task(carol.ask(again))
            refused, got = await ann.asked("INVITE")
            assert str(got.from_) == f"<sip:1002@{DOMAIN}>;tag=t1003"
            ann.respond(refused, 488)
            assert (await asking).from_ == again.from_
            _, bye = theirs.request("BYE")
            ending = asyncio.create_task(carol.ask(bye))
            assert str((await ann.accept("BYE")).from_.uri) == f"sip:1002@{DOMAIN}"
            assert (await ending).status == 200
            heard = [data for data in carol.raw if b"CSeq: " in data and b"REGISTER" not in data]
            assert len(heard) >= 5
            assert not [data for data in heard if names(data, served)]

    asyncio.run(scenario())


def test_a_target_that_may_know_gets_to_as_the_caller_wrote_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, carol = await world.phone("1001"), await world.phone("1003")
            await forward(world, "1002", "1003")
            _, tx, invite = await diverted(await ann.dial("1002"), carol)
            assert str(invite.to) == f"<sip:1002@{DOMAIN}>"
            carol.respond(tx, 486)

    asyncio.run(scenario())
