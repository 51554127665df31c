"""Each limit counts under its own name, so that an operator sees which one to raise or whom to block."""

import asyncio
import re
from pathlib import Path

import pytest
from broadcast_world import broadcasting, until
from test_announcement_calls import private, short_prompts, watched_without_a_key
from test_attack_crowds import connect, cut
from test_attack_forks import answer
from test_conference import conference
from test_transport_limits import KINDS, OPTIONS, Client, config, refused
from test_transport_outbound import flow
from test_xcap import World as XcapWorld
from test_xcap import run
from ua import running

from protocols.sip.message import make_response
from provisioning.config import Config
from sip_app.transport import streams

__all__ = ["short_prompts"]  # a fixture: prompts as short here as there
SIP_APP = Path(streams.__file__).parents[1]


def test_calls_too_large_to_be_held_together_count_as_their_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_transaction_bytes=1_000_000) as world:
            ann, bob = [await world.phone(number, transport="tcp") for number in ("1001", "1002")]
            before, others = refused("sip.max_transaction_bytes"), refused("sip.max_transactions")
            for _ in range(16):  # each rings, and is held until it is answered
                await bob.dial("1001", body=b"x" * 60_000, content_type="text/plain")
                await ann.asked("INVITE")
            call = await bob.dial("1001", body=b"x" * 60_000, content_type="text/plain")
            assert (await call.final()).status == 503
            assert refused("sip.max_transaction_bytes") == before + 1
            assert refused("sip.max_transactions") == others

    asyncio.run(scenario())


def test_a_call_there_is_no_room_to_send_on_counts_too(tmp_path: Path) -> None:
    """The caller's transaction is the last there is room for."""

    async def scenario() -> None:
        async with running(tmp_path, max_transactions=3) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            await bob.dial("1001")
            await ann.asked("INVITE")
            before = refused("sip.max_transactions")
            call = await bob.dial("1001")
            assert (await call.final()).status in (480, 500, 503)
            assert refused("sip.max_transactions") == before + 1

    asyncio.run(scenario())


def test_the_share_of_the_servers_own_connections_counts_as_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_connections=4, outgoing_share=0.5) as world:
            for number in ("1001", "1002"):
                await world.phone(number, transport="tcp")
            before, others = refused("sip.outgoing_share"), refused("sip.max_connections")
            reader, _ = await connect(world, "127.0.0.2")
            assert await cut(reader)
            assert refused("sip.outgoing_share") == before + 1
            assert refused("sip.max_connections") == others

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_falls_silent_counts(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, connection_idle_timeout=0.4)) as world:
            client = await Client.connect(kind, world.server.endpoint.transports.bound[kind])
            client.writer.write(client.framed(OPTIONS))
            before = refused("sip.connection_idle_timeout")
            assert 0.3 < await client.cut_after() < 1.5
            assert refused("sip.connection_idle_timeout") == before + 1

    asyncio.run(scenario())


def test_a_registered_flow_that_falls_silent_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FLOW_SLACK", -0.7)

    async def scenario() -> None:
        async with running(tmp_path, flow_timer=1) as world:
            silent, _ = await flow(world, 1, transport="tcp")
            before, others = refused("sip.flow_timer"), refused("sip.connection_idle_timeout")
            await until(silent.reading.done)
            assert refused("sip.flow_timer") == before + 1
            assert refused("sip.connection_idle_timeout") == others

    asyncio.run(scenario())


def test_a_web_page_that_answers_no_ping_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=config(tmp_path, {"ping_interval": 0.1})) as world:
            before = refused("websocket.ping_interval")
            dead = await Client.connect("ws", world.server.endpoint.transports.bound["ws"])
            assert await dead.cut_after() < 1
            assert refused("websocket.ping_interval") == before + 1

    asyncio.run(scenario())


def test_a_phone_that_rings_as_hundreds_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_branch_dialogs=3) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            before = refused("sip.max_branch_dialogs")
            call = await ann.dial("1002")
            _, invite = await bob.asked("INVITE")
            answer(bob, invite, 180, 10)
            await until(lambda: refused("sip.max_branch_dialogs") == before + 7)
            answer(bob, invite, 180, 3)  # those that are known go on ringing
            answer(bob, invite, 486, 1)
            assert (await call.final()).status == 486
            assert {response.to.tag for response in call.seen if response.status == 180} == {"t0", "t1", "t2"}
            assert refused("sip.max_branch_dialogs") == before + 7

    asyncio.run(scenario())


def test_challenges_that_are_not_passed_back_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_challenges=2) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002")
            before = refused("sip.max_challenges")
            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            asking = [("Proxy-Authenticate", f'Digest realm="phone {number}", nonce="1"') for number in range(5)]
            bob.send_raw(make_response(tx.request, 407, to_tag="t", headers=asking).serialise())
            assert len((await call.final()).headers.all("proxy-authenticate")) == 2
            assert refused("sip.max_challenges") == before + 1

    asyncio.run(scenario())


def test_a_call_that_has_tried_its_last_pin_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await private(world)
            before = refused("announcements.pin_tries")
            await watched_without_a_key(world)
            assert refused("announcements.pin_tries") == before + 1

    asyncio.run(scenario())


def test_a_roster_that_leaves_somebody_out_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"notify_interval": 0.02, "roster_limit": 1}}) as world:
            broadcaster, _ = await world.broadcaster()
            await world.viewer("1002")
            before = refused("events.roster_limit")
            _, roster = await conference(broadcaster)
            await until(lambda: roster.update().count == 2)
            assert refused("events.roster_limit") == before, "all are named"
            await world.viewer("1003")
            await until(lambda: roster.update().count == 3)
            assert refused("events.roster_limit") == before + 1

    asyncio.run(scenario())


def test_whoever_guesses_passwords_at_the_xcap_server_waits_and_counts(tmp_path: Path) -> None:
    async def scenario(world: XcapWorld) -> None:
        before = refused("security.failures_before_delay")
        world.bob.password = "wrong"
        assert (await world.bob.ask("GET"))[0] == 401
        assert refused("security.failures_before_delay") == before, "once may be a mistake"
        assert (await world.bob.ask("GET"))[0] == 401
        assert refused("security.failures_before_delay") == before + 1

    run(tmp_path, scenario, security={"never_block": (), "failures_before_delay": 1})


def settings() -> set[str]:
    """All keys as labels name them: `sip.max_connections`; of a list of sections too."""
    sections = Config().model_dump()
    sections["services"] = sections["services"][0]
    return {f"{name}.{key}" for name, section in sections.items() if isinstance(section, dict) for key in section}


def test_every_label_names_a_setting() -> None:
    labels = {
        label for path in SIP_APP.rglob("*.py") for label in re.findall(r'limited\(\s*f?"([^"{]+)"', path.read_text())
    }
    assert "sip.max_bindings" in labels
    assert labels <= settings()
