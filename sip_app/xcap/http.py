"""HTTP for XCAP with its limits: twisted.web reads requests, and nobody can make it hold more than was granted.

A body that is too large, or comes without a length, is thrown away as it arrives and answered 413 or 411. Connections
are counted, and each is cut after its lifetime, which ends slow senders of headers and bodies alike.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from provisioning.config import XcapConfig
from sip_app.access.guard import place_of
from sip_app.bounds import RateLimit
from sip_app.metrics import limited

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the service sees it. `path` and `query` are as written; header names are in lower case."""

    method: str
    path: str
    query: str
    client: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    refused: int = 0
    """The status it deserves for its size alone; 0 for none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: Lines = ()
    body: bytes = b""


Service = Callable[[Asked], Awaitable[Answer]]


class _BoundedRequest(Request):
    """A request whose body never grows beyond the limit."""

    refused = 0
    max_body = 0
    """Set for each port."""

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """The length of the body, known before its first byte; None for chunks."""
        if length is None:
            self.refused = 411
        elif length > self.max_body:
            limited("xcap.max_body_bytes")
            self.refused = 413
        Request.gotLength(self, 0 if self.refused else length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """A piece of the body."""
        if not self.refused:
            Request.handleContentChunk(self, data)


class _Everything(Resource):
    """Hands every request to the service."""

    def __init__(self, service: Service) -> None:
        Resource.__init__(self)
        self.isLeaf = True
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()

    def render(self, request: Any) -> int:
        """Answer later."""
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return NOT_DONE_YET

    async def _serve(self, request: Any) -> None:
        gone = False

        def lost(_: Failure) -> None:
            nonlocal gone
            gone = True

        request.notifyFinish().addErrback(lost)
        target = request.uri.decode("latin-1")
        path, _, query = target.partition("?")
        answer = await self._service(
            Asked(
                request.method.decode("latin-1"),
                path,
                query,
                request.getClientAddress().host,
                {
                    name.decode("latin-1").lower(): b", ".join(values).decode("utf-8", "replace")
                    for name, values in request.requestHeaders.getAllRawHeaders()
                },
                request.content.read(),
                request.refused,
            )
        )
        if gone:
            return
        request.setResponseCode(answer.status)
        request.responseHeaders.removeHeader(b"Server")
        for name, value in answer.headers:
            request.responseHeaders.addRawHeader(name, value)
        request.setHeader("Content-Length", str(len(answer.body)))
        if ("Connection", "close") in answer.headers:
            request.channel.persistent = False
        if answer.body and request.method != b"HEAD":
            request.write(answer.body)
        request.finish()


class _Limited(ProtocolWrapper):
    """One connection, cut after its lifetime."""

    factory: "Door"
    place = ""
    """What counts as its address."""
    _end: Any = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """It begins."""
        ProtocolWrapper.connectionMade(self)
        self._end = self.factory.later(self.factory.limits.connection_lifetime, self._outlived)

    def _outlived(self) -> None:
        self._end = None
        limited("xcap.connection_lifetime")
        self.cut()

    def cut(self) -> None:
        """Close it at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """It is over."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self.factory.left(self.place)
        ProtocolWrapper.connectionLost(self, reason)


class Door(WrappingFactory[_Limited]):
    """The factory to listen with."""

    protocol = _Limited
    noisy = False

    def __init__(self, service: Service, limits: XcapConfig, later: Callable[..., object]) -> None:
        bounded = type("BoundedRequest", (_BoundedRequest,), {"max_body": limits.max_body_bytes})
        site = Site(_Everything(service), requestFactory=bounded)
        site.noisy = False
        super().__init__(site)  # type: ignore[no-untyped-call]  # it has no annotations
        self.limits = limits
        self.later = later
        self._rate = RateLimit(2 * limits.requests_per_second)
        self._places: Counter[str] = Counter()

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        """A connection, if there is room for one more of that address, and not too many come from there."""
        place = place_of(addr.host)
        exceeded = None
        if len(self.protocols) >= self.limits.max_connections:
            exceeded = "xcap.max_connections"
        elif self._places[place] >= self.limits.max_connections_per_address:
            exceeded = "xcap.max_connections_per_address"
        elif not self._rate.allows(place, time.monotonic()):
            exceeded = "xcap.requests_per_second"
        if exceeded is not None:
            limited(exceeded)
            return None
        connection: Any = WrappingFactory.buildProtocol(self, addr)
        connection.place = place
        self._places[place] += 1
        return connection

    def left(self, place: str) -> None:
        """A connection from there is over."""
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]

    def close(self) -> None:
        """Cut every connection."""
        for connection in list(self.protocols):
            connection.cut()
