"""The broadcast service in one process: real store, server, control link and relay, and phones with media sockets."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import DOMAIN, PATIENCE, QUICK, Call, Phone

from dialcast.compose import ports_of
from media_relay.legs import Leg
from media_relay.server import RelayServer
from protocols.control import Hello
from protocols.join import Checker, IceCredentials, new_credentials
from protocols.net import Address
from protocols.records import Overlay, StoredDialog
from protocols.rtp.classify import classify
from protocols.rtp.packet import RtpPacket
from protocols.sdp import Media, SessionDescription, parse
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request, Response
from provisioning.config import OPERATOR_SOCKET, Config
from provisioning.store import Store
from provisioning.subscribers import provision
from sip_app.broadcast.following import attach
from sip_app.broadcast.group import Broadcasting, LiveGroup
from sip_app.broadcast.operator import OperatorDoor
from sip_app.broadcast.records import CallRecorder
from sip_app.broadcast.relay_link import RelayLink
from sip_app.broadcast.relays import RelayPool
from sip_app.broadcast.service import BroadcastCalls
from sip_app.broadcast.takeover import Takeover
from sip_app.cluster.nodes import Cluster
from sip_app.ports import Dialogs, DiversionSettings
from sip_app.server import ApplicationServer

BROADCASTER = "1001"
CHANNEL = f"{BROADCASTER}@{DOMAIN}"
PAYLOAD_TYPES = {"audio": 0, "video": 96}


async def until(true: Callable[[], bool | Awaitable[bool]], within: float = PATIENCE) -> None:
    """Wait for something to come true."""

    async def now() -> bool:
        answer = true()
        return answer if isinstance(answer, bool) else await answer

    async with asyncio.timeout(within):
        while not await now():  # noqa: ASYNC110 - what is watched has no event to wait for
            await asyncio.sleep(0.005)


class MediaSocket(asyncio.DatagramProtocol):
    """A phone's RTP socket for one medium."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.packets: list[RtpPacket] = []
        self.local = new_credentials(secrets.token_bytes)
        self.relay = Address("", 0)
        self._checker: Checker | None = None
        self._ssrc, self._sequence = secrets.randbelow(2**32), 100

    async def open(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._wire, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port: int = self._wire.get_extra_info("sockname")[1]

    def close(self) -> None:
        self._wire.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if classify(data) == "rtp":
            self.packets.append(RtpPacket.parse(data))
        elif self._checker is not None:
            self._checker.receive(data, Address(*addr), self._loop.time())

    def answered(self, media: Media, session: SessionDescription) -> None:
        """The relay's address for this medium."""
        self.relay = Address(media.connection or session.connection, media.port)

    def join(self, media: Media) -> None:
        """One authenticated check that nominates."""
        relay = IceCredentials(media.ice_ufrag, media.ice_pwd)
        self._checker = Checker(self.local, relay, self.relay, secrets.token_bytes)
        self._checker.start(self._loop.time())
        for data, to in self._checker.to_send():
            self._wire.sendto(data, tuple(to))

    def send(self, payload: bytes = b"\x65picture") -> None:
        """One packet of media."""
        self._sequence += 1
        packet = RtpPacket(
            PAYLOAD_TYPES[self.kind], self._sequence, 160 * self._sequence, self._ssrc, payload, marker=True
        )
        self._wire.sendto(packet.serialise(), tuple(self.relay))


class MediaPhone(Phone):
    """A phone with media. It answers whatever it is asked with 200, unless it is dead.

    `heard` holds what it was asked, as (request, time), `ends` the Reason header values of the BYEs.
    """

    def __init__(self, *args: Any, on_heard: Callable[["MediaPhone", Request], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self.audio, self.video = MediaSocket("audio"), MediaSocket("video")
        self.heard: list[tuple[Request, float]] = []
        self.dead = False
        self.answers: dict[str, int] = {}
        """Statuses it answers requests of a method with, where not 200."""
        self.answer_headers: list[tuple[str, str]] = []
        self.follows = False
        """It agrees to new media addresses, offered by re-INVITE, and goes there."""
        self._unanswered: list[ServerTransaction] = []
        self._on_heard = on_heard

    @property
    def media(self) -> tuple[MediaSocket, MediaSocket]:
        return self.audio, self.video

    async def open(self) -> None:
        for socket in self.media:
            await socket.open()
        await super().open()

    def close(self) -> None:
        super().close()
        for socket in self.media:
            socket.close()

    @property
    def ends(self) -> list[str]:
        return [request.headers.get("Reason") or "" for request, _ in self.heard if request.method == "BYE"]

    async def ended(self) -> str:
        """Wait for a BYE; its Reason."""
        await until(lambda: bool(self.ends))
        return self.ends[0]

    def pump(self) -> None:
        super().pump()
        while not self.requests.empty():
            tx, request = self.requests.get_nowait()
            self.heard.append((request, self.now))
            self._on_heard(self, request)
            if self.dead:
                self._unanswered.append(tx)
            elif request.method == "INVITE" and self.follows:
                joins = b"ice-ufrag" in request.body
                self.connect(request.body, join=joins)
                offer = self.offer(ice=joins, version=len(self.heard) + 1)
                self.respond(tx, 200, body=offer, content_type="application/sdp")
            else:
                status = self.answers.get(request.method, 486 if request.method == "INVITE" else 200)
                self.respond(tx, status, headers=self.answer_headers)

    def leave(self) -> None:
        """From now on agree to everything, also to what was asked while it was dead."""
        self.leaving = True
        self.release()

    def release(self) -> None:
        """Agree to all that went unanswered."""
        for tx in self._unanswered:
            self.respond(tx, 200)
        self._unanswered.clear()

    def offer(self, *, ice: bool = False, codec: str = "PCMU", direction: str = "sendrecv", version: int = 1) -> bytes:
        """The offer of audio in this codec, and video."""
        lines = ["v=0", f"o=- 1 {version} IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
        formats = {"audio": f"a=rtpmap:0 {codec}/8000", "video": "a=rtpmap:96 H264/90000"}
        for socket in self.media:
            if socket.kind == "video" and codec != "PCMU":
                continue
            lines += [f"m={socket.kind} {socket.port} RTP/AVP {PAYLOAD_TYPES[socket.kind]}", formats[socket.kind]]
            lines += [f"a={direction}"]
            if ice:
                lines += [f"a=ice-ufrag:{socket.local.ufrag}", f"a=ice-pwd:{socket.local.password}"]
        return "\r\n".join([*lines, ""]).encode()

    def connect(self, answer: bytes, *, join: bool = False) -> SessionDescription:
        """Take the SDP answer; join if told."""
        session = parse(answer)
        for socket in self.media:
            line = session.first(socket.kind)
            if line is not None:
                socket.answered(line, session)
                if join:
                    socket.join(line)
        return session

    async def announce(self) -> Call:
        """Dial the service number as our own terminal does: with credentials and the promise to join."""
        request = self.build(
            "INVITE", f"sip:8888@{DOMAIN}", body=self.offer(ice=True), headers=[("Supported", "100rel")]
        )
        tagged = request.headers.with_("Contact", f"{self.contact};+g.dialcast.join")
        request = Request(request.method, request.uri, tagged, request.body)
        challenge = await self.ask(request)
        call = Call(self, self.start(self.authorized(request, challenge)))
        call.responses = self.waiting[call.tx]
        return call

    async def go_live(self, service: str = "8888") -> Call:
        """Dial a service number as a stock phone does, and send a first picture."""
        call = await self.dial(service, body=self.offer())
        self.connect((await call.answered()).body)
        for socket in self.media:
            socket.send()
        return call

    async def watch(self, number: str = BROADCASTER) -> Call:
        """Call a broadcaster as a stock phone does, whose sound the relay drops; answered on return."""
        call = await self.dial(number, body=self.offer())
        self.connect((await call.answered()).body)
        self.audio.send()
        return call

    async def reoffer(self, call: Call, **options: Any) -> Response:
        """A re-INVITE in the call, acknowledged if accepted."""
        response = await call.send("INVITE", **options)
        if response.status == 200:
            assert call.dialog is not None
            self.layer.send_stateless(call.dialog.ack(call.dialog.local_cseq), self.flow)
            self.pump()
        return response


class WatchedDiversions:
    """The store's diversions; `on_clear` hears when an overlay was withdrawn."""

    def __init__(self, diversions: DiversionSettings, on_clear: Callable[[], None]) -> None:
        self._diversions, self._on_clear = diversions, on_clear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._diversions, name)

    async def clear_overlay(self, aor: str, epoch: int | None = None) -> None:
        await self._diversions.clear_overlay(aor, epoch)
        self._on_clear()


class SlowDialogs:
    """The store's dialogs; saving waits while `go` is cleared."""

    def __init__(self, dialogs: Dialogs) -> None:
        self._dialogs = dialogs
        self.go = asyncio.Event()
        self.go.set()

    async def save(self, dialog: StoredDialog) -> None:
        await self.go.wait()
        await self._dialogs.save(dialog)

    async def delete(self, dialog_id: str, as_id: str) -> None:
        await self._dialogs.delete(dialog_id, as_id)

    async def owned_by(self, as_id: str) -> Sequence[StoredDialog]:
        return await self._dialogs.owned_by(as_id)

    async def find(self, dialog_id: str) -> StoredDialog | None:
        return await self._dialogs.find(dialog_id)

    async def adopt(self, group_id: str, from_as: str, to_as: str) -> Sequence[StoredDialog]:
        return await self._dialogs.adopt(group_id, from_as, to_as)


class BroadcastWorld:
    """One server and one relay. `journal` tells in order what the world saw of an end: overlay, media, BYEs."""

    def __init__(
        self, config: Config, reactor: AsyncioSelectorReactor, as_id: str = "as-test", lease: float | None = None
    ) -> None:
        self.config, self.reactor = config, reactor
        self.as_id, self.lease = as_id, lease
        self.phones: list[MediaPhone] = []
        self.journal: list[tuple[str, bool]] = []
        """What happened, and whether the relay still had media then."""
        self.other_relays: list[Address] = []
        self.epoch = 0
        self.running = self.relay_running = False

    async def start_relay(self) -> None:
        """Start the relay; again on the same port."""
        self.relay = RelayServer(self.config)
        bound = await self.relay.start()
        control = {"control_port": bound.port}
        self.config = self.config.model_copy(update={"relay": self.config.relay.model_copy(update=control)})
        self.relay_running = True

    async def stop_relay(self) -> None:
        self.relay_running = False
        await self.relay.stop()

    async def start_server(self, *, relay: bool = True) -> None:
        """What `dialcast as` does at its start."""
        config = self.config
        self.store = store = await Store.open(config)
        await provision(store, config)
        self.dialogs = SlowDialogs(store.dialogs)
        diversions: Any = WatchedDiversions(store.diversions, lambda: self.note("overlay withdrawn"))
        ports = replace(ports_of(store), diversions=diversions, dialogs=self.dialogs)
        self.epoch += 1
        address = Address("127.0.0.1", config.relay.control_port)
        self.link = RelayLink(self.reactor, address, Hello(self.as_id, self.epoch, ""), config.control)
        others = [
            RelayLink(self.reactor, at, Hello(self.as_id, self.epoch, ""), config.control) for at in self.other_relays
        ]
        self.service = Broadcasting(config, ports, RelayPool([self.link, *others]), self.as_id)
        self.calls = BroadcastCalls(self.service)
        self.recorder = CallRecorder(self.service, store.call_records)
        self.server = ApplicationServer(config, ports, self.calls, self.reactor, as_id=self.as_id, timers=QUICK)
        attach(self.server, self.service)
        self.door = OperatorDoor(self.service, config.data_path / OPERATOR_SOCKET)
        self.door.guard = self.server.guard
        await self.calls.restore(self.server.endpoint.restore)
        await self.recorder.resume()
        self.service.link.start(self.calls)
        if relay:
            await asyncio.wait_for(self.service.link.settled(), PATIENCE)
        await self.server.start()
        if self.lease is not None:
            self.cluster = Cluster(store.nodes, self.as_id, self.lease)
            self.calls.elsewhere = Takeover(
                self.calls, self.cluster, self.server.endpoint.restore, self.server.endpoint.abandon
            )
            await self.server.join(self.cluster, self.calls.elsewhere)
        await self.door.start()
        sip = config.sip.model_copy(update={"port": self.address.port})
        self.config = config.model_copy(update={"sip": sip})
        self.running = True

    async def stop_server(self) -> None:
        """What SIGTERM does."""
        self.running = False
        await self.calls.stop()
        await self.door.stop()
        await self.server.stop()
        if self.lease is not None:
            await self.cluster.leave()
        await self.service.link.stop()
        await self.recorder.close()
        await self.store.close()

    async def kill_server(self) -> None:
        """As if it had died: nobody is told anything, and nothing is written."""
        self.running = False
        for task in list(self.service._tasks):
            task.cancel()
        if self.lease is not None and self.cluster._beating is not None:
            self.cluster._beating.cancel()
        self.server.endpoint.dialogs.clear()
        self.server.endpoint.early.clear()
        await self.server.stop()
        await self.service.link.stop()
        await self.door.stop()
        await self.store.close()

    @property
    def address(self) -> Address:
        return self.server.endpoint.transports.bound["udp"]

    async def phone(self, number: str, **options: Any) -> MediaPhone:
        """A registered phone."""
        phone = MediaPhone(self.address, number, on_heard=self._phone_heard, **options)
        await phone.open()
        self.phones.append(phone)
        assert (await phone.register()).status == 200
        return phone

    async def broadcaster(self) -> tuple[MediaPhone, Call]:
        """1001 is live, and calls to it are forwarded."""
        phone = await self.phone(BROADCASTER)
        call = await phone.go_live()
        await self.forwarded()
        return phone, call

    async def viewer(self, number: str) -> tuple[MediaPhone, Call]:
        """A phone that watches 1001: the relay has been told to send."""
        phone = await self.phone(number)
        call = await phone.watch()
        await until(lambda: all(medium.spec.sends for leg in self._views(number) for medium in leg.media.values()))
        return phone, call

    async def forwarded(self) -> None:
        """Wait until the overlay of 1001 stands."""
        await until(lambda: self.group.forwarded)

    @property
    def group(self) -> LiveGroup:
        return self.service.open[CHANNEL]

    @property
    def on_relay(self) -> bool:
        """True while the relay has anything at all."""
        return bool(self.relay.relay.groups.by_id)

    def _views(self, number: str) -> list[Leg]:
        legs = self.relay.relay.groups.by_id[CHANNEL].legs
        return [leg for leg in legs.values() if leg.spec.number == number]

    async def overlay(self) -> Overlay | None:
        return (await self.store.diversions.get(CHANNEL)).overlay

    async def nothing_left(self) -> bool:
        """No trace of any broadcast on the relay, in the store, in the service."""
        claims = await self.store.broadcasts.all()
        overlays = await self.store.diversions.overlays()
        return not (self.on_relay or claims or overlays or self.service.open)

    async def over(self) -> None:
        """Wait until nothing is left."""
        await until(self.nothing_left)

    def note(self, what: str) -> None:
        self.journal.append((what, self.on_relay))

    def _phone_heard(self, phone: MediaPhone, request: Request) -> None:
        if request.method == "BYE":
            self.note(f"BYE {phone.number}")


@asynccontextmanager
async def broadcasting(
    folder: Path,
    *,
    relay: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    as_id: str = "as-test",
    lease: float | None = None,
    **service: Any,
) -> AsyncIterator[BroadcastWorld]:
    """A world with short timers; `service` and `relay` are settings of those sections, `config` any others."""
    short = {
        "join_timeout": 0.3,
        "overlay_delay": 0.02,
        "probe_timeout": 0.2,
        "reconnect_grace": 0.3,
        "orphan_grace": 0.3,
    }
    whole = Config.model_validate(
        {
            "data_dir": folder,
            "sip": {"port": 0, "requests_per_second": 5000},
            "store": {"commit_interval_ms": 0},
            "service": short | service,
            "relay": relay or {},
        }
        | (config or {})
    )
    reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
    world = BroadcastWorld(whole, reactor, as_id, lease)
    await world.start_relay()
    await world.start_server()
    try:
        yield world
    finally:
        for phone in world.phones:
            phone.leave()
        if world.running:
            await world.stop_server()
        if world.relay_running:
            await world.stop_relay()
        for phone in world.phones:
            phone.close()
        reactor.removeAll()


def version(response: Response | bytes) -> int:
    """The o= version of an SDP."""
    return parse(response if isinstance(response, bytes) else response.body).origin.version
