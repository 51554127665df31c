"""/healthz tells the truth: a relay that is gone and a store that takes no write are found, and found again well."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from broadcast_world import broadcasting, until
from prometheus_client import CollectorRegistry

from dialcast import operated_server
from dialcast.operated_server import OperatedServer


def test_each_part_that_fails_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operated_server, "REGISTRY", CollectorRegistry())

    async def run() -> None:
        async with broadcasting(tmp_path) as world:
            operations = world.config.operations.model_copy(update={"health_timeout": 0.3})
            config = world.config.model_copy(update={"operations": operations})
            without_xcap: Any = None
            operated = OperatedServer(config, world.store, world.server, world.service, without_xcap)

            async def well() -> dict[str, object]:
                return {name: finding["ok"] for name, finding in (await operated.health()).items()}

            assert await well() == {"store": True, "relay": True, "sip": True}

            other = sqlite3.connect(tmp_path / "dialcast.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            health = await operated.health()
            assert health["store"] == {"ok": False, "error": "no write within 0.3 s"}
            other.execute("ROLLBACK")
            other.close()

            async def recovered() -> bool:
                return (await well())["store"] is True

            await until(recovered, within=8)
            await world.stop_relay()

            async def without_relay() -> bool:
                return await well() == {"store": True, "relay": False, "sip": True}

            await until(without_relay)

            await operated.refresh()
            phone = await world.phone("1002")
            assert operated._registered == (0, 0), "a count serves for a while"
            operated._counted_at = float("-inf")
            await operated.refresh()
            assert operated._registered == (1, 1) and phone.number == "1002"

    asyncio.run(run())
