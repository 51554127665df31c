"""One process of dialcast: an application server or a relay, built from its parts and wired to each other.

Each prints one ready line on stdout once it can be used, and runs until SIGTERM, Ctrl-C, or (supervised) the end of
its standard input, which is the supervisor's death.
"""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from twisted.internet import asyncioreactor

from dialcast.logs import configure, nothing_else_writes
from dialcast.reload import Reloader, Source
from dialcast.supervisor import RELOADED
from protocols.control import Hello
from protocols.net import Address
from provisioning.config import OPERATOR_SOCKET, Config
from provisioning.loader import ConfigError
from provisioning.problems import complain

if TYPE_CHECKING:
    from provisioning.store import Store
    from sip_app.ports import Ports

RELAY_WAIT = 2.0
"""Seconds a starting server waits for its relay, so that it knows what is left before the first call."""
GC_THRESHOLDS = (10_000, 1_000, 10)
"""Only the young are collected, 10 ms at a time: messages and calls are freed without the collector, which would find
nothing in a million objects (10,000 calls) and hold everything up for a second to say so."""
GIVE_UP_AFTER = 15.0
"""Seconds an orderly stop may take in all."""
STOP_WITHIN = 4.5
"""Seconds all broadcasts may take to end when the server stops; with the last dialogs and writes less than 8."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Process:
    """What a part has of the process it runs in."""

    reactor: asyncioreactor.AsyncioSelectorReactor
    source: Source
    supervised: bool
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by SIGTERM, Ctrl-C, and the supervisor's death."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by SIGHUP."""


def run(main: Callable[[Process], Awaitable[None]], source: Source, *, supervised: bool) -> int:
    """Run `main` on the Twisted asyncio reactor until it returns."""
    gc.set_threshold(*GC_THRESHOLDS)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    nothing_else_writes(loop)
    from twisted.internet import reactor as installed

    reactor: Any = installed  # the module poses as the interfaces it implements; mypy sees only those
    process = Process(reactor, source, supervised)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked_to_stop, loop, process.stop, not supervised)
    loop.add_signal_handler(signal.SIGHUP, process.hung_up.set)
    if supervised:
        os.set_blocking(sys.stdin.fileno(), False)
        loop.add_reader(sys.stdin.fileno(), _until_orphaned, loop, process.stop)
    failure: list[BaseException] = []

    def begin() -> None:
        async def whole() -> None:
            try:
                await main(process)
            except BaseException as error:
                failure.append(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                reactor.callLater(0, reactor.stop)

        loop.create_task(whole())  # noqa: RUF006 - the reactor runs exactly as long as this task

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    for error in failure:
        raise error
    return 0


async def serve_as(config: Config, process: Process) -> None:
    """The application server, alone in its data directory. Raises ConfigError or OSError at start."""
    from provisioning.database import held, private_directory

    private_directory(config.data_path)
    with held(config.data_path):
        await _serve_as(config, process)


async def _serve_as(config: Config, process: Process) -> None:
    """Store, relay link, SIP, operator's door. A start that fails leaves the calls it found as they are."""
    from dialcast.operated_server import OperatedServer
    from dialcast.operating import operating
    from provisioning.store import Store
    from provisioning.subscribers import provision
    from sip_app.broadcast.following import attach
    from sip_app.broadcast.group import Broadcasting
    from sip_app.broadcast.operator import OperatorDoor
    from sip_app.broadcast.records import CallRecorder
    from sip_app.broadcast.relay_link import RelayLink
    from sip_app.broadcast.relays import RelayPool
    from sip_app.broadcast.service import BroadcastCalls
    from sip_app.broadcast.takeover import Takeover
    from sip_app.cluster.nodes import Cluster
    from sip_app.server import ApplicationServer
    from sip_app.xcap.server import XcapServer

    if not config.control.relays:
        raise ConfigError("control.connect: no relay to dial: set HOST:PORT of `dialcast relay`, or use `dialcast up`")
    reactor = process.reactor
    store = await Store.open(config)
    await provision(store, config)
    ports = ports_of(store)
    as_id = config.as_id or await store.secrets.as_id()
    token = config.control.token
    hello = Hello(as_id, int(time.time() * 1000), token.get_secret_value() if token else "")
    link = RelayPool([RelayLink(reactor, address, hello, config.control) for address in config.control.relays])
    service = Broadcasting(config, ports, link, as_id)
    calls = BroadcastCalls(service)
    recorder = CallRecorder(service, store.call_records)
    server = ApplicationServer(config, ports, calls, reactor, as_id=as_id)
    cluster = Cluster(store.nodes, as_id, config.cluster.lease) if config.store.url is not None else None
    attach(server, service)
    door = OperatorDoor(service, config.data_path / OPERATOR_SOCKET)
    door.guard = server.guard
    xcap = XcapServer(config, ports, reactor, server.guard)
    operated = OperatedServer(config, store, server, service, xcap)
    beside: list[asyncio.Task[None]] = []
    serving = False
    try:
        if cluster is not None:
            await cluster.claim_name(Address(config.sip.advertised_host or config.sip.bind, config.sip.port))
        await calls.restore(server.endpoint.restore)
        await recorder.resume()
        link.start(calls)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.settled(), RELAY_WAIT)
        await server.start()
        serving = True
        if cluster is not None:
            calls.elsewhere = Takeover(calls, cluster, server.endpoint.restore, server.endpoint.abandon)
            await server.join(cluster, calls.elsewhere)
        await xcap.start()
        await door.start()
        beside += [asyncio.create_task(calls.renew_leases()), asyncio.create_task(operated.prune())]
        port = config.operations.as_port
        async with operating("as", config, port, operated, process.source, process.hung_up) as (monitor, reloader):
            door.reload = partial(_reloaded_by_hand, reloader, supervised=process.supervised)
            addresses = ",".join(f"{transport}:{address}" for transport, address in server.addresses)
            _ready(f"sip={addresses} service={config.services[0].number}", monitor.address)
            await process.stop.wait()
        log.info("server.stopping", broadcasts=len(service.open))
    finally:
        for task in beside:
            task.cancel()
        if serving:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(calls.stop(), STOP_WITHIN)
        await door.stop()
        await xcap.stop()
        await server.stop()
        if cluster is not None:
            await cluster.leave()
        await link.stop()
        await recorder.close()
        await store.close()


def ports_of(store: "Store") -> "Ports":
    """A store's ports, as the service logic asks for them."""
    from sip_app.ports import Ports

    return Ports(
        store.credentials,
        store.location,
        store.diversions,
        store.broadcasts,
        store.dialogs,
        store.secrets,
        store.channels,
        store.nodes,
    )


async def serve_relay(config: Config, process: Process) -> None:
    """The media relay. Raises OSError when an address cannot be bound."""
    from dialcast.operated_relay import OperatedRelay
    from dialcast.operating import operating
    from media_relay.server import RelayServer

    server = RelayServer(config)
    control = await server.start()
    try:
        port, operated = config.operations.relay_port, OperatedRelay(server)
        async with operating("relay", config, port, operated, process.source, process.hung_up) as (monitor, _):
            _ready(f"control={control}", monitor.address)
            await process.stop.wait()
    finally:
        await server.stop()


def start(part: str, config: Config, source: Source, *, name: str, supervised: bool = False) -> int:
    """Run one part to its end; the exit status. Problems at start are one line on stderr and status 2.

    `source` reads the configuration again, for SIGHUP. `name` is what the part is called in the log.
    """
    configure(config.log, name)

    async def main(process: Process) -> None:
        await (serve_as(config, process) if part == "as" else serve_relay(config, process))

    try:
        return run(main, source, supervised=supervised)
    except ConfigError as error:
        complain(str(error))
    except OSError as error:
        key = "--sip-port or sip.port" if part == "as" else "relay.control_port"
        remedy = f"; choose another with {key}" if error.errno == errno.EADDRINUSE else ""
        print(f"dialcast {part}: {error.strerror or error}{remedy}", file=sys.stderr)
    except Exception:
        log.exception("server.failed")  # the interpreter would print it as it is
        return 1
    return 2


def _ready(addresses: str, metrics: Address | None) -> None:
    gc.collect()
    gc.freeze()  # code and settings stay as long as the process: no collection is to look at them again
    print(f"ready {addresses}" + (f" metrics={metrics}" if metrics is not None else ""), flush=True)


async def _reloaded_by_hand(reloader: Reloader, *, supervised: bool) -> dict[str, Any]:
    """The answer to the operator's command; the supervisor and its other parts are told to reload too."""
    try:
        result = await reloader.reload()
    except ConfigError as error:
        return {"ok": False, "error": "\n".join(error.problems)}
    if supervised:
        print(RELOADED, flush=True)
    return {"ok": True, "changed": result.changed, "restart": result.restart}


def _asked_to_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, by_hand: bool) -> None:
    """Asked once: stop in order, within a time. Asked again by hand: at once. A supervisor's child is asked thrice."""
    if not stop.is_set():
        stop.set()
        loop.call_later(GIVE_UP_AFTER, _give_up)
    elif by_hand:
        _give_up()


def _give_up() -> None:
    """End now, and say what was still waited for; what was acknowledged is in the store already."""
    waiting = sorted({getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks()})
    log.error("process.stopped_hard", waiting_for=waiting)
    os._exit(1)


def _until_orphaned(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Standard input is readable: only its end means anything, and it means stop."""
    with contextlib.suppress(BlockingIOError):
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            _asked_to_stop(loop, stop, False)
