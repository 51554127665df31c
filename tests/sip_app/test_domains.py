"""Several domains on one server: the same number in two of them is two people."""

import asyncio
from pathlib import Path
from typing import Any

from broadcast_world import BroadcastWorld, MediaPhone, broadcasting, until
from ua import DOMAIN

from protocols.records import Overlay
from protocols.sip.uri import SipUri, parse_uri
from provisioning.config import Config
from sip_app.broadcast.operator import OperatorDoor
from sip_app.numbers import ForeignTarget, LocalNumber, NumberPlan, ServiceNumber, TheServer

OTHER = "other.example"
HERE, THERE = f"1001@{DOMAIN}", f"1001@{OTHER}"


def two_domains(**more: Any) -> dict[str, Any]:
    seeds = [
        {"number": number, "domain": domain, "password": f"dialcast-{number}"}
        for domain in (DOMAIN, OTHER)
        for number in ("1001", "1002", "1003")
    ]
    return {"domains": [{"name": OTHER, "aliases": ["alias.example"], "realm": "Other"}], "subscribers": seeds} | more


def plan(**more: Any) -> NumberPlan:
    return NumberPlan(Config.model_validate(two_domains(**more)), ["192.0.2.1"])


async def both_live(world: BroadcastWorld) -> tuple[MediaPhone, MediaPhone]:
    """1001 of either domain broadcasts."""
    here, there = await world.phone("1001"), await world.phone("1001", domain=OTHER)
    await here.go_live()
    await there.go_live()
    await until(lambda: all(group.forwarded for group in world.service.open.values()))
    return here, there


async def status(phone: MediaPhone, uri: str) -> int:
    call = await phone.dial("", uri=uri, body=phone.offer())
    response = await call.final()
    if response.status == 200:
        call.ack(response)
    return response.status


def test_a_request_uri_means_a_number_of_its_own_domain() -> None:
    numbers = plan()
    assert numbers.analyse(parse_uri(f"sip:1001@{OTHER}")) == LocalNumber(THERE)
    assert numbers.analyse(parse_uri("sip:1001@ALIAS.example:5099")) == LocalNumber(THERE)
    assert numbers.analyse(parse_uri(f"sip:1001@{DOMAIN}"), OTHER) == LocalNumber(HERE)
    assert numbers.analyse(parse_uri(f"sip:8888@{OTHER}")) == ServiceNumber(f"8888@{OTHER}")
    assert numbers.analyse(parse_uri(f"sip:{OTHER}")) == TheServer()
    assert isinstance(numbers.analyse(parse_uri("sip:1001@third.example")), ForeignTarget)


def test_our_own_address_and_telephone_numbers_mean_the_callers_domain() -> None:
    numbers = plan()
    for uri in ("sip:1002@192.0.2.1", "tel:+1002"):
        assert numbers.analyse(parse_uri(uri), THERE) == LocalNumber(f"1002@{OTHER}")
        assert numbers.analyse(parse_uri(uri)) == LocalNumber(f"1002@{DOMAIN}")
    assert numbers.analyse(parse_uri(f"sip:1001@192.0.2.1:5070;domain={OTHER}"), HERE) == LocalNumber(THERE)
    assert numbers.aor(parse_uri("sip:1001@192.0.2.1;domain=third.example")) is None


def test_a_service_number_may_mean_another_policy_in_one_domain() -> None:
    special = {"number": "8888", "domain": OTHER, "max_viewers": 3}
    numbers = plan(services=[{"number": "8888"}, {"number": "7777"}, special])
    found = {
        aor: policy and policy.max_viewers for aor in ("8888", "7777") if (policy := numbers.service(f"{aor}@{OTHER}"))
    }
    assert found == {"8888": 3, "7777": 1000}
    usual = numbers.service(f"8888@{DOMAIN}")
    assert usual is not None and usual.max_viewers == 1000


def test_each_domain_asks_with_its_realm_and_knows_its_own_subscribers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            stranger = MediaPhone(world.address, "1001", on_heard=lambda *_: None, domain=OTHER)
            await stranger.open()
            world.phones.append(stranger)
            asked = await stranger.ask(stranger.build("REGISTER", f"sip:{OTHER}", to=f"<sip:1001@{OTHER}>"))
            assert asked.credentials("www-authenticate")[0].get("realm") == "Other"
            stranger.password = "dialcast-1002"
            assert (await stranger.register()).status == 401
            await world.phone("1001", domain=OTHER)
            assert len(await world.store.location.bindings(THERE, 0)) == 1
            assert await world.store.location.bindings(HERE, 0) == ()

    asyncio.run(scenario())


def test_nobody_passes_for_his_namesake_in_another_domain(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = two_domains()
        config["subscribers"][3]["password"] = "another one"
        async with broadcasting(tmp_path, config=config) as world:
            phone = await world.phone("1001")
            call = await phone.dial("1002", from_=f"<sip:1001@{OTHER}>")
            assert (await call.final()).status == 407, "the password is that of his own domain"
            both = await phone.dial("8888", uri=f"sip:8888@{OTHER}", body=phone.offer())
            assert (await both.final()).status == 403
            assert not world.service.open

    asyncio.run(scenario())


def test_two_namesakes_broadcast_at_once_and_each_is_watched_by_his_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            await both_live(world)
            assert {group.service for group in world.service.open.values()} == {f"8888@{DOMAIN}", f"8888@{OTHER}"}
            assert set(world.relay.relay.groups.by_id) == {HERE, THERE}
            await (await world.phone("1002")).watch()
            for viewer in ("1002", "1003"):
                await (await world.phone(viewer, domain=OTHER)).watch()
            groups = world.service.open
            assert {aor: len(group.viewers) for aor, group in groups.items()} == {HERE: 1, THERE: 2}
            assert {viewer.caller for viewer in groups[HERE].viewers.values()} == {f"1002@{DOMAIN}"}

    asyncio.run(scenario())


def test_the_conference_uri_of_a_broadcast_leads_back_to_the_right_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            for domain, expected in ((DOMAIN, HERE), (OTHER, THERE)):
                phone = await world.phone("1001", domain=domain)
                call = await phone.dial("8888", body=phone.offer())
                contact = (await call.answered()).contacts[0]
                assert contact.param("isfocus") is not None
                assert isinstance(contact.uri, SipUri)
                assert world.server._plan.analyse(contact.uri, f"1002@{OTHER}") == LocalNumber(expected)

    asyncio.run(scenario())


def test_domains_are_kept_apart_unless_the_operator_joins_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        for joined in (False, True):
            config = two_domains(cross_domain_calls=joined)
            async with broadcasting(tmp_path / str(joined), config=config) as world:
                await both_live(world)
                phone = await world.phone("1002")
                outcomes = [await status(phone, f"sip:{number}@{OTHER}") for number in ("1001", "1003")]
                assert outcomes == ([200, 480] if joined else [403, 403])

    asyncio.run(scenario())


def test_single_targets_in_another_domain_may_be_opened(tmp_path: Path) -> None:
    async def scenario() -> None:
        sip = {"port": 0, "allow_targets": [f"1001@{OTHER}"]}
        async with broadcasting(tmp_path, config=two_domains(sip=sip)) as world:
            await both_live(world)
            phone = await world.phone("1002")
            assert [await status(phone, f"sip:{number}@{OTHER}") for number in ("1001", "1003")] == [200, 403]

    asyncio.run(scenario())


def test_a_code_forwards_within_the_callers_domain(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            phone = await world.phone("1002", domain=OTHER)
            await (await phone.dial("*21*1003%23")).answered()
            own = (await world.store.diversions.get(f"1002@{OTHER}")).own
            assert own is not None and own.rules is not None and own.rules[0].target == f"1003@{OTHER}"
            assert (await world.store.diversions.get(f"1002@{DOMAIN}")).own is None

    asyncio.run(scenario())


def test_the_broadcasts_of_both_domains_survive_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            await both_live(world)
            await world.kill_server()
            await world.start_server()
            assert set(world.service.open) == {HERE, THERE}
            overlays = dict(await world.store.diversions.overlays())
            assert overlays[THERE] == Overlay(f"8888@{OTHER}", THERE, world.service.open[THERE].epoch)

    asyncio.run(scenario())


def test_the_operator_says_which_of_two_namesakes_is_to_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=two_domains()) as world:
            here, there = await both_live(world)
            door: OperatorDoor = world.door
            unclear = await door._answer(b'{"command": "stop", "number": "1001"}')
            assert not unclear["ok"] and THERE in unclear["error"]
            assert (await door._answer(b'{"command": "stop", "number": "%s"}' % THERE.encode()))["ok"]
            await there.ended()
            assert here.ends == []

    asyncio.run(scenario())
