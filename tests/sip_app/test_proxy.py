"""Ordinary calls between registered phones: rung everywhere, answered once, hung up by either side."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from ua import DOMAIN, OFFER, Phone, World, running

from protocols.net import Address
from protocols.sip.message import Request
from provisioning.config import Config, SipConfig, SubscriberSeed


async def connected(world: World, caller: Phone, callee: Phone):  # type: ignore[no-untyped-def]
    """A call from one phone to another, answered and acknowledged: (the caller's call, the callee's dialog)."""
    call = await caller.dial(callee.number)
    tx, invite = await callee.asked("INVITE")
    callee.respond(tx, 180)
    await call.until(180)
    dialog = callee.respond(tx, 200, body=OFFER, content_type="application/sdp")
    await call.answered()
    await callee.acknowledged()
    return call, dialog, invite


@pytest.mark.parametrize("transports", [("udp", "udp"), ("udp", "tcp"), ("tcp", "udp"), ("tcp", "tcp")])
def test_a_call_is_rung_answered_and_hung_up_by_the_caller(tmp_path: Path, transports: tuple[str, str]) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001", transport=transports[0])
            bob = await world.phone("1002", transport=transports[1])
            call, _, invite = await connected(world, ann, bob)
            assert invite.uri == bob.contact.strip("<>")
            assert invite.max_forwards == 69
            assert "proxy-authorization" not in invite.headers
            hung_up = asyncio.create_task(bob.accept("BYE"))
            assert (await call.send("BYE")).status == 200
            await hung_up

    asyncio.run(scenario())


@pytest.mark.parametrize("transports", [("udp", "udp"), ("tcp", "udp"), ("udp", "tcp")])
def test_the_callee_can_hang_up_too(tmp_path: Path, transports: tuple[str, str]) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001", transport=transports[0])
            bob = await world.phone("1002", transport=transports[1])
            _, dialog, _ = await connected(world, ann, bob)
            _, bye = dialog.request("BYE")
            hung_up = asyncio.create_task(ann.accept("BYE"))
            assert (await bob.ask(bye)).status == 200
            await hung_up

    asyncio.run(scenario())


def test_calls_work_over_ipv6(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, bind="::1") as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", transport="tcp")
            call, _, _ = await connected(world, ann, bob)
            hung_up = asyncio.create_task(bob.accept("BYE"))
            assert (await call.send("BYE")).status == 200
            await hung_up

    asyncio.run(scenario())


def test_every_phone_rings_the_first_answer_wins_and_the_others_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, desk, mobile = await world.phone("1001"), await world.phone("1002"), await world.phone("1002")
            call = await ann.dial("1002")
            (desk_tx, _), (mobile_tx, _) = await desk.asked("INVITE"), await mobile.asked("INVITE")
            desk.respond(desk_tx, 180)
            mobile.respond(mobile_tx, 180)
            mobile.respond(mobile_tx, 200, body=OFFER, content_type="application/sdp")
            answered = await call.answered()
            assert str(answered.contacts[0].uri) == mobile.contact.strip("<>")
            await mobile.acknowledged()
            await asyncio.sleep(0.1)
            assert desk.cancelled == [desk_tx]

    asyncio.run(scenario())


def test_busy_on_one_phone_and_no_answer_on_the_other_is_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, desk, mobile = await world.phone("1001"), await world.phone("1002"), await world.phone("1002")
            call = await ann.dial("1002")
            (desk_tx, _), (mobile_tx, _) = await desk.asked("INVITE"), await mobile.asked("INVITE")
            mobile.respond(mobile_tx, 408)
            desk.respond(desk_tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_a_decline_everywhere_ends_the_search_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, desk, mobile = await world.phone("1001"), await world.phone("1002"), await world.phone("1002")
            call = await ann.dial("1002")
            (desk_tx, _), (mobile_tx, _) = await desk.asked("INVITE"), await mobile.asked("INVITE")
            mobile.respond(mobile_tx, 180)
            desk.respond(desk_tx, 603)
            assert (await call.final()).status == 603
            assert mobile.cancelled == [mobile_tx]

    asyncio.run(scenario())


def test_the_caller_gives_up_while_it_rings(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            await call.until(180)
            call.cancel()
            assert (await call.final()).status == 487
            assert bob.cancelled == [tx]

    asyncio.run(scenario())


def test_a_phone_that_rings_for_ever_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 180)
            await call.until(180)
            assert (await call.final()).status in (408, 487)
            assert bob.cancelled == [tx]

    asyncio.run(scenario())


@pytest.mark.parametrize(("number", "status"), [("4711", 404), ("1009", 480), ("112", 404)])
def test_numbers_nobody_has_and_phones_nobody_registered(tmp_path: Path, number: str, status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            response = await (await ann.dial(number)).final()
            assert response.status == status
            if status == 480:
                assert response.reason == "1009 Is Not Registered"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "uri",
    [
        "tel:1002",
        "tel:+1002",
        "sip:+10-02@dialcast.internal;user=phone",
        "sip:1002@127.0.0.1",
        "sip:%31002@dialcast.internal",
    ],
)
def test_every_way_to_write_a_number_rings_the_same_phone(tmp_path: Path, uri: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await ann.dial("1002", uri=uri)
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)

    asyncio.run(scenario())


def test_large_calls_reach_a_phone_over_the_flow_it_registered_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001", transport="tcp"), await world.phone("1002")
            body = OFFER + b"a=x-" + b"y" * 4000 + b"\r\n"
            await ann.dial("1002", body=body)
            tx, invite = await bob.asked("INVITE")
            assert invite.body == body
            bob.respond(tx, 486)

    asyncio.run(scenario())


def test_nobody_calls_in_anothers_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            call = await ann.dial("1002", from_=f"<sip:1003@{DOMAIN}>")
            assert (await call.final()).status == 403

    asyncio.run(scenario())


def test_what_strangers_assert_is_taken_off_and_trusted_ones_are_told_who_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        claims = [
            ("P-Asserted-Identity", "<sip:boss@dialcast.internal>"),
            ("History-Info", "<sip:1009@dialcast.internal>;index=1"),
            ("Diversion", "<sip:1009@dialcast.internal>"),
        ]
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await ann.dial("1002", headers=claims)
            tx, invite = await bob.asked("INVITE")
            assert not any(name in invite.headers for name, _ in claims)
            bob.respond(tx, 486)
        async with running(tmp_path, trusted_peers=("127.0.0.1/32",)) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await ann.dial("1002")
            tx, invite = await bob.asked("INVITE")
            assert invite.headers.all("p-asserted-identity") == (f"<sip:1001@{DOMAIN}>",)
            bob.respond(tx, 486)

    asyncio.run(scenario())


def test_nothing_leaves_for_a_foreign_domain(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            assert (await (await ann.dial("", uri="sip:someone@example.org")).final()).status == 403
            routed = await ann.dial("1002", headers=[("Route", "<sip:192.0.2.7;lr>")])
            assert (await routed.final()).status == 403
            assert (await ann.request("REGISTER", "sip:example.org", to=f"<sip:1001@{DOMAIN}>")).status == 403

    asyncio.run(scenario())


def test_an_operator_may_open_a_way_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, allow_targets=(r"55@127\.0\.0\.2",)) as world:
            ann = await world.phone("1001")
            assert (await (await ann.dial("", uri="sip:56@127.0.0.2")).final()).status == 403
            gateway = await world.phone("5000", register=False, host="127.0.0.2")
            uri = f"sip:55@{gateway.flow.local}"
            asking = await ann.dial("", uri=uri, headers=[("Proxy-Require", "teleportation")])
            assert (await asking.final()).status == 420
            await ann.dial("", uri=uri)
            tx, _ = await gateway.asked("INVITE")
            gateway.respond(tx, 486)

    asyncio.run(scenario())


def test_the_servers_own_name_as_outbound_proxy_is_taken_for_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            for route in (f"<sip:{DOMAIN};lr>", f"<sip:{world.address};lr>"):
                await ann.dial("1002", headers=[("Route", route)])
                tx, invite = await bob.asked("INVITE")
                assert "route" not in invite.headers
                bob.respond(tx, 486)

    asyncio.run(scenario())


def test_a_server_bound_to_everything_serves_both_families(tmp_path: Path) -> None:
    async def scenario() -> None:
        seeds = tuple(SubscriberSeed(number=number, password=SecretStr("own words")) for number in ("1001", "1002"))
        listeners = SipConfig(bind="::", advertised_host="127.0.0.1", port=0)
        config = Config(data_dir=tmp_path, sip=listeners, subscribers=seeds)
        async with running(tmp_path, config=config) as world:
            port = world.address.port
            phones = []
            places = ("1001", "127.0.0.1", "udp"), ("1002", "::1", "tcp"), ("1002", "127.0.0.1", "tcp")
            for number, host, transport in places:
                phone = Phone(Address(host, port), number, transport, password="own words")
                await phone.open()
                world.phones.append(phone)
                phones.append(phone)
                assert (await phone.register()).status == 200
            call = await phones[0].dial("1002")
            for phone in phones[1:]:
                tx, _ = await phone.asked("INVITE")
                phone.respond(tx, 486)
            assert (await call.final()).status == 486

    asyncio.run(scenario())


def test_a_request_with_no_hops_left_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, _ = await world.phone("1001"), await world.phone("1002")
            request = ann.build("INVITE", f"sip:1002@{DOMAIN}", body=OFFER)
            request = Request("INVITE", request.uri, request.headers.with_("Max-Forwards", "0"), request.body)
            assert (await ann.ask(ann.authorized(request, await ann.ask(request)))).status == 483

    asyncio.run(scenario())


def test_a_call_that_comes_round_again_is_a_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, trusted_peers=("127.0.0.1",)) as world:
            ann, mirror = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, invite = await mirror.asked("INVITE")
            back = Request("INVITE", f"sip:1002@{DOMAIN}", invite.headers, invite.body)
            refused = await mirror.ask(back)
            assert refused.status == 482
            mirror.respond(tx, refused.status)
            assert (await call.final()).status == 482

    asyncio.run(scenario())


def test_messages_reach_a_phone_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            got = asyncio.create_task(bob.accept("MESSAGE"))
            response = await ann.request("MESSAGE", f"sip:1002@{DOMAIN}", body=b"hi", content_type="text/plain")
            assert response.status == 200
            assert (await got).body == b"hi"

    asyncio.run(scenario())


def test_a_bye_out_of_nowhere_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            request = ann.build("BYE", f"sip:1002@{DOMAIN}", to=f"<sip:1002@{DOMAIN}>;tag=nobody")
            assert (await ann.ask(request)).status == 481

    asyncio.run(scenario())


def test_a_forged_record_route_reaches_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call, _, invite = await connected(world, ann, bob)
            stolen = invite.headers.get("record-route") or ""
            stranger = await world.phone("1003", register=False)
            request = stranger.build(
                "MESSAGE", f"sip:1002@{DOMAIN}", to=f"<sip:1002@{DOMAIN}>;tag=x", headers=[("Route", stolen)]
            )
            assert (await stranger.ask(request)).status == 481
            assert bob.requests.empty()
            hung_up = asyncio.create_task(bob.accept("BYE"))
            await call.send("BYE")
            await hung_up

    asyncio.run(scenario())


def test_a_phone_whose_connection_broke_is_out_of_reach(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", transport="tcp")
            bob.writer.close()
            await asyncio.sleep(0.1)
            assert (await (await ann.dial("1002")).final()).status == 480

    asyncio.run(scenario())


def test_a_flood_from_one_address_is_dropped_and_others_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, requests_per_second=20) as world:
            flooder = await world.phone("1001", register=False)
            options = flooder.build("OPTIONS", f"sip:{DOMAIN}")
            for number in range(200):
                request = Request("OPTIONS", options.uri, options.headers.with_("Call-ID", f"c{number}"))
                flooder.start(request)
            await asyncio.sleep(0.3)
            answered = sum(data.startswith(b"SIP/2.0 200") for data in flooder.raw)
            assert 20 <= answered < 60

    asyncio.run(scenario())


def test_a_response_from_nowhere_is_ignored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001")
            ann.send_raw(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\n\r\n")
            assert (await ann.register()).status == 200

    asyncio.run(scenario())
