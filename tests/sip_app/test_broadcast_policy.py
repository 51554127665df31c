"""Who may go live, who may watch, how many and how long: by the dialled number, and by the broadcaster's own rules."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from broadcast_world import BROADCASTER, CHANNEL, BroadcastWorld, MediaPhone, broadcasting, until
from ua import DOMAIN

from protocols.net import Address
from protocols.pin import hash_pin
from protocols.records import Channel
from provisioning.config import ChannelsConfig, ServicePolicy
from provisioning.reload import reloaded
from sip_app.broadcast.policy import Gate
from sip_app.calls.incoming import Caller, Rejected

PIN = "4711"


def services(*policies: dict[str, Any]) -> dict[str, Any]:
    return {"services": [{"number": "8888"} | policy for policy in policies]}


async def refusal(phone: MediaPhone, number: str = BROADCASTER) -> tuple[int, str]:
    """The answer to a call that is refused."""
    response = await (await phone.dial(number, body=phone.offer())).final()
    return response.status, response.reason


async def lists(world: BroadcastWorld, *viewers: str, pin: str = "") -> None:
    """1001 broadcasts in private."""
    listed = frozenset(f"{viewer}@{DOMAIN}" for viewer in viewers)
    kept = hash_pin(pin, b"0" * 16) if pin else ""
    await world.store.channels.change(CHANNEL, lambda _: Channel(True, listed, kept))


def test_only_those_a_number_is_meant_for_go_live_on_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        policies = services({"broadcasters": ["100[1-3]"]}, {"number": "7777", "broadcasters": [f"1004@{DOMAIN}"]})
        async with broadcasting(tmp_path, config=policies) as world:
            fourth = await world.phone("1004")
            assert await refusal(fourth, "8888") == (403, "1004 May Not Go Live On 8888")
            await fourth.go_live("7777")
            await (await world.phone("1001")).go_live()
            assert set(world.service.open) == {CHANNEL, f"1004@{DOMAIN}"}

    asyncio.run(scenario())


def test_calls_are_forwarded_to_the_number_that_was_dialled_and_its_policy_survives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=services({}, {"number": "7777", "max_viewers": 1})) as world:
            await (await world.phone(BROADCASTER)).go_live("7777")
            await world.forwarded()
            overlay = await world.overlay()
            assert overlay is not None and overlay.target == f"7777@{DOMAIN}"
            await world.viewer("1002")
            await world.kill_server()
            await world.start_server()
            assert (world.group.service, world.group.policy.max_viewers) == (f"7777@{DOMAIN}", 1)
            assert await refusal(await world.phone("1003")) == (486, "Broadcast Is Full")
            again = await world.overlay()
            assert again is not None and again.target == f"7777@{DOMAIN}"

    asyncio.run(scenario())


def test_a_broadcast_whose_number_is_no_longer_served_ends_at_the_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=services({}, {"number": "7777", "viewers": "listed"})) as world:
            phone = await world.phone(BROADCASTER)
            await phone.go_live("7777")
            await world.kill_server()
            world.config = world.config.model_copy(update={"services": (ServicePolicy(number="8888"),)})
            await world.start_server()
            assert "Broadcast ended" in await phone.ended()
            await world.over()

    asyncio.run(scenario())


def test_whoever_dials_another_service_number_after_a_loss_begins_another_broadcast(tmp_path: Path) -> None:
    async def scenario() -> None:
        private = {"number": "7777", "viewers": "listed"}
        async with broadcasting(tmp_path, config=services({}, private), reconnect_grace=5) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            phone.dead = True
            await (await world.phone(BROADCASTER)).go_live("7777")
            assert "Broadcast ended" in await viewer.ended()
            await world.forwarded()
            assert world.group.service == f"7777@{DOMAIN}"
            assert await refusal(viewer) == (403, "1001 Is Private"), "nobody of the open broadcast slips in"

    asyncio.run(scenario())


def test_a_takeover_keeps_the_policy_and_the_forwarding_of_the_number_dialled(tmp_path: Path) -> None:
    async def scenario() -> None:
        second = {"number": "7777", "second_attempt": "takeover"}
        async with broadcasting(tmp_path, config=services({}, second)) as world:
            first = await world.phone(BROADCASTER)
            await first.go_live("7777")
            await world.forwarded()
            await (await world.phone(BROADCASTER)).go_live("7777")
            assert "taken over" in await first.ended()
            overlay = await world.overlay()
            assert overlay is not None and overlay.target == f"7777@{DOMAIN}"

    asyncio.run(scenario())


def test_a_private_broadcast_is_for_those_on_the_list(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await lists(world, "1002")
            await world.broadcaster()
            await world.viewer("1002")
            assert await refusal(await world.phone("1003")) == (403, "1001 Is Private")
            await world.store.channels.change(CHANNEL, lambda known: replace(known, private=False))
            await (await world.phone("1003")).watch()

    asyncio.run(scenario())


def test_a_number_may_make_all_its_broadcasts_private_or_keep_them_to_subscribers(tmp_path: Path) -> None:
    async def scenario() -> None:
        policies = services({"viewers": "listed"}, {"number": "7777", "viewers": "subscribers"})
        sip = {"sip": {"port": 0, "trusted_peers": ["127.0.0.2"]}}
        async with broadcasting(tmp_path, config=policies | sip) as world:
            await world.broadcaster()
            assert await refusal(await world.phone("1002")) == (403, "1001 Is Private")
            await (await world.phone("1003")).go_live("7777")
            await until(lambda: world.service.open[f"1003@{DOMAIN}"].forwarded)
            await (await world.phone("1004")).watch("1003")
            gateway = MediaPhone(world.address, "4930", host="127.0.0.2", on_heard=lambda *_: None, domain="gw.example")
            await gateway.open()
            world.phones.append(gateway)
            invite = gateway.build("INVITE", f"sip:1003@{DOMAIN}", body=gateway.offer())
            assert (await gateway.ask(invite)).reason == "For Subscribers Only"

    asyncio.run(scenario())


def test_strangers_watch_an_open_broadcast_only_and_subscribers_are_still_known(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=services({"viewers": "everyone"})) as world:
            await world.broadcaster()
            guest = MediaPhone(world.address, "guest", on_heard=lambda *_: None, domain="example.org")
            await guest.open()
            world.phones.append(guest)
            invite = guest.build("INVITE", f"sip:1001@{DOMAIN}", body=guest.offer())
            assert (await guest.ask(invite)).status == 200
            await lists(world, "1002")
            again = guest.build("INVITE", f"sip:1001@{DOMAIN}", body=guest.offer())
            assert (await guest.ask(again)).status == 407
            await (await world.phone("1002")).watch()
            assert "1002" in {viewer.number for viewer in world.group.viewers.values()}

    asyncio.run(scenario())


def test_those_on_the_list_are_not_asked_for_the_pin(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            world.service.ask_pin = None
            await lists(world, "1002", pin=PIN)
            await world.broadcaster()
            await world.viewer("1002")
            assert await refusal(await world.phone("1003")) == (403, "PIN Needed"), "there is nothing to ask with"

    asyncio.run(scenario())


class Channels:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def get(self, aor: str) -> Channel:
        return self.channel


def caller(number: str) -> Caller:
    return Caller(f"{number}@{DOMAIN}", number, True, Address("192.0.2.1", 5060))


def gate(now: list[float], pin: str = PIN, **limits: Any) -> Gate:
    credentials: Any = None
    channel = Channel(True, frozenset(), hash_pin(pin, b"0" * 16))
    return Gate(ChannelsConfig(**limits), Channels(channel), credentials, lambda: now[0])


def test_too_many_wrong_pins_shut_out_a_caller_for_a_while_even_with_the_right_one() -> None:
    async def scenario() -> None:
        now = [1000.0]
        door, policy = gate(now, pin_attempts_per_caller=2, pin_window=60), ServicePolicy(number="8888")
        for _ in range(2):
            assert not await door.verify_pin(policy, CHANNEL, caller("1002"), "1234")
        with pytest.raises(Rejected, match="Too Many Wrong PINs"):
            await door.verify_pin(policy, CHANNEL, caller("1002"), PIN)
        with pytest.raises(Rejected, match="Too Many Wrong PINs"):
            await door.needs_pin(policy, CHANNEL, caller("1002"))
        assert await door.verify_pin(policy, CHANNEL, caller("1003"), PIN), "others are not to suffer"
        now[0] += 61
        assert await door.verify_pin(policy, CHANNEL, caller("1002"), PIN)

    asyncio.run(scenario())


def test_many_accounts_cannot_guess_the_pin_of_one_channel_together() -> None:
    async def scenario() -> None:
        door, policy = gate([0.0], pin_attempts_per_channel=3), ServicePolicy(number="8888")
        guesses = [door.verify_pin(policy, CHANNEL, caller(f"20{n}"), f"000{n}") for n in range(9)]
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        assert outcomes[:3] == [False] * 3
        assert all(isinstance(outcome, Rejected) for outcome in outcomes[3:]), "also when they call at the same time"

    asyncio.run(scenario())


def test_strangers_who_guess_do_not_shut_subscribers_out() -> None:
    async def scenario() -> None:
        door, policy = gate([0.0], pin_attempts_per_channel=3), ServicePolicy(number="8888")
        for n in range(3):
            guest = Caller("anonymous@anonymous.invalid", "anonymous", False, Address(f"192.0.2.{n}", 5060))
            assert not await door.verify_pin(policy, CHANNEL, guest, "0000")
        elsewhere = Caller("1002@other.example", "1002", True, Address("192.0.2.9", 5060))
        with pytest.raises(Rejected, match="Too Many Wrong PINs"):
            await door.verify_pin(policy, CHANNEL, elsewhere, PIN)
        assert await door.verify_pin(policy, CHANNEL, caller("1002"), PIN)

    asyncio.run(scenario())


def test_right_pins_are_not_counted_and_odd_ones_are_wrong() -> None:
    async def scenario() -> None:
        door, policy = gate([0.0], pin_attempts_per_caller=4, pin_attempts_per_channel=4), ServicePolicy(number="8888")
        for _ in range(6):
            assert await door.verify_pin(policy, CHANNEL, caller("1002"), PIN)
        for odd in ("", "4711 ", "٤٧١١", "47110"):
            assert not await door.verify_pin(policy, CHANNEL, caller("1002"), odd)

    asyncio.run(scenario())


def test_a_service_numbers_own_pin_holds_where_the_broadcaster_has_none() -> None:
    async def scenario() -> None:
        policy = ServicePolicy.model_validate({"number": "8888", "pin": "999999"})
        own = gate([0.0])
        assert await own.verify_pin(policy, CHANNEL, caller("1002"), PIN)
        assert not await own.verify_pin(policy, CHANNEL, caller("1002"), "999999")
        credentials: Any = None
        open_channel = Gate(ChannelsConfig(), Channels(Channel()), credentials)
        assert await open_channel.needs_pin(policy, CHANNEL, caller("1002"))
        assert await open_channel.verify_pin(policy, CHANNEL, caller("1002"), "999999")
        assert not await open_channel.verify_pin(policy, CHANNEL, caller("1002"), PIN)

    asyncio.run(scenario())


def test_pins_never_reach_the_log_and_the_server_does_not_stand_still_while_one_is_checked() -> None:
    async def scenario() -> None:
        with structlog.testing.capture_logs() as events:
            door = gate([0.0])
            checks = [
                asyncio.create_task(door.verify_pin(ServicePolicy(number="8888"), CHANNEL, caller(n), "98765432"))
                for n in ("1002", "1003", "1004")
            ]
            longest, before = 0.0, time.perf_counter()
            while not all(check.done() for check in checks):
                await asyncio.sleep(0)
                longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
        assert len(events) == 3 and "98765432" not in str(events)
        assert "9876" not in repr(await Channels(Channel(True, frozenset(), "9876")).get(""))
        assert longest < 0.5

    asyncio.run(scenario())


def test_a_broadcast_ends_when_its_time_is_up_also_over_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=services({"max_seconds": 1.5})) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            began = world.group.opened_at
            await world.kill_server()
            await world.start_server()
            reasons = [await phone.ended(), await viewer.ended()]
            assert reasons == ['Q.850;cause=102;text="Maximum duration reached"'] * 2
            assert 1.4 < time.time() - began < 3.5
            await world.over()
            await phone.go_live()

    asyncio.run(scenario())


def test_a_broadcast_that_ends_early_leaves_no_clock_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=services({"max_seconds": 3600})) as world:
            _, call = await world.broadcaster()
            deadline = world.group.deadline
            assert deadline is not None and not deadline.cancelled()
            await call.send("BYE")
            await world.over()
            assert deadline.cancelled()

    asyncio.run(scenario())


def test_a_changed_configuration_holds_for_the_next_broadcast(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            changed = (ServicePolicy(number="8888", broadcasters=()), ServicePolicy(number="7777"))
            config = world.config.model_copy(update={"services": changed})
            assert reloaded(world.config, config).changed == ("services",), "and needs no restart"
            world.server.reconfigure(config)
            world.service.reconfigure(config)
            await world.viewer("1002")
            third = await world.phone("1003")
            assert await refusal(third, "8888") == (403, "1003 May Not Go Live On 8888")
            await third.go_live("7777")

    asyncio.run(scenario())
