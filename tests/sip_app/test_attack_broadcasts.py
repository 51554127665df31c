"""Calls made to leave something behind: half-made broadcasts, stopped clocks, calls nobody ends."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ua import DOMAIN, OFFER, running

from protocols.control import Command, LegBack, LegInfo, LegLost, LegMedia, ReplaceSource
from protocols.net import Address, Flow
from protocols.sip.digest import NonceSource
from protocols.sip.message import Headers, Request, make_response
from provisioning.config import Config
from sip_app.broadcast.ending import ENDED, broadcaster_lost, end_group
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.broadcast.media import plan_source
from sip_app.broadcast.operator import OperatorDoor
from sip_app.broadcast.service import BroadcastCalls
from sip_app.calls.incoming import Caller, Rejected

CHANNEL = "1001@dialcast.internal"
FLOW = Flow("udp", Address("127.0.0.1", 5060), Address("127.0.0.1", 5070))


@dataclass
class FakeDialog:
    """A confirmed call; `alive` is what its phone answers to OPTIONS."""

    alive: bool = True
    handler: Any = None
    byes: list[str] = field(default_factory=list)
    probes: int = 0

    def __post_init__(self) -> None:
        self.acked, self.ended = asyncio.Event(), asyncio.Event()
        self.acked.set()

    async def bye(self, reason: str) -> None:
        self.byes.append(reason)
        self.ended.set()

    async def probe(self, timeout: float) -> bool:
        self.probes += 1
        await asyncio.sleep(0)
        return self.alive


class FakeCall:
    """An INVITE to the service number; `answering` is what happens while its 200 is made."""

    def __init__(self, offer: bytes = OFFER, answering: Any = None) -> None:
        self.request = Request("INVITE", "sip:8888@dialcast.internal", Headers(()), b"")
        self.offer, self.flow, self.cancelled = offer, FLOW, False
        self.caller = Caller(CHANNEL, "1001", True, Address("127.0.0.1", 5070))
        self.service = "8888@dialcast.internal"
        self.ended = asyncio.Event()
        self.refused: list[int] = []
        self.dialog: FakeDialog | None = None
        self._answering = answering

    def contact(self, user: str, params: str = "") -> str:
        return f"<sip:{user}@127.0.0.1{params}>"

    async def answer(self, **_: Any) -> FakeDialog:
        await asyncio.sleep(0)
        if self._answering is not None:
            await self._answering()
        self.dialog = FakeDialog()
        return self.dialog

    def reject(self, status: int, reason: str | None = None, headers: Any = ()) -> None:
        if self.dialog is None:
            self.refused.append(status)


class FakeLink:
    """A relay that agrees to everything."""

    links = ()

    def relay_of(self, group: object) -> str:
        return "relay"

    def heard(self, event: object) -> None:
        """Nothing it would have to remember."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    async def call(self, command: Command, kind: type[Any]) -> Any:
        self.commands.append(command)
        await asyncio.sleep(0.01)
        if kind is LegInfo:
            spec = command.leg  # type: ignore[union-attr]
            place = Address("127.0.0.1", 20_000)
            return LegInfo(spec.leg_id, tuple(LegMedia(m.kind, place, place, "u", "p") for m in spec.media))
        return kind()


class Anything:
    """A port whose every method succeeds and finds nothing."""

    def __getattr__(self, name: str) -> Any:
        async def method(*_: Any) -> Any:
            return {"next_epoch": 1, "all": ()}.get(name)

        return method


def service(policy: dict[str, Any] | None = None, **settings: Any) -> tuple[BroadcastCalls, Broadcasting]:
    config = Config.model_validate(
        {
            "services": [{"number": "8888"} | (policy or {})],
            "service": {"overlay_delay": 0, "reconnect_grace": 0.1, **settings},
            "relay": {"leg_timeout": 0.02},
        }
    )
    ports: Any = SimpleNamespace(
        broadcasts=Anything(), diversions=Anything(), dialogs=Anything(), channels=None, credentials=None
    )
    link: Any = FakeLink()
    made = Broadcasting(config, ports, link, "as")
    return BroadcastCalls(made), made


async def live(calls: BroadcastCalls, made: Broadcasting) -> tuple[FakeCall, LiveGroup]:
    call: Any = FakeCall()
    await calls.go_live(call)
    return call, made.open[CHANNEL]


def test_a_call_that_cannot_be_answered_leaves_no_broadcast_behind() -> None:
    async def scenario() -> None:
        calls, made = service()

        async def too_short() -> None:
            raise Rejected(422, "Session Interval Too Small")

        call: Any = FakeCall(answering=too_short)
        await calls.go_live(call)
        assert call.refused == [422]
        assert made.open == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("offer", [b"garbage", OFFER.replace(b"PCM", b"XXX").replace(b"H264", b"H999")])
def test_an_offer_that_is_refused_does_not_stop_the_clock_of_a_lost_broadcast(offer: bytes) -> None:
    async def scenario() -> None:
        calls, made = service()
        _, group = await live(calls, made)
        broadcaster_lost(made, group)
        again: Any = FakeCall(offer.replace(b"RTP/AVP 0 8", b"RTP/AVP 98 99"))
        await calls.go_live(again)
        assert again.refused and again.refused[0] in (400, 488)
        await asyncio.sleep(0.25)
        assert made.open == {} and group.over()

    asyncio.run(scenario())


def test_of_two_calls_that_take_over_at_once_one_is_refused_and_none_is_forgotten() -> None:
    async def scenario() -> None:
        calls, made = service({"second_attempt": "takeover"})
        first, group = await live(calls, made)
        rivals: list[Any] = [FakeCall() for _ in range(5)]
        await asyncio.gather(*(calls.go_live(rival) for rival in rivals))
        await asyncio.sleep(0.05)
        answered = [rival.dialog for rival in rivals if rival.dialog is not None]
        running = [dialog for dialog in (first.dialog, *answered) if dialog is not None and not dialog.byes]
        assert running == [group.source]
        assert sum(isinstance(command, ReplaceSource) for command in made.link.commands) == 1  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_a_broadcast_that_ends_while_it_is_being_answered_hangs_up_that_call() -> None:
    async def scenario() -> None:
        calls, made = service()

        async def stopped() -> None:
            await end_group(made, made.open[CHANNEL], ENDED)

        call: Any = FakeCall(answering=stopped)
        await calls.go_live(call)
        await asyncio.sleep(0.05)
        assert made.open == {}
        assert call.dialog is not None and call.dialog.byes == [ENDED]

    asyncio.run(scenario())


def test_a_leg_that_flaps_is_asked_after_by_one_task_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        calls, made = service()
        _, group = await live(calls, made)
        dialog: Any = FakeDialog()
        group.viewers["v"] = Viewer("v", "2001", dialog, 0.0)
        for _ in range(200):
            calls.relay_event(LegLost(CHANNEL, group.epoch, "v", "silent"))
            calls.relay_event(LegBack(CHANNEL, group.epoch, "v"))
        calls.relay_event(LegLost(CHANNEL, group.epoch, "v", "silent"))
        await asyncio.sleep(0.1)
        asking = [task for task in made._tasks if not task.done()]
        assert len(asking) <= 2 and dialog.probes < 20
        group.viewers.clear()
        await asyncio.sleep(0.1)
        assert not made.silent

    asyncio.run(scenario())


def test_the_operators_door_answers_whatever_is_pushed_through_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, made = service()
        door = OperatorDoor(made, tmp_path / "door")
        await door.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "door")
        for line in (
            b"[" * 4000,
            b"\xff\x00",
            b"[]",
            b'"command"',
            b'{"command":{}}',
            b'{"command":"stop","number":[1]}',
        ):
            writer.write(line + b"\n")
            assert json.loads(await asyncio.wait_for(reader.readline(), 2))["ok"] is False
        writer.close()
        await door.stop()

    asyncio.run(scenario())


def test_an_offer_with_brackets_round_its_address_asks_the_relay_to_send_nowhere() -> None:
    plan = plan_source(OFFER.replace(b"IP4 127.0.0.1\r\nt=", b"IP6 [::1]\r\nt="), Config().media)
    assert {media.rtp.host for media in plan.leg("a", "1001", "127.0.0.1").media} == {"0.0.0.0"}


def test_a_challenge_answered_from_another_address_is_asked_again(tmp_path: Path) -> None:
    """Else a subscriber could call in a victim's name, and the victim would get the stream."""
    nonces = NonceSource(b"secret")
    nonce = nonces.issue(1000.0, "192.0.2.66")
    assert not nonces.use(nonce, 1, 1001.0, "192.0.2.1")
    assert nonces.use(nonce, 1, 1001.0, "192.0.2.66")

    async def scenario() -> None:
        async with running(tmp_path, None) as world:
            phone = await world.phone("1001", register=False)
            assert (await phone.register()).status == 200
            identity = world.server._identity
            request = phone.build("INVITE", f"sip:8888@{DOMAIN}", body=OFFER)
            refusal = identity.challenged(request, "192.0.2.66")
            challenge = make_response(request, refusal.status, headers=refusal.headers)
            again = await phone.ask(phone.authorized(request, challenge))
            assert again.status == 407 and "stale=true" in again.headers.all("proxy-authenticate")[0]

    asyncio.run(scenario())
