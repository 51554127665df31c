"""Whole application servers in virtual time, on a network that drops, doubles, delays and reorders from a seed.

The servers, their transactions, dialogs and broadcast service are the real ones; sockets, store and relay are small
stand-ins in memory that answer after a seeded while. Time jumps to the next timer, so an hour takes milliseconds.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import md5
from random import Random
from types import SimpleNamespace
from typing import Any

from protocols.control import (
    AddViewer,
    CloseGroup,
    ControlError,
    Digit,
    Done,
    LegInfo,
    LegJoined,
    LegMedia,
    LegSpec,
    OpenAnnouncement,
    OpenGroup,
    PlayPrompt,
    PromptEnded,
    RemoveLeg,
    ReplaceSource,
    UpdateLeg,
)
from protocols.net import Address, Flow
from protocols.records import Binding, Channel, DiversionRules, Diversions, Node, Overlay, StoredDialog, Subscriber
from protocols.sip.dialog import DialogId
from provisioning.config import Config
from sip_app.broadcast.group import Broadcasting
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.broadcast.service import BroadcastCalls
from sip_app.broadcast.takeover import Takeover
from sip_app.cluster.nodes import Cluster
from sip_app.server import ApplicationServer
from sip_app.transport import Limits, Listener, Transports
from tests.sip_app.lossy_calls import DOMAIN, OTHER_SERVER, SERVER, TIMERS
from tests.sip_app.lossy_phone import Phone

CALM = 75.0
"""Seconds after which no transaction of before is alive (64*T1 twice, and a bit)."""


class _Jump(selectors.BaseSelector):
    """A selector without descriptors: waiting means setting the clock forward."""

    now = 1000.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits for somebody, and no timer runs")
        self.now += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual: it jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        self._clock = _Jump()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end in virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


@dataclass(slots=True)
class Weather:
    """What the network does: probabilities of loss and doubling, and the longest delay in seconds."""

    loss: float
    doubled: float
    delay: float
    blackout: tuple[float, float, int] = (0.0, 0.0, 0)
    """From, until (on the loop's clock), and which direction is dead: 1 to the server, 2 from it, 3 both."""

    @classmethod
    def drawn(cls, random: Random) -> "Weather":
        return cls(random.choice((0.0, 0.05, 0.15, 0.3)), random.choice((0.0, 0.1, 0.3)), random.choice((0.02, 0.3, 1)))


class Network:
    """Carries datagrams between addresses, as badly as the weather says. `carried` counts, for the curious."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, weather: Weather) -> None:
        self.loop, self.random, self.weather = loop, random, weather
        self.receivers: dict[Address, Any] = {}
        self.carried: list[tuple[float, Address, Address, bytes]] = []

    def send(self, data: bytes, source: Address, to: Address) -> bool:
        weather, random = self.weather, self.random
        began, ends, way = weather.blackout
        dead = began <= self.loop.time() < ends and way & (1 if to in (SERVER, OTHER_SERVER) else 2)
        self.carried.append((self.loop.time(), source, to, data))
        for _ in range(1 + (random.random() < weather.doubled)):
            if not dead and random.random() >= weather.loss:
                self.loop.call_later(0.001 + random.random() * weather.delay, self._arrive, data, source, to)
        return True

    def _arrive(self, data: bytes, source: Address, to: Address) -> None:
        receiver = self.receivers.get(to)
        if receiver is not None:
            receiver(data, source)


class LossyTransports(Transports):
    """A server's sockets: one for UDP, and that is in this network."""

    def __init__(self, endpoint: Any, network: Network, here: Address) -> None:
        nothing: Any = None
        super().__init__(endpoint, nothing, Limits())
        self.bound["udp"] = here
        self.listeners.append(Listener("udp", here, here))
        wire: Any = SimpleNamespace(send=lambda data, to: network.send(data, here, to))
        self._datagrams[here] = wire
        network.receivers[here] = lambda data, source: endpoint.data_received(data, Flow("udp", here, source))

    def open(self, config: Config) -> None:
        """It is."""


@dataclass(slots=True)
class Memory:
    """All ports in memory. Every read and write takes a seeded moment."""

    random: Random
    bindings_of: dict[str, dict[str, Binding]] = field(default_factory=dict)
    diversions_of: dict[str, Diversions] = field(default_factory=dict)
    stored: dict[str, StoredDialog] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    epochs: int = 0

    async def pause(self) -> None:
        await asyncio.sleep(self.random.choice((0, 0, 0.01, 0.05)))

    async def find(self, aor: str) -> Subscriber | None:
        number, _, domain = aor.partition("@")
        if not number.startswith("100") or domain != DOMAIN:
            return None
        ha1 = md5(f"{number}:{DOMAIN}:dialcast-{number}".encode()).hexdigest()
        return Subscriber(aor, number, DOMAIN, (("MD5", ha1),))

    async def bindings(self, aor: str, now: float) -> Sequence[Binding]:
        await self.pause()
        return tuple(self.bindings_of.get(aor, {}).values())

    async def replace(self, aor: str, put: Sequence[Binding], drop: Sequence[str]) -> None:
        await self.pause()
        kept = self.bindings_of.setdefault(aor, {})
        for contact in drop:
            kept.pop(contact, None)
        kept.update({binding.contact: binding for binding in put})

    async def diversions(self, aor: str) -> Diversions:
        await self.pause()
        return self.diversions_of.get(aor, Diversions())

    async def change(self, aor: str, change: Callable[[DiversionRules | None], DiversionRules | None]) -> Any:
        await self.pause()
        known = self.diversions_of.get(aor, Diversions())
        self.diversions_of[aor] = replace(known, own=change(known.own))
        return self.diversions_of[aor].own

    async def set_overlay(self, aor: str, overlay: Overlay) -> None:
        await self.pause()
        self.diversions_of[aor] = replace(self.diversions_of.get(aor, Diversions()), overlay=overlay)

    async def clear_overlay(self, aor: str, epoch: int | None = None) -> None:
        await self.pause()
        known = self.diversions_of.get(aor, Diversions())
        if known.overlay is not None and epoch in (None, known.overlay.epoch):
            self.diversions_of[aor] = replace(known, overlay=None)

    async def save(self, dialog: StoredDialog) -> None:
        await self.pause()
        self.stored[dialog.dialog_id] = dialog

    async def delete(self, dialog_id: str, as_id: str) -> None:
        await self.pause()
        self.stored.pop(dialog_id, None)

    async def stored_dialog(self, dialog_id: str) -> StoredDialog | None:
        await self.pause()
        return self.stored.get(dialog_id)

    async def channel(self, aor: str) -> Channel:
        return Channel()

    async def claim(self, broadcast: Any, now: float) -> Any:
        await self.pause()
        standing = self.claims.get(broadcast.channel)
        if standing is not None and standing.epoch > broadcast.epoch:
            return standing
        self.claims[broadcast.channel] = broadcast
        return None

    async def next_epoch(self, channel: str) -> int:
        await self.pause()
        self.epochs += 1
        return self.epochs

    async def update(self, broadcast: Any) -> bool:
        await self.pause()
        ours = broadcast.channel in self.claims and self.claims[broadcast.channel].epoch == broadcast.epoch
        if ours:
            self.claims[broadcast.channel] = broadcast
        return ours

    async def release(self, channel: str, epoch: int, as_id: str) -> None:
        await self.pause()
        if channel in self.claims and self.claims[channel].epoch == epoch:
            del self.claims[channel]

    async def get(self, channel: str) -> Any:
        await self.pause()
        return self.claims.get(channel)

    async def all(self) -> Sequence[Any]:
        await self.pause()
        return list(self.claims.values())

    async def renew(self, node: Node) -> None:
        await self.pause()
        self.nodes[node.as_id] = node

    async def all_nodes(self) -> Sequence[Node]:
        await self.pause()
        return list(self.nodes.values())

    async def leave(self, as_id: str) -> None:
        self.nodes.pop(as_id, None)

    async def secret(self, name: str) -> bytes:
        return name.encode().ljust(32, b"-")

    def ports(self) -> Any:
        """Shaped as `sip_app.ports.Ports`."""
        diversions = SimpleNamespace(
            get=self.diversions,
            change=self.change,
            set_overlay=self.set_overlay,
            clear_overlay=self.clear_overlay,
        )
        channels = SimpleNamespace(get=self.channel)
        return SimpleNamespace(
            channels=channels,
            credentials=self,
            location=self,
            diversions=diversions,
            broadcasts=self,
            dialogs=SimpleNamespace(save=self.save, delete=self.delete, find=self.stored_dialog),
            nodes=SimpleNamespace(renew=self.renew, all=self.all_nodes, leave=self.leave),
            secrets=self,
        )


class MemoryRelay:
    """Keeps groups and their legs, and sends no media. `legs` maps (group, epoch) to leg ids."""

    def __init__(self, random: Random) -> None:
        self.links = ()
        self.legs: dict[tuple[str, int], dict[str, LegSpec]] = {}
        self.slow = 0.0
        """Seconds each command takes."""
        self.away = False
        self.keys = ""
        """What whoever hears a prompt presses."""
        self.report: Callable[[Any], None] = lambda event: None
        self._announced: dict[str, tuple[str, int]] = {}
        self._random = random

    def relay_of(self, group: object) -> str:
        """The one relay there is."""
        return "relay-test"

    def heard(self, event: object) -> None:
        """It never dies, so nothing need be remembered for its successor."""

    def forget(self, group: object) -> None:
        """The same."""

    async def call(self, command: Any, expected: type, *, near: object = None) -> Any:
        await asyncio.sleep(self.slow or self._random.choice((0, 0.01, 0.1)))
        if self.away:
            raise RelayUnavailable
        group = (command.group_id, command.epoch)
        match command:
            case OpenGroup(leg=spec) | ReplaceSource(leg=spec):
                self.legs.setdefault(group, {})[spec.leg_id] = spec
            case UpdateLeg(leg=spec) if spec.leg_id not in self.legs.get(group, {}):
                raise ControlError("unknown-leg", "no such leg")
            case OpenAnnouncement(leg=spec):
                self.legs[group] = {spec.leg_id: spec}
                self._announced[spec.leg_id] = group
            case PlayPrompt(leg_id=leg_id, play=play) if group in self.legs:
                asyncio.get_running_loop().create_task(self._speak(group, leg_id, play))
            case AddViewer(leg=spec) | UpdateLeg(leg=spec) if group in self.legs:
                if isinstance(command, AddViewer) and (announced := self._announced.pop(spec.leg_id, None)):
                    self.legs.pop(announced, None)  # it moves
                self.legs[group][spec.leg_id] = spec
            case RemoveLeg():
                self.legs.get(group, {}).pop(command.leg_id, None)
            case CloseGroup():
                self.legs.pop(group, None)
        if expected is Done:
            return Done()
        media = [
            LegMedia(medium.kind, Address("10.0.0.9", port), Address("10.0.0.9", port + 1), "ufrg", "p" * 22)
            for port, medium in zip((20000, 20002), command.leg.media, strict=False)
        ]
        return LegInfo(command.leg.leg_id, tuple(media))

    async def _speak(self, group: tuple[str, int], leg_id: str, play: int) -> None:
        """A prompt takes a while; whoever hears it may press keys."""
        await asyncio.sleep(self._random.uniform(0.5, 2))
        for key in self.keys:
            self.report(Digit(*group, leg_id, key, 100))
            await asyncio.sleep(0.2)
        self.report(PromptEnded(*group, leg_id, play, "played"))


class Served:
    """One application server of the world and its broadcast service."""

    def __init__(self, world: "LossyWorld", address: Address, as_id: str) -> None:
        ports: Any = world.memory.ports()
        link: Any = world.relay
        nothing: Any = None
        sip = world.config.sip.model_copy(update={"bind": address.host, "advertised_host": address.host})
        config = world.config.model_copy(update={"sip": sip})
        self.address = address
        self.service = Broadcasting(config, ports, link, as_id)
        self.calls = BroadcastCalls(self.service)
        wires: Any = partial(LossyTransports, network=world.network, here=address)
        self.server = ApplicationServer(
            config, ports, self.calls, nothing, as_id=as_id, timers=TIMERS, transports=wires
        )
        self._cluster = Cluster(ports.nodes, as_id, config.cluster.lease, world.loop.time)

    async def join(self) -> None:
        """Serve together with the others on the store."""
        endpoint = self.server.endpoint
        takeover = self.calls.elsewhere = Takeover(self.calls, self._cluster, endpoint.restore, endpoint.abandon)
        await self.server.join(self._cluster, takeover)

    async def part(self) -> None:
        """Show no more signs of life."""
        await self._cluster.leave()

    def held(self) -> dict[str, Any]:
        """What this server holds of calls."""
        endpoint, server, service = self.server.endpoint, self.server, self.service
        return {
            "transactions": len(endpoint._layer),
            "timers": [] if endpoint._layer.next_timer() is None else [endpoint._layer.next_timer()],
            "dialogs": endpoint.dialogs,
            "early": endpoint.early,
            "calls": endpoint.calls,
            "cancellable": endpoint.cancellable,
            "at answer": endpoint.at_answer,
            "passing": endpoint.passing,
            "users": endpoint.users,
            "tasks": endpoint._tasks,
            "histories": endpoint._histories,
            "subscriptions": server.notifier._held,
            "followed": server.notifier._following,
            "spoken to": service.announcements._open if service.announcements is not None else {},
            "groups": service.open,
            "closing": service.closing,
            "service tasks": service._tasks,
            "silent": service.silent,
        }


class LossyWorld:
    """A server, its service, and phones; and another server, when `second` was awaited. Make it in a `VirtualLoop`;
    `seed` decides everything."""

    config = Config.model_validate(
        {
            "services": [
                {"number": "8888"},
                {"number": "8889", "pin": "4711", "second_attempt": "takeover"},
            ],
            "sip": {"bind": SERVER.host, "advertised_host": SERVER.host, "requests_per_second": 100_000},
            "service": {"session_expires": 120, "overlay_delay": 0.2, "reconnect_grace": 20, "ring_timeout": 120},
        }
    )

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.random = random = Random(seed)
        self.loop = asyncio.get_running_loop()
        self.network = Network(self.loop, random, weather or Weather.drawn(random))
        self.memory = Memory(random)
        self.relay = MemoryRelay(random)
        first = Served(self, SERVER, "as-test")
        self.servers = [first]
        self.service, self.calls, self.server = first.service, first.calls, first.server
        self.relay.report = self.calls.relay_event
        self.phones: list[Phone] = []

    async def start(self) -> None:
        await self.server.start()

    async def second(self) -> Served:
        """Another server on the same store and relay; from now on both know each other."""
        other = Served(self, OTHER_SERVER, "as-other")
        await other.server.start()
        self.servers.append(other)
        for served in self.servers:
            await served.join()
        return other

    async def part(self) -> None:
        """All is over: the servers of a cluster, if there is one, show no more signs of life."""
        if len(self.servers) > 1:
            for served in self.servers:
                await served.part()

    async def phone(self, number: str, *, register: bool = True, **options: Any) -> Phone:
        """A phone at an address of its own; registered, whatever it takes."""
        phone = Phone(self.network, self.random, Address(f"127.0.1.{len(self.phones) + 1}", 5060), number, **options)
        self.phones.append(phone)
        if register:
            while (await phone.register()).status != 200:
                await self.calm(1)
        return phone

    def join(self, channel: str) -> None:
        """The broadcaster's checks reached the relay."""
        group = self.service.open.get(channel)
        if group is not None:
            self.calls.relay_event(LegJoined(group.channel, group.epoch, group.leg_id))

    async def blackout(self, seconds: float, way: int = 3) -> None:
        """Nothing passes for a while."""
        now = self.loop.time()
        self.network.weather.blackout = (now, now + seconds, way)
        await asyncio.sleep(seconds)

    async def calm(self, seconds: float = CALM) -> None:
        """Wait until what is on the way has arrived or been given up."""
        await asyncio.sleep(seconds)

    # What must hold

    @property
    def unheard(self) -> bool:
        """True if some request was given up, so that only the other side's session timer can end a call."""
        return any(phone.unheard for phone in self.phones)

    def dialogs_here(self) -> set[DialogId]:
        return {dialog for served in self.servers for dialog in served.server.endpoint.dialogs}

    def lonely(self) -> list[str]:
        """Calls only one side believes in."""
        sides = {(*leg.state.id, phone.number) for phone in self.phones for leg in phone.legs.values()}
        sides |= {(*dialog, "server") for dialog in self.dialogs_here()}
        known = {side[:3] for side in sides}
        return [
            f"{who} alone believes in {call_id}"
            for call_id, local, remote, who in sides
            if (call_id, remote, local) not in known
        ]

    def leftovers(self) -> dict[str, Any]:
        """What is still held although everything is over."""
        held = {f"{name} of {served.address}": what for served in self.servers for name, what in served.held().items()}
        held |= {
            "on the relay": self.relay.legs,
            "claims": self.memory.claims,
            "stored dialogs": self.memory.stored,
            "overlays": [aor for aor, kept in self.memory.diversions_of.items() if kept.overlay is not None],
            "timers": [timer for timer in vars(self.loop)["_scheduled"] if not timer.cancelled()],
            "other tasks": [task for task in asyncio.all_tasks() if task is not asyncio.current_task()],
            "phones": [leg for phone in self.phones for leg in (*phone.legs.values(), *phone.layer._servers)],
        }
        return {name: what for name, what in held.items() if what}
