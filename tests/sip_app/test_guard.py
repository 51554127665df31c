"""Who guesses passwords or tries numbers out is slowed down and blocked; nobody can have somebody else blocked."""

import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from ua import DOMAIN, Phone, World, running

from protocols.sip.message import Headers, Request
from provisioning.config import Config, SecurityConfig, SipConfig
from sip_app.access.guard import Guard, place_of
from sip_app.bounds import MAX_TRACKED


def config(folder: Path, *, trusted: tuple[str, ...] = (), **security: object) -> Config:
    settings = SecurityConfig.model_validate({"never_block": (), "delay_max": 0} | security)
    return Config(data_dir=folder, sip=SipConfig(port=0, trusted_peers=trusted), security=settings)


def refused(limit: str) -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": f"security.{limit}"}) or 0.0


async def guess(world: World, times: int, number: str = "1003", **options: object) -> Phone:
    """A stranger who tries passwords; every phone has a port of its own and the host is what counts."""
    stranger = await world.phone(number, register=False, password="wrong", **options)
    for _ in range(times):
        assert (await stranger.register()).status == 401
    return stranger


async def unanswered(phone: Phone, request: Request) -> bool:
    """True if nothing at all comes back."""
    answers = phone.waiting[phone.start(request)]
    try:
        async with asyncio.timeout(0.4):
            await answers.get()
    except TimeoutError:
        return True
    return False


def test_guessing_passwords_gets_an_address_blocked_and_a_known_phone_there_stays_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = config(tmp_path, failures_before_block=3, block_seconds=60)
        before = refused("failures_before_block"), refused("block_seconds")
        async with running(tmp_path, config=settings) as world:
            ann = await world.phone("1001")
            asked = await ann.ask(ann.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>"))
            refresh = ann.authorized(ann.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>"), asked)
            assert (await ann.ask(refresh)).status == 200
            stranger = await guess(world, 3)
            assert await unanswered(stranger, stranger.build("OPTIONS", f"sip:{DOMAIN}"))
            # Her refresh comes with the nonce she proved herself with before: too old by now, but answered.
            refresh = ann.authorized(ann.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>"), asked)
            stale = await ann.ask(refresh)
            assert stale.status == 401
            again = ann.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>")
            assert (await ann.ask(ann.authorized(again, stale))).status == 200
            elsewhere = await world.phone("1002", host="127.0.0.2")
            assert (await elsewhere.register()).status == 200
            assert [(block.who, block.why) for block in world.server.guard.blocks()] == [
                ("127.0.0.1", "wrong passwords")
            ]
            assert world.server.guard.lift("127.0.0.1")
            assert (await stranger.ask(stranger.build("OPTIONS", f"sip:{DOMAIN}"))).status == 200
        assert refused("failures_before_block") == before[0] + 1
        assert refused("block_seconds") > before[1]

    asyncio.run(scenario())


def test_a_forged_source_gets_nobody_blocked(tmp_path: Path) -> None:
    """Whoever forges a source never sees the nonce that goes there."""

    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, failures_before_block=2, scans_before_block=2)) as world:
            elsewhere = await world.phone("1003", register=False, password="wrong", host="127.0.0.2")
            victim = await world.phone("1001", register=False)
            request = victim.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>")
            challenge = await elsewhere.ask(request)
            for _ in range(6):
                guessed = victim.authorized(
                    victim.build("REGISTER", f"sip:{DOMAIN}", to=request.headers.get("to")), challenge
                )
                assert (await victim.ask(guessed)).status == 401
                await victim.ask(victim.build("INVITE", f"sip:0000@{DOMAIN}"))
            assert world.server.guard.blocks() == []
            victim.password = "dialcast-1001"
            assert (await victim.register()).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_trying_numbers_out_gets_an_address_blocked(tmp_path: Path, transport: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, scans_before_block=4)) as world:
            scanner = await world.phone("1001", transport=transport)
            statuses = [(await (await scanner.dial(f"55{number}")).final()).status for number in range(3)]
            assert statuses == [404, 404, 404]
            assert not world.server.guard.blocks()
            await (await scanner.dial("*99*99#")).final()
            assert [block.why for block in world.server.guard.blocks()] == ["scanning"]

    asyncio.run(scenario())


def test_challenges_left_unanswered_over_a_connection_count_and_answered_ones_do_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, scans_before_block=5)) as world:
            honest = await world.phone("1001", transport="tcp")
            for _ in range(10):
                assert (await honest.register()).status == 200
            assert not world.server.guard.blocks()
            sprayer = await world.phone("9", transport="tcp", register=False)
            for number in range(5):
                await sprayer.ask(sprayer.build("INVITE", f"sip:{number}@{DOMAIN}"))
            assert [block.who for block in world.server.guard.blocks()] == ["127.0.0.1"]

    asyncio.run(scenario())


def test_wrong_passwords_wait_longer_each_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, failures_before_delay=1, delay_max=0.6)) as world:
            stranger = await guess(world, 1)
            took = []
            for _ in range(3):
                began = time.monotonic()
                assert (await stranger.register()).status == 401
                took.append(time.monotonic() - began)
            assert took[0] >= 0.25
            assert took[1] >= 0.5
            assert 0.6 <= took[2] < 2

    asyncio.run(scenario())


def test_the_client_behind_a_trusted_peer_is_blocked_and_the_peer_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = config(tmp_path, trusted=("127.0.0.1",), scans_before_block=2)
        async with running(tmp_path, config=settings) as world:
            proxy = await world.phone("1001", register=False)

            async def through(client: str, number: str) -> int:
                request = proxy.build("INVITE", f"sip:{number}@{DOMAIN}")
                lines = [("Via", f"SIP/2.0/UDP {client};received={client};rport=9;branch=z9hG4bK{number}")]
                request = Request(request.method, request.uri, Headers([*lines, *request.headers]), request.body)
                return (await proxy.ask(request)).status

            assert [await through("203.0.113.9", number) for number in ("551", "552", "553")] == [404, 404, 503]
            assert await through("203.0.113.10", "554") == 404
            assert [block.who for block in world.server.guard.blocks()] == ["203.0.113.9"]

    asyncio.run(scenario())


def test_known_scanners_get_no_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = refused("scanners")
        async with running(tmp_path) as world:
            phone = await world.phone("9", register=False)
            request = phone.build("OPTIONS", f"sip:100@{DOMAIN}", headers=(("User-Agent", "friendly-scanner"),))
            assert await unanswered(phone, request)
        assert refused("scanners") > before

    asyncio.run(scenario())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_blocks_and_failures_run_out_and_the_tables_stay_bounded() -> None:
    clock = Clock()
    guard = Guard(Config(security=SecurityConfig(failures_before_block=2, failure_window=10, block_seconds=5)), clock)
    guard.failed("192.0.2.1")
    clock.now = 11
    guard.failed("192.0.2.1")
    assert not guard.blocks()
    guard.failed("192.0.2.1")
    assert [block.seconds for block in guard.blocks()] == [5]
    clock.now = 17
    assert not guard.blocks()
    for number in range(MAX_TRACKED + 10):
        host = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"
        guard.failed(host)
        guard.failed(host)
        guard.know(str(number))
    assert len(guard.blocks()) == len(guard._marks) == len(guard._known) == MAX_TRACKED


def test_a_household_of_ipv6_is_one_address_and_never_block_spares() -> None:
    assert place_of(":::") == ":::"
    assert place_of("::ffff:192.0.2.1") == "192.0.2.1", "or all of IPv4 would be one household"
    assert place_of("2001:db8:1:2:3::4") == place_of("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    guard = Guard(Config(security=SecurityConfig(failures_before_block=1, never_block=("192.0.2.0/24",))), Clock())
    guard.failed("192.0.2.7")
    guard.failed("198.51.100.7")
    assert [block.who for block in guard.blocks()] == ["198.51.100.7"]


def test_a_changed_configuration_counts_at_once_and_keeps_blocks() -> None:
    guard = Guard(Config(), Clock())
    guard.block("198.51.100.7", 60, "by hand")
    guard.reconfigure(Config(security=SecurityConfig(failures_before_block=1)))
    guard.failed("198.51.100.8")
    assert {block.who for block in guard.blocks()} == {"198.51.100.7", "198.51.100.8"}
