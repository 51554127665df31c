"""A phone for the lossy network: every rule of RFC 3261 an end must keep, on the layers of `protocols.sip`.

It acknowledges each 2xx (again and again), says BYE to those it no longer wants, sends PRACK in order, answers what it
is asked in its calls, keeps session timers (RFC 4028) and retries after 491 (section 14.1).
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from protocols.net import Address, Flow
from protocols.sip.dialog import DialogId, incoming_id
from protocols.sip.digest import authorize, choose_challenge
from protocols.sip.errors import BadRequest
from protocols.sip.events import (
    AckReceived,
    CancelReceived,
    ClientTransaction,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    TransactionTimeout,
)
from protocols.sip.message import Headers, Request, Response, make_response, parse_message
from protocols.sip.transaction import TransactionLayer
from tests.sip_app.lossy_calls import ALL, DOMAIN, SERVER, TIMERS, Dialling, Leg, Ringing, sdp
from tests.sip_app.lossy_watch import Watch


class Phone:
    """One number at one address. `on_invite` decides what becomes of a call to it: by default it is picked up."""

    def __init__(
        self,
        network: Any,
        random: Random,
        address: Address,
        number: str,
        *,
        allow: str = ALL,
        timer: bool = True,
        server: Address = SERVER,
    ) -> None:
        self.network, self.random, self.address, self.number = network, random, address, number
        self.allow = allow
        self.loop = asyncio.get_running_loop()
        self.layer = TransactionLayer(TIMERS)
        self.flow = Flow("udp", address, server)
        self.contact = f"<sip:{number}@{address}>"
        self.legs: dict[DialogId, Leg] = {}
        self.ringing: list[Ringing] = []
        self.watches: dict[str, Watch] = {}
        """Subscriptions by Call-ID."""
        self.on_invite: Callable[[Ringing], object] = Ringing.answer
        self.min_se = 90
        self.dead = False
        self.unheard = 0
        """Requests of this phone nobody answered."""
        self.unacknowledged = 0
        """Calls it answered, without ever getting an ACK."""
        self._supported = "100rel, timer" if timer else "100rel"
        self._users: dict[ClientTransaction, Callable[[Response], None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cseq = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        network.receivers[address] = self.receive

    def spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def receive(self, data: bytes, source: Address) -> None:
        if not self.dead:
            self.layer.receive(parse_message(data), self.flow, self.loop.time())
            self.pump()

    def pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        while True:
            for data, flow in self.layer.to_send():
                if not self.dead:
                    self.network.send(data, self.address, flow.remote)
            if (event := self.layer.next_event()) is None:
                break
            match event:
                case ResponseReceived(tx, response) if tx in self._users:
                    self._users[tx](response)
                case TransactionTimeout(tx) if isinstance(tx, ClientTransaction) and tx in self._users:
                    self.unheard += 1
                    self._users[tx](Response(408, "Nobody Answered", Headers()))
                case RequestReceived(tx, request):
                    self._requested(tx, request)
                case AckReceived(request):
                    self._acknowledged(request)
                case CancelReceived(tx, cancel_tx, _):
                    self.answer(cancel_tx, 200)
                    for ringing in self.ringing:
                        if ringing.tx is tx:
                            ringing.refuse(487)
        self._pumping = False
        at = self.layer.next_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self.loop.call_at(at, self._due)

    def _due(self) -> None:
        self.layer.handle_timer(self.loop.time())
        self.pump()

    def _requested(self, tx: ServerTransaction, request: Request) -> None:
        leg = self.legs.get(incoming_id(request))
        early = next((call for call in self.ringing if call.invite.local_tag == request.to.tag), None)
        if leg is not None:
            try:
                leg.receive(tx, request)
            except BadRequest as error:
                self.answer(tx, error.status, headers=[("Min-SE", str(self.min_se))])
        elif request.to.tag and early is not None and request.method == "PRACK":
            self.answer(tx, 200 if early.take_prack(request) else 481)
        elif request.method == "NOTIFY" and (watch := self.watches.get(request.call_id)) is not None:
            watch.notified(tx, request)
        elif request.to.tag:
            self.answer(tx, 481)
        elif request.method == "INVITE":
            ringing = Ringing(self, tx, f"{self.random.getrandbits(64):x}")
            self.ringing.append(ringing)
            self.on_invite(ringing)
        else:
            self.answer(tx, 200)

    def _acknowledged(self, request: Request) -> None:
        leg = self.legs.get(incoming_id(request))
        for ringing in (leg.invite, leg._reinvite) if leg is not None else ():
            if ringing is not None:
                ringing.invite.receive_ack(request)
                ringing.flush()

    def answer(self, tx: ServerTransaction, status: int, headers: Any = ()) -> None:
        lines = [("Contact", self.contact), ("Allow", self.allow), *headers]
        response = make_response(tx.request, status, to_tag=f"{self.random.getrandbits(64):x}", headers=lines)
        self.layer.send_response(tx, response, self.loop.time())
        self.pump()

    # Asking

    def start(self, request: Request, user: Callable[[Response], None]) -> ClientTransaction:
        tx = self.layer.send_request(request, self.flow, self.loop.time())
        self._users[tx] = user
        self.pump()
        return tx

    def stateless(self, request: Request) -> None:
        self.layer.send_stateless(request, self.flow)
        self.pump()

    async def final(self, request: Request) -> Response:
        """Send a request; its final response (408 when nobody answers)."""
        result: asyncio.Future[Response] = self.loop.create_future()

        def on_response(response: Response) -> None:
            if response.status >= 200 and not result.done():
                result.set_result(response)

        self.start(request, on_response)
        return await result

    def build(
        self,
        method: str,
        uri: str,
        *,
        headers: Any = (),
        body: bytes = b"",
        to: str | None = None,
        content_type: str = "application/sdp",
    ) -> Request:
        self._cseq += 1
        lines = [
            ("Max-Forwards", "70"),
            ("From", f"<sip:{self.number}@{DOMAIN}>;tag={self.random.getrandbits(64):x}"),
            ("To", to or f"<{uri}>"),
            ("Call-ID", f"{self.random.getrandbits(64):x}"),
            ("CSeq", f"{self._cseq} {method}"),
            *headers,
        ]
        if body:
            lines.append(("Content-Type", content_type))
        return Request(method, uri, Headers(lines), body)

    def authorized(self, request: Request, refusal: Response) -> Request:
        asked, given = ("www-authenticate", "Authorization")
        if refusal.status == 407:
            asked, given = ("proxy-authenticate", "Proxy-Authorization")
        offered = choose_challenge(refusal.credentials(asked))
        assert offered is not None
        value = str(authorize(offered, request.method, request.uri, self.number, f"dialcast-{self.number}"))
        self._cseq += 1
        headers = request.headers.with_("CSeq", f"{self._cseq} {request.method}").with_(given, value)
        return Request(request.method, request.uri, headers, request.body)

    async def request(self, method: str, uri: str, **options: Any) -> Response:
        """A request outside calls, with the credentials it is asked for."""
        return await self.ask(self.build(method, uri, **options))

    async def ask(self, request: Request) -> Response:
        """Send this request, and again with the credentials it is asked for."""
        response = await self.final(request)
        if response.status in (401, 407):
            response = await self.final(self.authorized(request, response))
        return response

    async def register(self, expires: int = 3600) -> Response:
        headers = [("Contact", self.contact), ("Expires", str(expires))]
        return await self.request("REGISTER", f"sip:{DOMAIN}", to=f"<sip:{self.number}@{DOMAIN}>", headers=headers)

    async def dial(
        self,
        number: str,
        *,
        offer: bytes | None = None,
        headers: Any = (),
        tag: str = "",
        answer: bytes = b"",
        **options: str,
    ) -> Dialling:
        """Call a number; the call goes on in the returned object once the challenge is answered."""
        lines = [("Contact", self.contact + tag), ("Allow", self.allow), ("Supported", self._supported), *headers]
        body = sdp(self.address) if offer is None else offer
        request = self.build("INVITE", f"sip:{number}@{DOMAIN}", headers=lines, body=body, **options)
        refusal = await self.final(request)
        if refusal.status in (401, 407):
            request = self.authorized(request, refusal)
        return Dialling(self, request, answer=answer)
