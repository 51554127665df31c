"""The figures say what happened, and docs/operations.md has a line for each."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from broadcast_world import BroadcastWorld, broadcasting, until
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric

from dialcast import monitor  # noqa: F401 - it has figures too
from media_relay.collector import RelayCollector
from protocols.call_record import CallRecord
from sip_app.collector import ServerCollector

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def collectors(world: BroadcastWorld) -> CollectorRegistry:
    """What the two processes add to their registries."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(world.server, world.service, lambda: (2, 3)))
    registry.register(RelayCollector(world.relay.relay, lambda: world.relay.links))
    return registry


def families(world: BroadcastWorld) -> Iterator[Metric]:
    for registry in (collectors(world), REGISTRY):
        yield from (family for family in registry.collect() if family.name.startswith("dialcast_"))


def row(family: Metric) -> str:
    name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
    return f"| `{name}` | {family.type} | {family.documentation} |"


def test_the_table_in_the_documentation_is_what_is_served(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with broadcasting(tmp_path) as world:
            return sorted({row(family) for family in families(world)})

    served = asyncio.run(run())
    written = [line for line in PAGE.read_text().splitlines() if line.startswith("| `dialcast_")]
    assert written == served, "the table of docs/operations.md should be:\n" + "\n".join(served)


def test_figures_follow_a_broadcast(tmp_path: Path) -> None:
    def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    async def run() -> None:
        invites = value(REGISTRY, "dialcast_sip_requests_total", direction="received", method="INVITE")
        busy = value(REGISTRY, "dialcast_sip_responses_total", direction="sent", method="INVITE", status="486")
        failed = value(REGISTRY, "dialcast_sip_authentications_total", verdict="failed")
        async with broadcasting(tmp_path) as world:
            registry = collectors(world)
            phone, call = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            for _ in range(5):
                phone.audio.send(b"\x00" * 160)
            await until(lambda: len(viewer.audio.packets) >= 5)
            assert value(registry, "dialcast_broadcasts", state="live") == 1
            assert value(registry, "dialcast_viewers") == 1
            assert value(registry, "dialcast_sip_dialogs") == 2
            assert value(registry, "dialcast_registered_contacts") == 3
            assert value(registry, "dialcast_relay_legs", role="sink") == 1
            assert value(registry, "dialcast_relay_control_links") == 1
            sent = value(registry, "dialcast_relay_packets_total", direction="out")
            assert sent >= 5
            again = await world.phone("1001")
            assert (await (await again.dial("8888", body=again.offer())).final()).status == 486
            stranger = await world.phone("1003")
            stranger.password = "wrong"
            await stranger.register()
            await call.send("BYE")
            await world.over()
            assert value(registry, "dialcast_broadcasts", state="live") == 0
            assert value(registry, "dialcast_relay_packets_total", direction="out") >= sent, "the past is not forgotten"
        assert value(REGISTRY, "dialcast_sip_requests_total", direction="received", method="INVITE") >= invites + 4
        assert value(REGISTRY, "dialcast_sip_responses_total", direction="sent", method="INVITE", status="486") > busy
        assert value(REGISTRY, "dialcast_sip_authentications_total", verdict="failed") > failed

    asyncio.run(run())


def test_a_record_has_a_column_for_each_of_its_fields_in_the_documentation() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in CallRecord.__slots__)
