"""The relay's end of the control link: AMP over TCP, TLS off loopback; hello first, then commands in and events out."""

import asyncio
import hmac
import ssl
from collections.abc import Callable
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from media_relay.amp_stream import AmpStream
from media_relay.metrics import LIMITED
from protocols.control import (
    VERSION,
    Command,
    ControlError,
    Event,
    Hello,
    HelloReply,
    Reply,
)
from protocols.control_amp import ControlCall, RefusedError
from protocols.control_json import decode, encode
from protocols.net import Address
from provisioning.config import ControlConfig

HELLO_BYTES = 4096
"""Bytes a connection may send before it."""
MAX_AS_ID = 128
LINK_SILENCE = 12.0
"""Seconds without a command after which an AS counts as not there; it asks something every five."""

log = structlog.get_logger()
Execute = Callable[[str, Command], Reply]


class ControlServer:
    """Listens for application servers. One connection per AS id; a newer start of the same AS takes it over."""

    def __init__(self, config: ControlConfig, host: str, instance: str, execute: Execute) -> None:
        self._token = config.token.get_secret_value() if config.token is not None else ""
        self._tls = _tls(config)
        self._hello_timeout, self._max_strangers = config.hello_timeout, config.max_strangers
        self._host, self._instance = host, instance
        self._execute = execute
        self._owners: dict[str, _Link] = {}
        self._epochs: dict[str, int] = {}
        self._links: dict[_Link, None] = {}
        """All connections, oldest first."""
        self._server: asyncio.Server | None = None
        self._suspected = False

    async def start(self, address: Address) -> Address:
        """Listen; the bound address. OSError when that cannot be."""
        loop = asyncio.get_running_loop()
        shake = self._hello_timeout if self._tls is not None else None
        self._server = await loop.create_server(
            self._accept, address.host, address.port, ssl=self._tls, ssl_handshake_timeout=shake
        )
        host, port, *_ = self._server.sockets[0].getsockname()
        self._hello = HelloReply(str(Address(self._host, port)), self._instance)
        return Address(host, port)

    async def stop(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.hang_up()
        await asyncio.sleep(0)  # lets the transports close

    @property
    def listening(self) -> bool:
        """True while the port is open."""
        return self._server is not None and self._server.is_serving()

    @property
    def links(self) -> int:
        """How many application servers are connected."""
        return len(self._owners)

    def connected(self, as_id: str) -> bool:
        """True while this AS has a link and is heard on it: one that hangs is as good as gone."""
        link = self._owners.get(as_id)
        return link is not None and asyncio.get_running_loop().time() - link.heard_at < LINK_SILENCE

    def emit(self, as_id: str, event: Event) -> None:
        """Tell an AS; lost when it is not there, as it compares notes when it is back."""
        link = self._owners.get(as_id)
        if link is not None:
            link.send(event)

    def call(self, link: "_Link", name: str, body: bytes) -> Reply:
        """One value from a connection; ControlError when refused."""
        value = decode(name, body)
        if isinstance(value, Hello):
            link.spoke, self._suspected = True, False
            return self._welcome(link, value)
        if link.as_id is None:
            raise ControlError("denied", "hello first")
        if not isinstance(value, Command):
            raise ControlError("bad-request", f"{name} is no command")
        return self._execute(link.as_id, value)

    def gone(self, link: "_Link") -> None:
        """A connection ended."""
        self._links.pop(link, None)
        if not link.spoke:
            self.suspect()
        if link.as_id is not None and self._owners.get(link.as_id) is link:
            del self._owners[link.as_id]
            log.warning("control.down", as_id=link.as_id)

    def suspect(self) -> None:
        """A connection brought no greeting. Told once until one does: whoever scans ports fills no log."""
        if not self._suspected:
            self._suspected = True
            log.warning("control.denied", cause="no greeting came; does control.tls_* match on both ends?")

    def _accept(self) -> asyncio.Protocol:
        link = _Link(self)
        stream = AmpStream(link, link)
        strangers = [other for other in self._links if other.as_id is None]
        if len(strangers) >= self._max_strangers:  # the oldest had his chance; the newest may be a server of ours
            LIMITED.labels("control.max_strangers").inc()
            strangers[0].hang_up()
            del self._links[strangers[0]]
        self._links[link] = None
        link.expire_in(self._hello_timeout)
        return stream

    def _welcome(self, link: "_Link", hello: Hello) -> HelloReply:
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            log.warning("control.denied", as_id=hello.as_id[:64], cause="wrong token")
            raise ControlError("denied", "wrong token")
        if hello.version != VERSION:
            raise ControlError("version", f"this relay speaks version {VERSION}")
        if not 0 < len(hello.as_id) <= MAX_AS_ID or link.as_id not in (None, hello.as_id):
            raise ControlError("bad-request", "not a usable AS id")
        if hello.epoch < self._epochs.get(hello.as_id, hello.epoch):
            raise ControlError("stale-epoch", "a later start of this server was here already")
        self._epochs[hello.as_id] = hello.epoch
        before = self._owners.get(hello.as_id)
        self._owners[hello.as_id] = link
        link.welcome(hello.as_id)
        self._links[link] = None  # it may have been given up while its TLS was being agreed
        if before is not None and before is not link:
            before.hang_up()
        log.info("control.up", as_id=hello.as_id, epoch=hello.epoch)
        return self._hello


class _Link(amp.AMP):
    """One connection; AMP does framing, matching and errors."""

    def __init__(self, server: ControlServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's AMP is untyped
        self.as_id: str | None = None
        self.spoke = False
        """It said hello, however that was met."""
        self.heard_at = asyncio.get_running_loop().time()
        self._control = server
        self._bytes = 0
        self._timeout: asyncio.TimerHandle | None = None

    @ControlCall.responder
    def called(self, name: str, body: bytes) -> dict[str, Any]:
        """A command; refusals travel as AMP errors."""
        self.heard_at = asyncio.get_running_loop().time()
        try:
            answer, data = encode(self._control.call(self, name, body))
        except ControlError as error:
            raise RefusedError(str(error)) from None
        except Exception as error:  # AMP would hang up, and with the link every broadcast would lose its server
            log.exception("control.failed", command=name)
            raise RefusedError(f"bad-request: {type(error).__name__}") from None
        return {"name": answer, "body": data}

    def send(self, event: Event) -> None:
        """An event to the AS, whose acknowledgement nobody waits for."""
        name, body = encode(event)
        wire: Any = self
        sent: Deferred[dict[str, Any]] = wire.callRemote(ControlCall, name=name, body=body)
        sent.addErrback(_unheard, event)

    def received(self, size: int) -> bool:
        """A stranger may say hello and no more."""
        self._bytes += size
        return self.as_id is not None or self._bytes <= HELLO_BYTES

    def welcome(self, as_id: str) -> None:
        """The hello was good."""
        self.as_id = as_id
        if self._timeout is not None:
            self._timeout.cancel()

    def expire_in(self, seconds: float) -> None:
        """Hang up unless a good hello comes first."""
        self._timeout = asyncio.get_running_loop().call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        LIMITED.labels("control.hello_timeout").inc()
        if self.transport is None:  # its TLS never stood, so its end is not told either
            self._control.suspect()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """See twisted."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if self._timeout is not None:
            self._timeout.cancel()
        self._control.gone(self)


def _unheard(failure: Failure, event: Event) -> None:
    log.debug("control.event_unheard", kind=type(event).__name__, error=failure.getErrorMessage())


def _tls(config: ControlConfig) -> ssl.SSLContext | None:
    """Mutual TLS when certificates are configured (all three, as the configuration makes sure)."""
    if config.tls_certificate is None or config.tls_ca is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(config.tls_ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(config.tls_certificate), str(config.tls_key))
    context.verify_mode = ssl.CERT_REQUIRED
    return context
