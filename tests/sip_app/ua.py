"""A small phone for tests: real sockets, and the stack of `protocols.sip` underneath."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, Ping, Pong, TextMessage
from wsproto.events import Request as WebRequest

from dialcast.compose import ports_of
from protocols.net import Address, Flow, bracketed, uri_transport
from protocols.sip.dialog import DialogState, uac_dialog, uas_dialog
from protocols.sip.digest import authorize, choose_challenge
from protocols.sip.events import (
    AckReceived,
    CancelReceived,
    ClientTransaction,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    TransactionTimeout,
)
from protocols.sip.framing import KeepAlive, StreamFramer
from protocols.sip.invite import prack
from protocols.sip.message import Headers, Request, Response, make_response, parse_message
from protocols.sip.transaction import Timers, TransactionLayer
from provisioning.config import Config, SipConfig
from provisioning.store import Store
from provisioning.subscribers import provision
from sip_app.calls.incoming import BroadcastService
from sip_app.server import ApplicationServer

DOMAIN = "dialcast.internal"
PATIENCE = 4.0
QUICK = Timers(t1=0.05, t2=0.4, t4=0.4, c=3.0)
OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    b"m=video 40002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
)


class World:
    """A running server, its store, and phones that hang off it."""

    def __init__(self, config: Config, store: Store, server: ApplicationServer) -> None:
        self.config, self.store, self.server = config, store, server
        self.phones: list[Phone] = []

    @property
    def address(self) -> Address:
        return self.server.endpoint.transports.bound["udp"]

    async def phone(self, number: str, *, transport: str = "udp", register: bool = True, **options: Any) -> "Phone":
        """A phone of `number`, registered unless told otherwise."""
        bound = self.server.endpoint.transports.bound
        phone = Phone(bound.get(transport, self.address), number, transport, **options)
        await phone.open()
        self.phones.append(phone)
        if register:
            assert (await phone.register()).status == 200
        return phone


@asynccontextmanager
async def running(
    folder: Path, service: BroadcastService | None = None, *, config: Config | None = None, **sip: Any
) -> AsyncIterator[World]:
    """A server on free loopback ports with the sample subscribers; `sip` are settings of that section."""
    config = config or Config(data_dir=folder, sip=SipConfig(**{"port": 0, "requests_per_second": 5000} | sip))
    store = await Store.open(config)
    await provision(store, config)
    ports = ports_of(store)
    reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
    server = ApplicationServer(config, ports, service, reactor, as_id="as-test", timers=QUICK)
    await server.start()
    world = World(config, store, server)
    try:
        yield world
    finally:
        for phone in world.phones:
            phone.leaving = True
        await server.stop()
        for phone in world.phones:
            phone.close()
        await store.close()
        reactor.removeAll()


class Call:
    """An INVITE this phone sent: its responses as they come, its dialog once answered."""

    def __init__(self, phone: "Phone", tx: ClientTransaction) -> None:
        self.phone, self.tx = phone, tx
        self.responses: asyncio.Queue[Response] = asyncio.Queue()
        self.seen: list[Response] = []
        self.dialog: DialogState | None = None

    async def next(self) -> Response:
        async with asyncio.timeout(PATIENCE):
            response = await self.responses.get()
        self.seen.append(response)
        return response

    async def until(self, status: int) -> Response:
        """The next response with this status; others on the way stay in `seen`."""
        while (response := await self.next()).status != status:
            assert response.status < 200, f"{response.status} {response.reason} instead of {status}"
        return response

    async def final(self) -> Response:
        while (response := await self.next()).status < 200:
            pass
        return response

    async def prack(self, response: Response) -> Response:
        self.dialog = self.dialog or uac_dialog(self.tx.request, response, self.phone.flow)
        self.dialog, request = prack(self.dialog, response)
        return await self.phone.ask(request)

    async def answered(self) -> Response:
        """Wait for the 200 and send its ACK."""
        response = await self.until(200)
        self.ack(response)
        return response

    def ack(self, response: Response) -> None:
        cseq = self.dialog.local_cseq if self.dialog else 0
        self.dialog = uac_dialog(self.tx.request, response, self.phone.flow)
        if cseq:
            self.dialog = DialogState.from_json(
                self.dialog.to_json().replace(f'"local_cseq":{self.dialog.local_cseq}', f'"local_cseq":{cseq}')
            )
        self.phone.layer.send_stateless(self.dialog.ack(self.tx.request.cseq.number), self.phone.flow)
        self.phone.pump()

    async def send(self, method: str, **options: Any) -> Response:
        """A request in the dialog; its final response."""
        assert self.dialog is not None
        self.dialog, request = self.dialog.request(method, **options)
        return await self.phone.ask(request)

    def cancel(self) -> None:
        self.phone.layer.cancel(self.tx, self.phone.now)
        self.phone.pump()


class Phone(asyncio.DatagramProtocol):
    """One number on one socket. `requests` holds what it was sent, acknowledgements in `acks`."""

    def __init__(
        self,
        server: Address,
        number: str,
        transport: str = "udp",
        password: str | None = None,
        host: str | None = None,
        domain: str = DOMAIN,
    ) -> None:
        self.server, self.number, self.transport, self.domain = server, number, transport, domain
        self.host = host or ("::1" if ":" in server.host else "127.0.0.1")
        self.password = password or f"dialcast-{number}"
        self.requests: asyncio.Queue[tuple[ServerTransaction, Request]] = asyncio.Queue()
        self.acks: asyncio.Queue[Request] = asyncio.Queue()
        self.cancelled: list[ServerTransaction] = []
        self.layer = TransactionLayer(QUICK)
        self.waiting: dict[ClientTransaction, asyncio.Queue[Response]] = {}
        self.call_id, self.cseq = secrets.token_hex(8), 0
        self.raw: list[bytes] = []
        self.flow: Flow
        self.pongs = 0
        self.web: WSConnection | None = None
        self.web_text = ""
        self.leaving = False
        self.answers_cancel = True

    async def open(self) -> None:
        loop = self.loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self.wire, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 0))
            name = self.wire.get_extra_info("sockname")
            self.flow = Flow("udp", Address(name[0], name[1]), self.server)
        else:
            tls = ssl.create_default_context() if self.transport in ("tls", "wss") else None
            if tls is not None:
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            reader, self.writer = await asyncio.open_connection(*self.server, ssl=tls)
            name = self.writer.get_extra_info("sockname")
            self.flow = Flow(self.transport, Address(name[0], name[1]), self.server, 1)
            if self.transport in ("ws", "wss"):
                self.web = WSConnection(ConnectionType.CLIENT)
                self.writer.write(self.web.send(WebRequest(host="server", target="/", subprotocols=["sip"])))
                while self.web.state is not ConnectionState.OPEN:
                    self.web.receive_data(await reader.read(4096))
                    (accepted,) = self.web.events()
                    assert isinstance(accepted, AcceptConnection) and accepted.subprotocol == "sip", accepted
            self.reading = loop.create_task(self._read(reader))
        self.timer = loop.create_task(self._tick())

    async def _read(self, reader: asyncio.StreamReader) -> None:
        framer = StreamFramer()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.web is not None:
                    self._read_web(data)
                    continue
                for piece in framer.receive(data):
                    if isinstance(piece, KeepAlive):
                        self.pongs += piece is KeepAlive.PONG
                    else:
                        self._received(piece)

    def _read_web(self, data: bytes) -> None:
        assert self.web is not None
        self.web.receive_data(data)
        for event in self.web.events():
            match event:
                case TextMessage(data=str(text), message_finished=finished):
                    self.web_text += text
                    if finished:
                        text, self.web_text = self.web_text, ""
                        self._received(text.encode())
                case Ping():
                    self.writer.write(self.web.send(event.response()))
                case Pong():
                    self.pongs += 1

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.layer.handle_timer(self.now)
            self.pump()

    @property
    def now(self) -> float:
        return self.loop.time()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data)

    def _received(self, data: bytes) -> None:
        self.raw.append(data)
        self.layer.receive(parse_message(data), self.flow, self.now)
        self.pump()

    def send_raw(self, data: bytes) -> None:
        if self.transport == "udp":
            self.wire.sendto(data, tuple(self.server))
        elif self.web is not None:
            self.writer.write(self.web.send(TextMessage(data=data.decode())))
        else:
            self.writer.write(data)

    def pump(self) -> None:
        for data, _ in self.layer.to_send():
            self.send_raw(data)
        while (event := self.layer.next_event()) is not None:
            match event:
                case ResponseReceived(tx, response) if tx in self.waiting:
                    self.waiting[tx].put_nowait(response)
                case TransactionTimeout(tx) if isinstance(tx, ClientTransaction) and tx in self.waiting:
                    self.waiting[tx].put_nowait(Response(408, "nobody answered the phone", Headers()))
                case RequestReceived(tx, request) if self.leaving:
                    self.respond(tx, 200)
                case RequestReceived(tx, request):
                    self.requests.put_nowait((tx, request))
                case AckReceived(request):
                    self.acks.put_nowait(request)
                case CancelReceived(tx, cancel_tx, request):
                    self.cancelled.append(tx)
                    self.layer.send_response(cancel_tx, make_response(request, 200), self.now)
                    if self.answers_cancel:
                        self.layer.send_response(tx, make_response(tx.request, 487, to_tag="c"), self.now)
                    self.pump()

    def close(self) -> None:
        self.timer.cancel()
        if self.transport == "udp":
            self.wire.close()
        else:
            self.reading.cancel()
            self.writer.close()

    # Sending

    @property
    def contact(self) -> str:
        host, port = self.flow.local
        suffix = uri_transport(self.flow)
        return f"<sip:{self.number}@{bracketed(host)}:{port}{suffix}>"

    def build(
        self, method: str, uri: str, *, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", **named: str
    ) -> Request:
        """A request outside dialogs; `to` and `from_` may be given by name."""
        self.cseq += 1
        call_id = self.call_id if method == "REGISTER" else secrets.token_hex(8)
        me = named.get("from_", f"<sip:{self.number}@{self.domain}>")
        lines = [
            ("Max-Forwards", "70"),
            ("From", f"{me};tag={secrets.token_hex(4)}"),
            ("To", named.get("to", f"<{uri}>")),
            ("Call-ID", call_id),
            ("CSeq", f"{self.cseq} {method}"),
        ]
        if method == "INVITE":
            lines.append(("Contact", self.contact))
        if body:
            lines.append(("Content-Type", named.get("content_type", "application/sdp")))
        return Request(method, uri, Headers([*lines, *headers]), body)

    def start(self, request: Request) -> ClientTransaction:
        tx = self.layer.send_request(request, self.flow, self.now)
        self.waiting[tx] = asyncio.Queue()
        self.pump()
        return tx

    async def ask(self, request: Request) -> Response:
        """Send one request as it is; its final response."""
        answers = self.waiting[self.start(request)]
        async with asyncio.timeout(PATIENCE):
            while (response := await answers.get()).status < 200:
                pass
        return response

    def authorized(self, request: Request, refusal: Response) -> Request:
        """The request again, with the credentials a 401 or 407 asks for."""
        asked, given = (
            ("www-authenticate", "Authorization")
            if refusal.status == 401
            else ("proxy-authenticate", "Proxy-Authorization")
        )
        offered = choose_challenge(refusal.credentials(asked))
        assert offered is not None
        value = str(authorize(offered, request.method, request.uri, self.number, self.password))
        self.cseq = max(self.cseq, request.cseq.number + 1)
        headers = request.headers.with_("CSeq", f"{self.cseq} {request.method}").with_(given, value)
        return Request(request.method, request.uri, headers, request.body)

    async def request(self, method: str, uri: str, **options: Any) -> Response:
        """Send a request, answering one challenge; the final response."""
        request = self.build(method, uri, **options)
        response = await self.ask(request)
        if response.status in (401, 407):
            response = await self.ask(self.authorized(request, response))
        return response

    async def register(self, expires: int = 600, contact: str | None = None, **options: Any) -> Response:
        headers = [("Contact", contact or self.contact), ("Expires", str(expires)), *options.pop("headers", ())]
        me = f"<sip:{self.number}@{self.domain}>"
        return await self.request("REGISTER", f"sip:{self.domain}", to=me, headers=headers, **options)

    async def dial(self, number: str, *, body: bytes = OFFER, uri: str | None = None, **options: Any) -> Call:
        """Call a number, answering the challenge; the call goes on in the returned object."""
        request = self.build("INVITE", uri or f"sip:{number}@{self.domain}", body=body, **options)
        call = Call(self, self.start(request))
        call.responses = self.waiting[call.tx]
        async with asyncio.timeout(PATIENCE):
            first = await call.responses.get()
        if first.status not in (401, 407):
            call.responses.put_nowait(first)
            return call
        again = Call(self, self.start(self.authorized(request, first)))
        again.responses = self.waiting[again.tx]
        return again

    # Being called

    async def asked(self, method: str) -> tuple[ServerTransaction, Request]:
        """The next request this phone gets, which must be `method`."""
        async with asyncio.timeout(PATIENCE):
            tx, request = await self.requests.get()
        assert request.method == method, f"{request.method} instead of {method}"
        return tx, request

    def respond(self, tx: ServerTransaction, status: int, **options: Any) -> DialogState | None:
        """Answer a request; a 2xx to an INVITE makes a dialog."""
        tag = options.pop("tag", "t" + self.number)
        headers = [("Contact", self.contact)] if 100 < status < 300 else []
        self.layer.send_response(
            tx,
            make_response(tx.request, status, to_tag=tag, headers=[*headers, *options.pop("headers", ())], **options),
            self.now,
        )
        self.pump()
        if tx.request.method == "INVITE" and 200 <= status < 300:
            return uas_dialog(tx.request, tag, self.contact, self.flow)
        return None

    async def accept(self, method: str = "BYE") -> Request:
        """Wait for a request and answer it 200."""
        tx, request = await self.asked(method)
        self.respond(tx, 200)
        return request

    async def acknowledged(self) -> Request:
        async with asyncio.timeout(PATIENCE):
            return await self.acks.get()
