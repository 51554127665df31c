"""Harnesses of what the operator's ports read: the head of an HTTP request, a line on the operator's socket."""

import asyncio
import json
from collections.abc import Coroutine
from functools import cache
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, TypeVar

from dialcast.monitor import HEAD_BYTES, Finding, Monitor
from fuzz.target import ROOT, Target, must_be_small, must_equal
from provisioning.config import Config
from sip_app.access.guard import Guard
from sip_app.broadcast.operator import MAX_LINE, OperatorDoor

T = TypeVar("T")


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that waits for nobody returns."""
    try:
        work.send(None)
    except StopIteration as result:
        value: T = result.value
        return value
    raise AssertionError("it waits")


async def _well() -> dict[str, Finding]:
    return {"store": {"ok": True}}


@cache
def _monitor() -> Monitor:
    async def made() -> Monitor:
        monitor = Monitor("fuzz", _well)
        await monitor.stop()
        return monitor

    return asyncio.run(made())


def read_head(data: bytes) -> None:
    """The head of a request to the port of metrics and health."""
    status, kind, body = _at_once(_monitor()._answer(data + b"\r\n\r\n"))
    must_equal(HTTPStatus(status) in (200, 400, 403, 404, 405, 503), True)
    must_equal(kind.isprintable(), True)
    if status != 200:
        must_be_small(body, data)


def read_accept(data: bytes) -> None:
    """What a scrape accepts: it gets the figures, whatever it asks for."""
    line = data.replace(b"\r", b" ")
    status, kind, body = _at_once(_monitor()._answer(b"GET /metrics HTTP/1.1\r\nAccept: " + line + b"\r\n\r\n"))
    must_equal((status, kind.isprintable(), bool(body)), (200, True, True))


async def _nothing() -> list[object]:
    return []


async def _reloaded() -> dict[str, Any]:
    return {"ok": True}


@cache
def _door() -> OperatorDoor:
    """Of a service that holds no broadcast."""
    service: Any = SimpleNamespace(
        open={}, closing=[], as_id="as", ports=SimpleNamespace(broadcasts=SimpleNamespace(all=_nothing))
    )
    door = OperatorDoor(service, ROOT / "no.sock")
    door.guard, door.reload = Guard(Config(), lambda: 0.0), _reloaded
    return door


def read_line(data: bytes) -> None:
    """A command: whatever it is, the answer is one JSON object, and short."""
    answer = _at_once(_door()._answer(data))
    must_equal(isinstance(answer["ok"], bool), True)
    must_equal(len(json.dumps(answer)) < 2048, True)


_HEADS = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9090\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*",
    b"GET /healthz?x HTTP/1.0\r\nhost: [::1]:9090",
    b"GET /healthz HTTP/1.1\r\nHost: evil.example:80",
)
_ACCEPTED = (
    b"text/plain;version=0.0.4;escaping=underscores",
    b"application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
)
_LINES = (
    b'{"command": "list"}\n',
    b'{"command": "stop", "number": "1001", "reason": "x"}\n',
    b'{"command": "lift", "who": "192.0.2.1"}',
    b'{"command": "blocks"}',
    b'{"command": "reload"}',
)

TARGETS = (
    Target("http-head", read_head, lambda: _HEADS, HEAD_BYTES),
    Target("http-accept", read_accept, lambda: _ACCEPTED, 512),
    Target("operator-line", read_line, lambda: _LINES, MAX_LINE),
)
