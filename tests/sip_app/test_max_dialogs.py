"""`security.max_dialogs`: calls the server answers itself at once, whoever calls; none that it only passes on."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, MediaPhone, broadcasting, until
from cluster_world import EDGE, two_servers
from prometheus_client import REGISTRY
from ua import DOMAIN, running

from protocols.sip.message import Response
from provisioning.config import Config, SecurityConfig, SipConfig
from sip_app.element.endpoint import SipEndpoint


def turned_away() -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": "security.max_dialogs"}) or 0.0


def hold(world: BroadcastWorld, calls: int) -> None:
    """As `dialcast reload` would: from now on so many calls at once."""
    world.server.reconfigure(world.config.model_copy(update={"security": SecurityConfig(max_dialogs=calls)}))


def held(endpoint: SipEndpoint) -> tuple[int, int]:
    return len(endpoint.dialogs), len(endpoint.early)


async def caller(world: BroadcastWorld, number: str, host: str = "127.0.0.1") -> MediaPhone:
    """A phone of another domain."""
    phone = MediaPhone(world.address, number, on_heard=lambda *_: None, domain="gw.example", host=host)
    await phone.open()
    world.phones.append(phone)
    return phone


def watched(phone: MediaPhone) -> Awaitable[Response]:
    return phone.ask(phone.build("INVITE", f"sip:{BROADCASTER}@{DOMAIN}", body=phone.offer()))


@pytest.mark.parametrize("peers", [(), ("127.0.0.2",)])
def test_guests_and_callers_of_trusted_peers_are_refused_beyond_it(tmp_path: Path, peers: tuple[str, ...]) -> None:
    async def scenario() -> None:
        config = {
            "services": [{"number": "8888", "viewers": "everyone"}],
            "sip": {"port": 0, "requests_per_second": 5000, "trusted_peers": peers},
        }
        async with broadcasting(tmp_path, config=config) as world:
            await world.broadcaster()
            before = turned_away()
            hold(world, 2)
            for expected in (200, 503, 503):
                phone = await caller(world, f"90{expected}", peers[0] if peers else "127.0.0.1")
                answer = await watched(phone)
                assert answer.status == expected, answer.reason
            assert answer.headers.get("retry-after") == "30"
            assert turned_away() == before + 2
            assert held(world.server.endpoint) == (2, 0)

    asyncio.run(scenario())


def test_a_crowd_of_guests_that_comes_at_once_finds_the_limit_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"services": [{"number": "8888", "viewers": "everyone"}]}) as world:
            await world.broadcaster()
            hold(world, 3)
            guests = [await caller(world, f"90{place}") for place in range(10)]
            answers = await asyncio.gather(*[watched(guest) for guest in guests])
            assert sorted(answer.status for answer in answers) == [200] * 2 + [503] * 8
            assert held(world.server.endpoint) == (3, 0)
            assert len(world.group.viewers) == 2

    asyncio.run(scenario())


def test_a_crowd_of_broadcasters_that_comes_at_once_finds_the_limit_too(tmp_path: Path) -> None:
    """They hear nothing but 100 until the relay is ready, and count all the same."""

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            hold(world, 2)
            phones = [await world.phone(f"100{place}") for place in range(1, 9)]

            async def live(phone: MediaPhone) -> int:
                return (await (await phone.dial("8888", body=phone.offer())).final()).status

            assert sorted(await asyncio.gather(*map(live, phones))) == [200] * 2 + [503] * 6
            assert held(world.server.endpoint) == (2, 0)

    asyncio.run(scenario())


def test_a_call_handed_over_is_refused_by_a_full_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_servers(tmp_path, edge=True) as (first, second):
            await first.broadcaster()
            before = turned_away()
            viewer = await second.phone("1002", host=EDGE)
            hold(first, 1)
            # RFC 3261 section 16.7: a proxy makes 500 of a 503, as it is not itself that is overloaded.
            assert (await (await viewer.dial(BROADCASTER, body=viewer.offer())).final()).status == 500
            assert turned_away() == before + 1
            assert held(first.server.endpoint) == (1, 0)

    asyncio.run(scenario())


def test_a_full_server_passes_calls_on(tmp_path: Path) -> None:
    """To a phone, and to the server that holds the broadcast."""

    async def to_a_phone() -> None:
        config = Config(data_dir=tmp_path / "one", sip=SipConfig(port=0), security=SecurityConfig(max_dialogs=1))
        async with running(tmp_path, config=config) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            own = await ann.dial("*#21#")
            await own.until(200)
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)
            assert (await call.final()).status == 486
            assert (await (await ann.dial("*#21#")).final()).status == 503
            own.ack(own.seen[-1])

    async def to_the_holder() -> None:
        async with two_servers(tmp_path / "two", edge=True) as (first, second):
            await first.broadcaster()
            await (await second.phone("1003")).go_live()
            hold(second, 1)
            viewer = await second.phone("1002", host=EDGE)
            assert (await (await viewer.dial(BROADCASTER, body=viewer.offer())).final()).status == 200
            await until(lambda: [viewer.number for viewer in first.group.viewers.values()] == ["1002"])
            assert CHANNEL not in second.service.open and held(second.server.endpoint) == (1, 0)

    asyncio.run(to_a_phone())
    asyncio.run(to_the_holder())
