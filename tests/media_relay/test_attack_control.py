"""Strangers, and commands nobody foresaw, on the control link: one link goes on for everybody else."""

import asyncio
from typing import Any

import pytest
from test_relay_control import TOKEN, config, dial, hello, phones, serve

from media_relay.relay import Relay
from media_relay.server import RelayServer
from protocols.control import ControlError, Hello, HelloReply, LegInfo, LegPage, LegSpec, ListLegs, OpenGroup
from protocols.net import Address


def test_an_offer_with_a_bracketed_address_does_not_cost_everybody_the_link() -> None:
    async def test(address: Address) -> None:
        server = await hello(address)
        with phones("audio") as (phone,):
            spec = phone.spec(receives=True)
            bad = LegSpec("a", "1001", "[::1]", (spec,))
            with pytest.raises(ControlError, match="bad-request"):
                await server.call(OpenGroup("1001", 1, bad), LegInfo)
            await server.call(OpenGroup("1001", 2, LegSpec("a", "1001", "127.0.0.1", (spec,))), LegInfo)
        assert not server.lost.is_set()

    serve(test)


def test_a_command_that_fails_for_an_unforeseen_reason_is_refused_and_the_link_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Relay, "_list", broken)

    async def test(address: Address) -> None:
        server = await hello(address)
        for _ in range(3):
            with pytest.raises(ControlError, match="bad-request: RuntimeError"):
                await server.call(ListLegs(), LegPage)
        assert not server.lost.is_set()

    serve(test)


def test_a_crowd_of_silent_strangers_does_not_keep_the_server_out() -> None:
    async def test(address: Address) -> None:
        idle = [await asyncio.open_connection(*address) for _ in range(200)]
        server = await asyncio.wait_for(dial(address), 2)
        reply = await asyncio.wait_for(server.call(Hello("as1", 1, TOKEN), HelloReply), 2)
        assert reply.instance
        for _, writer in idle:
            writer.close()

    serve(test)


def test_a_tick_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = 0

    def broken(_self: Relay, _now: float) -> None:
        nonlocal ticks
        ticks += 1
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Relay, "tick", broken)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        server = RelayServer(config())
        with pytest.raises(RuntimeError):
            await server.start()
        await asyncio.sleep(0.35)
        await server.stop()

    asyncio.run(run())
    assert ticks >= 3
