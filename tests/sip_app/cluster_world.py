"""Two application servers on one store and one relay, in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broadcast_world import BroadcastWorld, broadcasting

LEASE = 0.4
EDGE = "127.0.0.5"


@asynccontextmanager
async def two_servers(
    folder: Path, *, edge: bool = False, **service: Any
) -> AsyncIterator[tuple[BroadcastWorld, BroadcastWorld]]:
    """as1 and as2; each learns at once what the other writes. With `edge`, 127.0.0.5 is an edge proxy of both."""
    sip: dict[str, Any] = {"port": 0, "requests_per_second": 5000, "edge_proxies": [EDGE] if edge else []}
    settings: dict[str, Any] = {"sip": sip, "store": {"commit_interval_ms": 0, "cache_seconds": 0}}
    settings["domain_aliases"] = [EDGE] if edge else []
    service = {"orphan_grace": 5} | service
    async with broadcasting(folder, config=settings, as_id="as1", lease=LEASE, **service) as first:
        config = first.config.model_copy(update={"sip": first.config.sip.model_copy(update={"port": 0})})
        second = BroadcastWorld(config, first.reactor, "as2", LEASE)
        second.relay = first.relay
        await second.start_server()
        try:
            yield first, second
        finally:
            for phone in (*first.phones, *second.phones):
                phone.leave()
            if second.running:
                await second.stop_server()
            for phone in second.phones:
                phone.close()
