"""The SIP element: sockets and transactions tied together, and the dialogs that end here.

What arrives goes through the transaction layer; what comes out is dispatched: responses to whoever sent the request,
ACK, PRACK and CANCEL to the call they belong to, new requests to the server's pipeline (`Pipeline`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from protocols.net import Address, Flow, bracketed, uri_transport
from protocols.records import StoredDialog
from protocols.sip.dialog import DialogId, DialogState, incoming_id
from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.events import (
    AckReceived,
    CancelReceived,
    ClientTransaction,
    Event,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    TransactionTerminated,
    TransactionTimeout,
    TransactionTransportError,
)
from protocols.sip.message import REASONS, Headers, Request, Response, check_request, make_response, parse_message
from protocols.sip.transaction import Timers, TransactionLayer
from provisioning.config import Config, SipConfig
from sip_app.access.admission import Admission
from sip_app.calls.dialogs import Dialog, Rejected, new_tag
from sip_app.calls.incoming import IncomingCall
from sip_app.diversion.history import Lines, with_history
from sip_app.element.passing import Passing
from sip_app.element.stateless import Stateless
from sip_app.element.tasks import Tasks
from sip_app.element.users import ClientUser, Pipeline, Waiter
from sip_app.events import Trace
from sip_app.metrics import count_answer, count_received, count_request, limited
from sip_app.ports import Dialogs
from sip_app.transport import Limits, Transports

STOP_WITHIN = 2.0
"""Seconds the farewells of all dialogs may take together when the server stops."""
LAST_WRITES_WITHIN = 1.0
"""Seconds the store may still take then to forget them."""
_FULL = {"number": "sip.max_transactions", "bytes": "sip.max_transaction_bytes"}
_STOP_REASON = 'SIP;cause=503;text="Server shutting down"'

Send = Callable[[ServerTransaction, Response, float], None]
log = structlog.get_logger("sip_app.element.endpoint")


class SipEndpoint:
    """One server's SIP. `dialogs` are the answered calls, `early` those that only got provisional answers.

    `transports` makes the sockets; a test hands in a network of its own.
    """

    def __init__(
        self,
        config: Config,
        reactor: AsyncioSelectorReactor,
        store: Dialogs,
        as_id: str,
        admission: Admission,
        pipeline: Pipeline,
        timers: Timers | None = None,
        transports: Callable[["SipEndpoint"], Transports] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.timers = timers or Timers(c=config.service.ring_timeout)
        self.session_expires = config.service.session_expires
        self.min_se = config.service.min_se
        self.dialogs: dict[DialogId, Dialog] = {}
        self.forgetting: list[Callable[[Dialog], object]] = []
        self.sure: Callable[[], Awaitable[None]] | None = None
        """Waits until no other server can have taken our dialogs over, where there are others."""
        self.early: dict[DialogId, IncomingCall] = {}
        self.calls: dict[ServerTransaction, IncomingCall] = {}
        self.cancellable: dict[ServerTransaction, Callable[[], None]] = {}
        self.at_answer: dict[ServerTransaction, Callable[[int], object]] = {}
        """Who is told the final status, or 0 where a transaction ends without one."""
        self.passing = Passing()
        self._histories: dict[ServerTransaction, tuple[Lines, bool]] = {}
        self.users: dict[ClientTransaction, ClientUser] = {}
        self._config = config
        self._sip = sip = config.sip
        self._store = store
        self._as_id = as_id
        self._admission = admission
        self._pipeline = pipeline
        self._trace = Trace(config.log.level == "debug")
        self._layer = TransactionLayer(
            self.timers,
            sip.max_transactions,
            self.via_address,
            sip.max_transaction_bytes,
            no_room=lambda full: limited(_FULL[full]),
        )
        make = transports or (lambda users: Transports(users, reactor, Limits.of(config), sip.dscp))
        self.transports = make(self)
        self._stateless = Stateless(self.send_stateless)
        self._started = asyncio.Event()
        self._tasks = Tasks()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None

    # Life

    async def start(self) -> None:
        """Bind the sockets. Raises OSError, or ValueError for a certificate that cannot be used."""
        self.transports.open(self._config)
        self._started.set()

    async def stop(self) -> None:
        """Say BYE in every dialog, all within a bounded time, then close the sockets."""
        for call in list(self.early.values()):
            call.reject(503)
        if self._started.is_set() and self.dialogs:
            farewells = [asyncio.ensure_future(dialog.bye(_STOP_REASON)) for dialog in list(self.dialogs.values())]
            _, late = await asyncio.wait(farewells, timeout=STOP_WITHIN)
            for farewell in late:
                farewell.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await self.transports.close()
        await self._tasks.stop(LAST_WRITES_WITHIN)

    def reconfigure(self, config: Config) -> None:
        """Take the limits and session timers of a changed configuration for what comes from now on."""
        self._sip = config.sip
        self.session_expires = config.service.session_expires
        self.min_se = config.service.min_se
        self._trace.on = config.log.level == "debug"
        self.transports.reconfigure(config)

    @property
    def addresses(self) -> list[tuple[str, Address]]:
        """What is listened on: transport and address, those of `sip.bind` first, UDP before all."""
        return [(listener.transport, listener.local) for listener in self.transports.listeners]

    @property
    def settings(self) -> SipConfig:
        """Those of `sip` in force."""
        return self._sip

    @property
    def transactions(self) -> int:
        """How many are held."""
        return len(self._layer)

    def via_address(self, flow: Flow) -> Address:
        """Host and port our Via, Contact and Record-Route show on this flow."""
        return self.transports.shown(flow)

    def contact(self, flow: Flow, user: str = "", params: str = "", *, secure: bool = False) -> str:
        """Our Contact for a dialog over this flow; with a `user`, and more parameters (`;name=value`), if given.

        `secure` makes it a sips: URI, as a call to one demands (RFC 3261 section 12.1.1).
        """
        host, port = self.via_address(flow)
        named = f"{user}@" if user else ""
        scheme = "sips" if secure else "sip"
        return f"<{scheme}:{named}{bracketed(host)}:{port}{uri_transport(flow)}{params}>"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background; what it fails of is logged."""
        return self._tasks.spawn(work)

    def serve(self, tx: ServerTransaction, request: Request, work: Coroutine[Any, Any, None]) -> None:
        """Run the service of one request: if it ends in `Rejected` or an error, that is the answer."""
        self._tasks.serve(work, partial(self.reject, tx, request))

    # What goes out

    def respond(self, tx: ServerTransaction, response: Response, send: Send | None = None) -> None:
        """Answer a request."""
        count_answer(tx.method, response.status)
        if self._histories and (known := self._histories.get(tx)) is not None:
            response = with_history(response, *known)
        (send or self._layer.send_response)(tx, response, self.loop.time())
        if response.status >= 200:
            self._answered(tx, response.status)
            tx.release()
        self.pump()

    def _answered(self, tx: ServerTransaction, status: int) -> None:
        """What is held of the request from now on is for its retransmissions alone."""
        if (call := self.calls.pop(tx, None)) is not None:
            tx.to_tag = call.local_tag
        self.cancellable.pop(tx, None)
        if (act := self.at_answer.pop(tx, None)) is not None:
            act(status)

    def reject(self, tx: ServerTransaction, request: Request, refusal: Rejected) -> None:
        """Answer a request with a refusal; through its call, if it has one."""
        if tx.answered:
            return
        call = self.calls.get(tx)
        if call is not None:
            call.reject(refusal.status, refusal.reason, refusal.headers)
            return
        send = self._layer.challenge if refusal.status in (401, 407) else self._layer.send_response
        self.respond(tx, refusal.answer(request, new_tag()), send)

    def send(self, request: Request, flow: Flow, user: ClientUser) -> ClientTransaction:
        """Send a request at the next `pump`; `user` hears of its responses."""
        tx = self._layer.send_request(request, flow, self.loop.time())
        count_request(request.method)
        self.users[tx] = user
        return tx

    def show_history(self, tx: ServerTransaction, lines: Lines) -> None:
        """What the responses of a diverted call say of its history from now on."""
        if not tx.answered:
            self._histories[tx] = lines, "histinfo" in tx.request.supported

    def cancel(self, tx: ClientTransaction, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Cancel an INVITE we sent."""
        self._layer.cancel(tx, self.loop.time(), headers)
        self.pump()

    def send_stateless(self, message: Request | Response | bytes, flow: Flow) -> None:
        """Send an ACK, or an answer to what could not be read."""
        self._layer.send_stateless(message, flow)
        self.pump()

    async def request(self, request: Request, flow: Flow) -> Response:
        """Send a request and wait for its final response (408 when none comes, 503 when it cannot be sent)."""
        answered: asyncio.Future[Response] = self.loop.create_future()
        self.send(request, flow, Waiter(answered))
        self.pump()
        return await answered

    async def reach(self, state: DialogState) -> Flow:
        """The flow to the peer of a dialog: its own while that stands, else another way, waiting for the start."""
        await self._started.wait()
        flow = state.flow
        if flow.transport == "udp":
            return self.transports.udp_flow(flow.remote)
        if self.transports.alive(flow):
            return flow
        return await self._pipeline.reach(state) or flow

    # Dialogs

    def restore(self, stored: StoredDialog) -> Dialog:
        """Hold a stored dialog again, as after a restart. Raises SipParseError if it cannot be read."""
        state = DialogState.from_json(stored.state)
        dialog = Dialog(self, state, None)
        self.dialogs[state.id] = dialog
        return dialog

    async def save(self, dialog: Dialog) -> None:
        """Make a dialog durable, if it is to last; one that ended meanwhile is forgotten after all, in any order."""
        if dialog.lasting:
            group = dialog.app.get("group", "")
            await self._store.save(StoredDialog(dialog.id, self._as_id, group, dialog.state.to_json()))
        if dialog.ended.is_set():
            self.forget(dialog)

    def abandon(self, dialog: Dialog) -> None:
        """Another server has this dialog now, in the store as well."""
        dialog.abandon()
        self._let_go(dialog)

    def forget(self, dialog: Dialog) -> None:
        """A dialog is over."""
        self._let_go(dialog)
        if dialog.lasting:
            self.spawn(self._store.delete(dialog.id, self._as_id))

    def _let_go(self, dialog: Dialog) -> None:
        self.dialogs.pop(dialog.state.id, None)
        for act in self.forgetting:
            act(dialog)

    # What comes in

    def data_received(self, data: bytes, flow: Flow) -> None:
        """One message from a socket. Nothing it may contain raises."""
        now = self.loop.time()
        if len(data) < 16 or not self._admission.within_rate(flow, now, response=data[:4] == b"SIP/"):
            return
        try:
            message = parse_message(
                data,
                max_bytes=self._sip.max_message_bytes,
                max_header_bytes=self._sip.max_header_bytes,
                max_header_lines=self._sip.max_headers,
            )
        except SipParseError as error:
            log.debug("sip.unreadable", peer=str(flow.remote), error=str(error))
            self._stateless.refuse_too_large(data, flow, self._sip)
            return
        count_received(message)
        if self._trace.on:
            self._trace.received(message, flow)
        if isinstance(message, Request) and not self._admits(message, flow):
            return
        self._layer.receive(message, flow, now, len(data))
        self.pump()

    def _admits(self, request: Request, flow: Flow) -> bool:
        """True if a request goes on to its transaction; else it has its answer, or deserves none."""
        if request.method == "ACK" and self._stateless.acknowledged(request):
            return False
        try:
            check_request(request)
        except BadRequest as error:
            self._stateless.refuse(request, flow, error)
            return False
        if self._admission.refuses(request, flow):
            return False
        if not request.to.tag and (challenge := self._pipeline.asks(request, flow)) is not None:
            self._stateless.challenge(request, flow, challenge)
            return False
        return True

    def proven(self, flow: Flow, client: str) -> None:
        """Whoever sends over this flow, from the host `client`, has proven who he is."""
        self.transports.prove(flow)
        self._admission.prove(client)

    def admits(self, flow: Flow) -> bool:
        """True if this peer may cost one more connection, or answer to a keep-alive, now."""
        return self._admission.within_rate(flow, self.loop.time())

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone."""
        self._layer.transport_failed(flow, self.loop.time())
        self.pump()

    def pump(self) -> None:
        """Send what is to be sent and dispatch what happened, until there is no more of either."""
        if self._pumping:
            return
        self._pumping = True
        layer, send = self._layer, self.transports.send
        try:
            while True:
                for data, flow in layer.to_send():
                    if self._trace.on:
                        self._trace.sent(data, flow)
                    if not send(data, flow):
                        self.loop.call_soon(self.flow_closed, flow)
                event = layer.next_event()
                if event is None:
                    break
                self._dispatch(event)
        finally:
            self._pumping = False
        self._set_timer()

    def _set_timer(self) -> None:
        at = self._layer.next_timer()
        timer = self._timer
        if at is None or (timer is not None and timer.when() <= at):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self.loop.call_at(at, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = None
        self._layer.handle_timer(self.loop.time())
        self.pump()

    def _dispatch(self, event: Event) -> None:
        match event:
            case ResponseReceived(tx, response):
                if (user := self.users.get(tx)) is not None:
                    user.on_response(response, tx)
                    if response.status >= 200 and tx.state != "accepted":
                        self.users.pop(tx, None)
                        tx.release()
            case RequestReceived(tx, request, flow):
                self._pipeline.on_request(tx, request, flow)
            case TransactionTerminated(tx):
                if isinstance(tx, ClientTransaction):
                    self.users.pop(tx, None)
                elif isinstance(tx, ServerTransaction):
                    self._answered(tx, 0)
                    self._histories.pop(tx, None)
                    self.passing.end(tx)
            case AckReceived(request, flow):
                dialog = self.dialogs.get(incoming_id(request))
                if dialog is not None:
                    dialog.receive_ack(request)
                else:
                    self._pipeline.on_ack(request, flow)
            case CancelReceived(tx, cancel_tx, request):
                call = self.calls.get(tx)  # both answers have one To tag (RFC 3261 section 9.2)
                to_tag = call.local_tag if call else tx.to_tag or new_tag()
                self.respond(cancel_tx, make_response(request, 200, to_tag=to_tag))
                self._cancelled(tx)
            case TransactionTimeout(tx):
                self._failed(tx, 408)
            case TransactionTransportError(tx):
                self._failed(tx, 503)

    def _cancelled(self, tx: ServerTransaction) -> None:
        if (call := self.calls.get(tx)) is not None:
            call.cancel()
        elif (give_up := self.cancellable.get(tx)) is not None:
            give_up()
        elif not tx.answered:
            self.respond(tx, make_response(tx.request, 487, to_tag=new_tag()))

    def _failed(self, tx: object, status: int) -> None:
        if isinstance(tx, ClientTransaction):
            if (user := self.users.get(tx)) is not None:
                user.on_response(Response(status, REASONS[status], Headers()), tx)
        elif isinstance(tx, ServerTransaction) and (call := self.calls.get(tx)) is not None:
            call.lost()
