"""The operator's door: a Unix socket (mode 0600, in the data directory) behind `dialcast live list|stop`.

One JSON object a line each way: {"command": "list"} or {"command": "stop", "number": "1001", "reason": "..."};
answered by {"ok": true, ...} or {"ok": false, "error": "..."}.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from protocols.records import Broadcast
from sip_app.access.guard import Guard
from sip_app.broadcast.ending import end_group, stopped_by_operator
from sip_app.broadcast.group import Broadcasting
from sip_app.broadcast.media import load_formats

MAX_LINE = 4096
MAX_BLOCKS = 500
"""Blocks told at once, the latest."""
IDLE = 30.0
"""Seconds a connected client may stay silent."""

log = structlog.get_logger()


class OperatorDoor:
    """Serves the operator's commands until stopped."""

    def __init__(self, service: Broadcasting, path: Path) -> None:
        self._service = service
        self._path = path
        self._server: asyncio.Server | None = None
        self.reload: Callable[[], Awaitable[dict[str, Any]]] | None = None
        """Reads the configuration again; its answer is the command's."""
        self.guard: Guard | None = None
        """Whose blocks are shown and lifted."""

    async def start(self) -> None:
        """Open the socket, in place of one a killed server left behind."""
        self._path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE)
        finally:
            os.umask(previous)

    async def stop(self) -> None:
        """Close the socket and remove it."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await asyncio.wait_for(reader.readline(), IDLE):
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError) as error:
            log.debug("operator.dropped", error=str(error) or type(error).__name__)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = request["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"ok": False, "error": "not a command"}
        match command:
            case "list":
                return await self._told(self._list())
            case "stop":
                return await self._told(self._stop(str(request.get("number", "")), str(request.get("reason", ""))))
            case "reload" if self.reload is not None:
                return await self.reload()
            case "blocks" if self.guard is not None:
                blocks = [asdict(block) for block in self.guard.blocks()]
                return {"ok": True, "count": len(blocks), "blocks": blocks[-MAX_BLOCKS:]}
            case "lift" if self.guard is not None:
                who = str(request.get("who", ""))[:300]
                if not self.guard.lift(who):
                    return {"ok": False, "error": f"{who[:80]} is not blocked"}
                log.info("operator.lift", who=who)
                return {"ok": True, "who": who}
        return {"ok": False, "error": f"no such command: {str(command)[:40]}"}

    async def _told(self, answer: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await answer
        except OSError as error:
            return {"ok": False, "error": f"the store cannot be asked: {error}"}

    async def _list(self) -> dict[str, Any]:
        """Those of this server in full; of those that other servers on our store hold, what the store knows."""
        now = time.time()
        here = [
            {
                "number": group.number,
                "channel": group.channel,
                "service": group.service,
                "state": group.state,
                "epoch": group.epoch,
                "since": group.opened_at,
                "seconds": round(now - group.opened_at, 1),
                "viewers": sorted(viewer.number for viewer in group.viewers.values()),
                "forwarded": group.forwarded,
                "media": [f"{fmt.codec}/{fmt.clock_rate}" for fmt in group.formats],
                "unheard": group.unheard,
                "as_id": self._service.as_id,
            }
            for group in (*self._service.open.values(), *self._service.closing)
        ]
        elsewhere = [
            {
                "number": claim.channel.partition("@")[0],
                "channel": claim.channel,
                "service": claim.service,
                "state": claim.state,
                "epoch": claim.epoch,
                "since": claim.opened_at,
                "seconds": round(now - claim.opened_at, 1),
                "media": [f"{fmt.codec}/{fmt.clock_rate}" for fmt in load_formats(claim.media)],
                "as_id": claim.as_id,
            }
            for claim in await self._elsewhere()
        ]
        return {"ok": True, "broadcasts": here + elsewhere}

    async def _elsewhere(self) -> list[Broadcast]:
        claims = await self._service.ports.broadcasts.all()
        return [claim for claim in claims if claim.as_id != self._service.as_id]

    async def _stop(self, number: str, reason: str) -> dict[str, Any]:
        groups = [group for group in self._service.open.values() if number in (group.number, group.channel)]
        if not groups:
            for claim in await self._elsewhere():
                if number in (claim.channel, claim.channel.partition("@")[0]):
                    return {"ok": False, "error": f"{number[:40]} is live on {claim.as_id}: stop it there"}
            return {"ok": False, "error": f"{number[:40]} is not live"}
        if len(groups) > 1:
            channels = " or ".join(group.channel for group in groups)
            return {"ok": False, "error": f"{number[:40]} is live in several domains: name {channels}"}
        group = groups[0]
        viewers = len(group.viewers)
        log.info("operator.stop", channel=group.channel, reason=reason)
        await end_group(self._service, group, stopped_by_operator(reason))
        return {"ok": True, "number": group.number, "viewers": viewers}
