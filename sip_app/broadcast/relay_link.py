"""The AS's end of the control link: dials the relay, says hello, calls it, hears its events, dials again.

AMP over TCP (Twisted) as declared in `protocols.control_amp`; values are those of `protocols.control`. If the link
drops, calls in progress go on; the listener reconciles when it is up again.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog
from twisted.internet import endpoints, protocol, ssl
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from protocols.control import (
    VERSION,
    Command,
    ControlError,
    Done,
    Event,
    Hello,
    HelloReply,
    LegPage,
    LegRow,
    ListLegs,
    Reply,
    Value,
    expect,
)
from protocols.control_amp import ControlCall, RefusedError
from protocols.control_json import decode, encode
from protocols.net import Address, is_host
from provisioning.config import ControlConfig

CALL_TIMEOUT = 3.0
"""Seconds a command may take before the relay counts as unavailable for it."""
PING_INTERVAL = 5.0
"""Seconds between two questions whether the relay is still there; a hung one keeps its connection."""
REDIAL_DELAYS = (*[0.1] * 30, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach the relay; the last one repeats. A relay that died is back in a second or two, and
all its viewers wait."""
SAY_SO_AFTER = 20
"""Attempts after which it is said that nobody answers."""

log = structlog.get_logger()
R = TypeVar("R", bound=Reply)


class RelayUnavailable(Exception):
    """The relay cannot be reached, or did not answer in time."""


class RelayListener(Protocol):
    """Who is told what the relay reports."""

    async def relay_up(self, link: "RelayLink") -> None:
        """The link stands (again)."""
        ...

    def relay_down(self, link: "RelayLink") -> None:
        """The link is gone; it is being dialled again."""
        ...

    def relay_event(self, event: Event) -> None:
        """Something happened to a leg or a group."""
        ...


class _Wire(amp.AMP):
    """One connection; thin, as AMP does framing, matching and errors."""

    def __init__(self, on_value: Callable[[Value], None], on_lost: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's AMP is untyped
        self._on_value = on_value
        self._on_lost = on_lost

    @ControlCall.responder
    def called(self, name: str, body: bytes) -> dict[str, Any]:
        """An event from the relay; always acknowledged, what is malformed is logged and dropped."""
        try:
            self._on_value(decode(name, body))
        except ControlError as error:
            log.warning("relay.malformed", error=str(error))
        reply_name, reply = encode(Done())
        return {"name": reply_name, "body": reply}

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The relay is gone."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._on_lost()


class RelayLink:
    """A link to one relay that is kept up until `stop`."""

    def __init__(self, reactor: AsyncioSelectorReactor, address: Address, hello: Hello, config: ControlConfig) -> None:
        self.address = address
        self.relay_id = ""
        """Who answered there; "" before the first hello."""
        self.instance = ""
        """Which of its lives answered last."""
        self.reborn = False
        """True if that was another than the one before: it has nothing of ours."""
        self.up = False
        """True while the link stands and the relay has accepted our hello."""
        self.rtt: float | None = None
        """Seconds its last answer to a ping took; None before the first."""
        self.settled = asyncio.Event()
        """Set once the first hello has been answered and the listener has dealt with it."""
        self._reactor = reactor
        self._hello = hello
        self._config = config
        self._wire: _Wire | None = None
        self._lost = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def start(self, listener: RelayListener) -> None:
        """Begin dialling; returns at once."""
        self._listener = listener
        self._runner = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Hang up the link; the relay keeps its groups for `orphan_grace`."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        self._drop()

    async def call(self, command: Command, kind: type[R]) -> R:
        """One command and its reply. `RelayUnavailable` without a relay, `ControlError` when it refuses."""
        if not self.up:
            raise RelayUnavailable(f"no relay at {self.address}")
        return await self._exchange(command, kind)

    async def legs(self) -> list[LegRow]:
        """All legs this AS owns on the relay, page by page."""
        rows: list[LegRow] = []
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await self.call(ListLegs(after=after), LegPage)
            rows.extend(page.rows)
            after = page.next
        return rows

    async def _exchange(self, command: Command, kind: type[R]) -> R:
        if self._wire is None:
            raise RelayUnavailable(f"no relay at {self.address}")
        name, body = encode(command)
        log.debug("control.sent", message=name, **_about(command))
        wire: Any = self._wire  # AMP is untyped
        call: Deferred[dict[str, Any]] = wire.callRemote(ControlCall, name=name, body=body)
        try:
            answer = await asyncio.wait_for(call.asFuture(asyncio.get_running_loop()), CALL_TIMEOUT)
        except RefusedError as error:
            code, _, text = str(error).partition(": ")
            raise ControlError(code, text) from None  # type: ignore[arg-type]  # codes of a newer relay pass through
        except (TimeoutError, ConnectionClosed, CancelledError, amp.RemoteAmpError, amp.ProtocolSwitched) as error:
            raise RelayUnavailable(f"{name} to {self.address}: {type(error).__name__}") from error
        reply = expect(decode(answer["name"], answer["body"]), kind)
        log.debug("control.answered", message=name, **_about(command))
        return reply

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._connect()
            except (ConnectError, OSError, RelayUnavailable, ControlError) as error:
                level = log.warning if attempt == SAY_SO_AFTER else log.debug
                level("relay.unreachable", relay=str(self.address), error=str(error) or type(error).__name__)
                self._drop()
                await asyncio.sleep(REDIAL_DELAYS[min(attempt, len(REDIAL_DELAYS) - 1)])
                attempt += 1
                continue
            attempt = 0
            await self._until_lost()
            self._drop()
            log.warning("relay.down", relay=str(self.address))
            self._listener.relay_down(self)

    async def _until_lost(self) -> None:
        """Returns when the connection is gone, or stands but nobody answers on it any more."""
        while not self._lost.is_set():
            try:
                await asyncio.wait_for(self._lost.wait(), PING_INTERVAL)
            except TimeoutError:
                try:
                    asked_at = time.monotonic()
                    await self._exchange(ListLegs(limit=1), LegPage)
                    self.rtt = time.monotonic() - asked_at
                except (RelayUnavailable, ControlError) as error:
                    log.warning("relay.silent", relay=str(self.address), error=str(error))
                    return

    async def _connect(self) -> None:
        self._lost = lost = asyncio.Event()  # its own: an old connection's end may be told late
        factory = protocol.Factory.forProtocol(lambda: _Wire(self._heard, lost.set))
        dialling: Deferred[_Wire] = self._endpoint().connect(factory)
        self._wire = await dialling.asFuture(asyncio.get_running_loop())
        transport: Any = self._wire.transport
        transport.setTcpKeepAlive(True)
        transport.setTcpNoDelay(True)  # small boxes both ways: Nagle would hold a command back for 40 ms
        try:
            reply = await self._exchange(self._hello, HelloReply)
        except RelayUnavailable as error:
            if not isinstance(error.__cause__, ConnectionClosed):
                raise
            raise RelayUnavailable("it hung up before the greeting; does control.tls_* match on both ends?") from error
        if reply.version != VERSION:
            raise ControlError("version", f"relay speaks version {reply.version}, this server {VERSION}")
        self.reborn = self.instance not in ("", reply.instance)
        self.relay_id, self.instance, self.up = reply.relay_id, reply.instance, True
        log.info("relay.up", relay=str(self.address), relay_id=reply.relay_id)
        await self._listener.relay_up(self)
        self.settled.set()

    def _endpoint(self) -> Any:
        host, port = self.address
        # A number needs no resolver, whose threads live only as long as Twisted itself runs the loop.
        kind: Any = endpoints.HostnameEndpoint
        if is_host(host):
            kind = endpoints.TCP6ClientEndpoint if ":" in host else endpoints.TCP4ClientEndpoint
        plain: Any = kind(self._reactor, host, port, timeout=CALL_TIMEOUT)
        if self._config.tls_certificate is None or self._config.tls_key is None or self._config.tls_ca is None:
            return plain
        own = ssl.PrivateCertificate.loadPEM(
            self._config.tls_certificate.read_bytes() + b"\n" + self._config.tls_key.read_bytes()
        )
        authority = ssl.Certificate.loadPEM(self._config.tls_ca.read_bytes())
        return endpoints.wrapClientTLS(ssl.optionsForClientTLS(host, authority, own), plain)

    def _heard(self, value: Value) -> None:
        if isinstance(value, Event):
            log.debug("control.received", message=type(value).__name__, **_about(value))
            self._listener.relay_event(value)

    def _drop(self) -> None:
        self.up = False
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.abortConnection()
        self._wire = None


def _about(value: Value) -> dict[str, str]:
    """Which group and leg a message is about, for the log; never credentials."""
    leg = getattr(value, "leg", None)
    about = {"group": getattr(value, "group_id", ""), "leg": leg.leg_id if leg else getattr(value, "leg_id", "")}
    return {name: text for name, text in about.items() if text}
