"""What one account may ask for, and what it may run up elsewhere; a captured request is worth nothing."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from ua import DOMAIN, Phone, running

from protocols.sip.message import make_response
from provisioning.config import Config, SecurityConfig, SipConfig
from sip_app.access.guard import Guard
from sip_app.access.quotas import FORGOTTEN_AFTER, Quotas
from sip_app.calls.incoming import Rejected


def config(folder: Path, *, allow: tuple[str, ...] = (), **security: object) -> Config:
    sip = SipConfig(port=0, allow_targets=allow)
    return Config(data_dir=folder, sip=sip, security=SecurityConfig.model_validate(security))


def refused(limit: str) -> float:
    return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": f"security.{limit}"}) or 0.0


@pytest.mark.parametrize(
    ("method", "limit"),
    [("REGISTER", "registers_per_minute"), ("INVITE", "calls_per_minute"), ("MESSAGE", "messages_per_minute")],
)
def test_one_account_cannot_send_without_end_and_another_is_not_affected(
    tmp_path: Path, method: str, limit: str
) -> None:
    async def sent(phone: Phone) -> int:
        if method == "REGISTER":
            return (await phone.register()).status
        return (await phone.request(method, f"sip:1009@{DOMAIN}")).status

    async def scenario() -> None:
        before = refused(limit)
        async with running(tmp_path, config=config(tmp_path, **{limit: 3})) as world:
            ann, bob = [await world.phone(number, register=False) for number in ("1001", "1002")]
            statuses = [await sent(ann) for _ in range(5)]
            assert statuses[3:] == [503, 503]
            assert 503 not in statuses[:3]
            assert await sent(bob) != 503
        assert refused(limit) == before + 2

    asyncio.run(scenario())


def test_calls_at_once_are_limited_and_ended_ones_make_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, calls_at_once=1)) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            assert (await (await ann.dial("1002")).final()).status == 486
            bob.respond(tx, 486)
            assert (await call.final()).status == 486
            await asyncio.sleep(0.6)
            again = await ann.dial("1002")
            tx, invite = await bob.asked("INVITE")
            bob.respond(tx, 603)
            assert (await again.final()).status == 603
            assert make_response(invite, 200).status == 200

    asyncio.run(scenario())


def test_no_more_dialogs_than_the_server_is_to_hold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, max_dialogs=1)) as world:
            ann = await world.phone("1001")
            first = await ann.dial("*#21#")
            await first.until(200)
            refusal = await (await ann.dial("*#21#")).final()
            assert (refusal.status, refusal.headers.get("retry-after")) == (503, "30")
            first.ack(first.seen[-1])

    asyncio.run(scenario())


def test_limits_of_messages_transactions_and_contacts_count_under_their_names(tmp_path: Path) -> None:
    def count(limit: str) -> float:
        return REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": f"sip.{limit}"}) or 0.0

    async def scenario() -> None:
        names = ("max_message_bytes", "max_header_bytes", "max_headers", "max_transactions", "max_bindings")
        before = {name: count(name) for name in names}
        limits = {
            "max_message_bytes": 4000,
            "max_header_bytes": 1500,
            "max_headers": 20,
            "max_bindings": 1,
            "max_transactions": 2,
        }
        async with running(tmp_path, **limits) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", register=False)
            assert (await ann.register(contact="<sip:1001@127.0.0.1:9>, <sip:1001@127.0.0.1:10>")).status == 403
            large = bob.build("OPTIONS", f"sip:{DOMAIN}", body=b"x" * 4000)
            assert (await bob.ask(large)).status == 513
            long = bob.build("OPTIONS", f"sip:{DOMAIN}", headers=(("Subject", "x" * 1500),))
            assert (await bob.ask(long)).status == 513
            many = bob.build("OPTIONS", f"sip:{DOMAIN}", headers=[("X", "y")] * 30)
            assert (await bob.ask(many)).status == 513
            await bob.dial("1001")
            await ann.asked("INVITE")  # which rings, and is there until it is answered
            await bob.dial("1001")
            await asyncio.sleep(0.2)
        assert [name for name in names if count(name) <= before[name]] == []

    asyncio.run(scenario())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, **security: object) -> tuple[Quotas, Guard]:
    settings = Config(security=SecurityConfig.model_validate(security))
    guard = Guard(settings, clock)
    return Quotas(settings, guard, clock), guard


def test_a_burst_of_calls_abroad_stops_them_until_it_is_lifted_or_runs_out() -> None:
    clock = Clock()
    counted, guard = quotas(clock, foreign_burst=3, fraud_block_seconds=100)
    for _ in range(3):
        counted.leave({"1001@d"}, "900@192.0.2.1")
    with pytest.raises(Rejected, match="403"):
        counted.leave({"1001@d"}, "900@192.0.2.1")
    assert [block.who for block in guard.blocks()] == ["1001@d"]
    clock.now = 70
    with pytest.raises(Rejected):
        counted.leave({"1001@d", "1002@d"}, "900@192.0.2.1")
    counted.leave({"1002@d"}, "900@192.0.2.1")
    assert guard.lift("1001@d")
    counted.leave({"1001@d"}, "900@192.0.2.1")


def test_calls_and_targets_abroad_are_counted_by_the_hour() -> None:
    clock = Clock()
    counted, _ = quotas(clock, foreign_calls_per_hour=4, foreign_targets_per_hour=2, foreign_burst=100)
    for target in ("1@a", "2@a"):
        counted.leave({"1001@d"}, target)
    with pytest.raises(Rejected):
        counted.leave({"1001@d"}, "3@a")
    counted.leave({"1001@d"}, "1@a")
    counted.leave({"1001@d"}, "2@a")
    with pytest.raises(Rejected):
        counted.leave({"1001@d"}, "1@a")
    clock.now = 3601
    counted.leave({"1001@d"}, "3@a")


def test_denied_targets_beat_allowed_ones_on_the_wire(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = refused("deny_targets")
        settings = config(tmp_path, allow=(r".*@127\.0\.0\.2",), deny_targets=(r"900.*@.*",))
        async with running(tmp_path, config=settings) as world:
            ann, other = await world.phone("1001"), await world.phone("1002", host="127.0.0.2")
            host, port = other.flow.local
            assert (await (await ann.dial("", uri=f"sip:9001@{host}:{port}")).final()).status == 403
            call = await ann.dial("", uri=f"sip:5551@{host}:{port}")
            tx, _ = await other.asked("INVITE")
            other.respond(tx, 486)
            assert (await call.final()).status == 486
        assert refused("deny_targets") == before + 1

    asyncio.run(scenario())


def test_a_call_whose_end_was_lost_does_not_count_for_ever() -> None:
    clock = Clock()
    counted, _ = quotas(clock, calls_at_once=1)
    counted.begin("1001@d", ("a", "tag"))
    with pytest.raises(Rejected, match="486"):
        counted.begin("1001@d", ("b", "tag"))
    clock.now = FORGOTTEN_AFTER + 1
    counted.begin("1001@d", ("b", "tag"))
    counted.end(("b", "tag"))
    counted.end(("never heard of", "tag"))
    assert not counted._calls
    assert not counted._callers


def test_a_captured_request_is_refused_here_after_a_restart_and_at_another_server(tmp_path: Path) -> None:
    """The attacker has the very socket the request came from, which is more than one can forge."""

    async def replayed(phone: Phone, data: bytes) -> int:
        phone.raw.clear()
        phone.send_raw(data)
        for _ in range(50):
            await asyncio.sleep(0.02)
            if phone.raw:
                return int(phone.raw[-1].split(b" ")[1])
        return 0

    async def scenario() -> None:
        async with running(tmp_path) as world:
            ann = await world.phone("1001", register=False)
            sent: list[bytes] = []
            keep = ann.send_raw
            ann.send_raw = lambda data: (sent.append(data), keep(data))[1]  # type: ignore[method-assign]  # a wiretap
            assert (await ann.register()).status == 200
            captured = sent[-1].replace(b"branch=", b"branch=z9hG4bKreplay", 1)
            assert b"Authorization" in captured
            assert await replayed(ann, captured) in (401, 482)
            other_method = captured.replace(b"REGISTER sip:", b"MESSAGE sip:1002@").replace(
                b" REGISTER\r\n", b" MESSAGE\r\n"
            )
            assert await replayed(ann, other_method) in (401, 407, 482)
        async with running(tmp_path) as world:
            stranger = await world.phone("1001", register=False)
            again = captured.replace(b"z9hG4bKreplay", b"z9hG4bKafter").replace(b";rport", b";rport", 1)
            assert await replayed(stranger, again) == 401
        async with running(tmp_path / "other") as world:
            stranger = await world.phone("1001", register=False)
            assert await replayed(stranger, captured) == 401

    asyncio.run(scenario())
