"""The operator's HTTP port: `/metrics` for Prometheus (text or OpenMetrics) and `/healthz`, by asyncio's own means.

It answers GET and nothing else, one request a connection, bounded in size, time and number; a scrape costs the event
loop a few milliseconds. A port that is taken is no reason not to serve calls: the part runs without, and says so.
"""

import asyncio
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import structlog
from prometheus_client import REGISTRY, Gauge, Info, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from dialcast import version_here
from protocols.net import Address, is_numeric

HEAD_BYTES = 4096
PATIENCE = 5.0
"""Seconds a connection may take in all."""
MAX_CONNECTIONS = 16
LAG_INTERVAL = 0.5
LAG_WINDOW = 10.0
"""Seconds for which a hold-up is remembered."""
_JSON = "application/json"

Finding = Mapping[str, object]
"""One part's state: `ok`, and what there is to tell."""
Health = Callable[[], Awaitable[dict[str, Finding]]]

BUILD = Info("dialcast_build", "What runs here")
LOOP_LAG = Gauge("dialcast_loop_lag_seconds", "How late the event loop was at worst within the last ten seconds")
THREADS = Gauge("dialcast_threads", "Threads of this process")
TASKS = Gauge("dialcast_asyncio_tasks", "Tasks of the event loop that are not done")
TIMERS = Gauge("dialcast_asyncio_timers", "Timers of the event loop, some cancelled ones included")
BLOCKS = Gauge("dialcast_python_blocks", "Pieces of memory Python holds: what grows for good where something leaks")
log = structlog.get_logger()
disable_created_metrics()  # a time beside each counter, which nobody reads


class LoopLag:
    """Measures how late the event loop calls what is due: the one figure that tells of an overloaded process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seen: deque[tuple[float, float]] = deque()
        self._timer = self._loop.call_later(LAG_INTERVAL, self._due, self._loop.time() + LAG_INTERVAL)

    def stop(self) -> None:
        """No more measuring."""
        self._timer.cancel()

    @property
    def worst(self) -> float:
        """Seconds, within the window."""
        now = self._loop.time()
        recent = [lag for at, lag in self._seen if now - at <= LAG_WINDOW]
        return max([*recent, now - self._timer.when(), 0.0])

    def _due(self, expected: float) -> None:
        now = self._loop.time()
        self._seen.append((now, now - expected))
        while now - self._seen[0][0] > LAG_WINDOW:
            self._seen.popleft()
        self._timer = self._loop.call_later(LAG_INTERVAL, self._due, now + LAG_INTERVAL)


class Monitor:
    """Serves one process. `health` judges its parts; `refresh` runs before each scrape, for figures that must be asked
    for."""

    def __init__(self, part: str, health: Health, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        self.address: Address | None = None
        self.lag_max = 1.0
        """Seconds of loop lag that are still healthy."""
        self._health = health
        self._refresh = refresh
        self._lag = LoopLag()
        self._server: asyncio.Server | None = None
        self._open = 0
        LOOP_LAG.set_function(lambda: self._lag.worst)
        loop = asyncio.get_running_loop()
        THREADS.set_function(threading.active_count)
        TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
        TIMERS.set_function(lambda: len(getattr(loop, "_scheduled", ())))  # no public way tells
        BLOCKS.set_function(sys.getallocatedblocks)
        BUILD.info({"part": part, "version": version_here()})
        self._setting = f"operations.{part}_port"

    async def start(self, host: str, port: int | None) -> None:
        """Listen, unless there is no port or it is taken."""
        if port is None:
            return
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_BYTES)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)  # asyncio's words name the address, too
            log.warning("monitor.not_served", setting=self._setting, address=str(Address(host, port)), error=why)
            return
        self.address = Address(*self._server.sockets[0].getsockname()[:2])

    async def stop(self) -> None:
        """Close the port."""
        self._lag.stop()
        LOOP_LAG.set_function(lambda: 0.0)
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = await self._answer(head)
                fields = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", "", ""]
                writer.write("\r\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *fields]).encode() + body)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("monitor.dropped", error=type(error).__name__)
        finally:
            self._open -= 1
            writer.transport.abort()  # whoever has not read it by now never will

    async def _answer(self, head: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body for a request's head."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return 400, "text/plain", b"not HTTP/1.1\n"
        if words[0] != "GET":
            return 405, "text/plain", b"GET only\n"
        if any(not _is_us(line.partition(":")[2].strip()) for line in lines[1:] if line.lower().startswith("host:")):
            return 403, "text/plain", b"ask by address\n"
        match words[1].partition("?")[0]:
            case "/metrics":
                if self._refresh is not None:
                    await self._refresh()
                accepted = [line.partition(":")[2] for line in lines[1:] if line.lower().startswith("accept:")]
                return 200, *_scraped(",".join(accepted))
            case "/healthz":
                return await self._judge()
        return 404, "text/plain", b"/metrics or /healthz\n"

    async def _judge(self) -> tuple[int, str, bytes]:
        lag = self._lag.worst
        parts: dict[str, Any] = {**await self._health(), "loop": {"ok": lag <= self.lag_max, "lag_s": round(lag, 4)}}
        well = all(part["ok"] for part in parts.values())
        body = json.dumps({"status": "ok" if well else "failing", "parts": parts}).encode() + b"\n"
        return 200 if well else 503, _JSON, body


def _is_us(host: str) -> bool:
    """False for a name of the public DNS: a web page whose name was made to lead here would show it (rebinding)."""
    name = host.rpartition(":")[0] if host[-1:].isdigit() and ":" in host else host
    return "." not in name or is_numeric(name)


def _scraped(accepted: str) -> tuple[str, bytes]:
    """Content type and figures in the form that is accepted; plain text where what is accepted makes no sense."""
    if accepted.isprintable():
        with suppress(TypeError, ValueError):  # the library compares a version that is no number with one
            encode, kind = choose_encoder(accepted)
            return kind, encode(REGISTRY)
    encode, kind = choose_encoder("")
    return kind, encode(REGISTRY)
