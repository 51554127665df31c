"""The application server: the path of a request, step by step, from the socket to its target.

admission -> dialogs of ours -> routes -> identity -> number analysis -> diversion -> target. A refusal anywhere is
`Rejected`, and becomes the answer.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

import structlog
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from protocols.net import Address, Flow, is_host
from protocols.sip.dialog import DialogState, incoming_id
from protocols.sip.events import ServerTransaction
from protocols.sip.headers import NameAddr
from protocols.sip.message import Request, make_response
from protocols.sip.transaction import Timers
from protocols.sip.uri import SipUri
from provisioning.config import Config
from sip_app.access.admission import TOO_MUCH, Admission, Admitted
from sip_app.access.guard import Guard
from sip_app.access.identity import Identity
from sip_app.access.quotas import Quotas
from sip_app.calls.capabilities import CALL_METHODS, METHODS, WITHIN_CALLS, check_accepted, check_required, not_allowed
from sip_app.calls.dialogs import Dialog, new_tag
from sip_app.calls.incoming import BroadcastService, Caller, CallGone, IncomingCall, Rejected
from sip_app.cluster.handover import HandedOver, Handover
from sip_app.cluster.nodes import Cluster, Survivor
from sip_app.cluster.strays import Strays
from sip_app.diversion.call_path import CallPath
from sip_app.diversion.codes import ServiceCodes
from sip_app.diversion.diverted import DiversionStep, Diverted, arrived
from sip_app.diversion.notices import Notices
from sip_app.diversion.targets import ForwardingTargets
from sip_app.element.endpoint import SipEndpoint
from sip_app.element.merged import Merged
from sip_app.numbers import ForeignTarget, LocalNumber, NumberPlan, ServiceCode, ServiceNumber, Target, TheServer
from sip_app.options import asks_phones, capabilities_of
from sip_app.ports import Ports, Reconfigurable
from sip_app.proxy.between import Between
from sip_app.proxy.forwarding import Proxy
from sip_app.proxy.onward import Onward, RingingCall
from sip_app.proxy.resolver import NextHops
from sip_app.proxy.routes import RouteSigner, without_own_routes
from sip_app.registrar import Registrar
from sip_app.subscriptions import Notifier, Subscription
from sip_app.transport import Transports

if TYPE_CHECKING:
    from sip_app.broadcast.messages import Messages

SCANNED = frozenset((404, 416, 484, 604))
"""Refusals that whoever tries numbers out collects."""

OTHER_DOMAIN = "Calls To Other Domains Are Not Allowed"

log = structlog.get_logger("sip_app.server")


class ApplicationServer:
    """Registrar, routing and service calls on one SIP endpoint. Make it inside the running event loop."""

    def __init__(
        self,
        config: Config,
        ports: Ports,
        service: BroadcastService | None,
        reactor: AsyncioSelectorReactor,
        *,
        as_id: str = "as",
        timers: Timers | None = None,
        transports: Callable[[SipEndpoint], Transports] | None = None,
    ) -> None:
        self._config = config
        self._ports = ports
        self._service = service
        self._reactor = reactor
        clock = asyncio.get_running_loop().time
        self.guard = Guard(config, clock)
        self.quotas = Quotas(config, self.guard, clock)
        self._admission = Admission(config.sip, self.guard)
        self.endpoint = SipEndpoint(config, reactor, ports.dialogs, as_id, self._admission, self, timers, transports)
        self.endpoint.forgetting.append(lambda dialog: self.quotas.end((dialog.state.call_id, dialog.state.remote_tag)))
        self._process = secrets.token_hex(4)
        self.registrar = Registrar(config.sip, ports.location, self._process, time.time, self.endpoint.transports.keep)
        sip = config.sip
        host, code = sip.advertised_host or sip.bind, config.service.forwarding_code
        own_hosts = {sip.bind, host, *sip.also_bind, *sip.also_advertised}
        self._plan = NumberPlan(config, own_hosts)
        self._diversion = DiversionStep(config, ports.diversions, self._plan)
        self._targets = ForwardingTargets(self._plan, ports.credentials)
        self.codes = ServiceCodes(self._plan, code, ports.diversions, self._targets, service, host)
        self.notifier = Notifier(self.endpoint, config)
        self.messages: Messages | None = None
        self._cluster: Cluster | None = None
        self._merged = Merged(self.endpoint)

    async def start(self) -> None:
        """Read the secrets, then bind the sockets and serve. Raises OSError when an address is taken."""
        ports, config = self._ports, self._config
        self._identity = Identity(config, self._plan, ports.credentials, self.guard, self.endpoint.proven, time.time)
        self._signer = RouteSigner(await ports.secrets.secret("record-route"), self._process, config.sip.route_lifetime)
        self._proxy = Proxy(self.endpoint, self._admission, self._signer)
        transports, key = self.endpoint.transports, await ports.secrets.secret("handover")
        self._handover = Handover(key, transports, self._proxy, self.quotas)
        hops = NextHops(config.dns, self._reactor, transports.reaches, loopback=not config.exposed)
        self._onward = Onward(
            self.endpoint, self._plan, self.registrar, ports.credentials, self._proxy, self.quotas, hops
        )
        self._between = Between(self.endpoint, self._proxy, self._onward, self._signer, self._names_us, self.quotas)
        notices = Notices(self.endpoint, self._onward)
        self._path = CallPath(self.endpoint, self._diversion, self._targets, notices, self._place)
        await self.endpoint.start()
        self._own_ports = {address.port for _, address in self.addresses}
        log.info("server.started", addresses=[f"{name}:{address}" for name, address in self.addresses])

    async def join(self, cluster: Cluster, survivor: Survivor) -> None:
        """Serve together with others on the same store; call after `start`. Raises OSError."""
        self._cluster, self.endpoint.sure = cluster, cluster.sure
        self._between.strays = Strays(self._ports.dialogs, cluster, survivor, self._proxy, self.on_request)
        sip, port = self._config.sip, dict(self.addresses)["udp"].port
        self._handover.address = Address(sip.advertised_host or sip.bind, port)
        await cluster.join(self._handover.address, survivor)

    async def stop(self) -> None:
        """End our calls with BYE, within a bounded time, and close the sockets."""
        await self.notifier.stop()
        await self.endpoint.stop()

    def reconfigure(self, config: Config) -> None:
        """Live by a changed configuration from now on, without touching a call; call after `start`.

        Each part that keeps settings has a `reconfigure` too, which takes what `provisioning.reload` calls live.
        """
        self._config = config
        parts: list[Reconfigurable] = [self._admission, self.endpoint, self.registrar, self._plan, self._identity]
        for part in (*parts, self._diversion, self.guard, self.quotas):
            part.reconfigure(config)
        self.notifier.reconfigure(config)
        if self.messages is not None:
            self.messages.reconfigure(config)

    @property
    def addresses(self) -> list[tuple[str, Address]]:
        """What is listened on: transport and address."""
        return self.endpoint.addresses

    # The way of a request

    def asks(self, request: Request, flow: Flow) -> Rejected | None:
        """The challenge for a request that brings no credentials at all, though it cannot be served without."""
        if not self._identity.must_ask(request) or self._admission.trusted(flow.remote.host):
            return None
        if "route" in request.headers and self._handover.read(request) is not None:
            return None
        admitted = self._admission.admit(request, flow, self.endpoint.loop.time())
        return TOO_MUCH if admitted is None else self._identity.asked(admitted)

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """Admission; then to the dialog it belongs to, or on through the other steps."""
        endpoint = self.endpoint
        admitted = self._admission.admit(request, flow, endpoint.loop.time())
        if admitted is None:
            endpoint.reject(tx, request, TOO_MUCH)
        elif not request.to.tag:
            if "route" in request.headers and (handed := self._handover.read(admitted.request)) is not None:
                endpoint.serve(tx, request, self._serve_handed(tx, *handed))
                return
            endpoint.serve(tx, request, self._serve(tx, admitted))
        elif (dialog := endpoint.dialogs.get(incoming_id(request))) is not None:
            if admitted.comes_from(dialog.state.flow.remote.host, dialog.app.get("client")):
                dialog.receive(tx, admitted.request, flow)
            else:
                endpoint.serve(tx, request, self._from_elsewhere(tx, admitted, dialog))
        elif (subscription := self.notifier.find(incoming_id(request))) is not None:
            endpoint.serve(tx, request, self._in_subscription(tx, admitted, subscription))
        elif (call := endpoint.early.get(incoming_id(request))) is not None:
            call.receive(tx, admitted.request)
        else:
            endpoint.serve(tx, request, self._between.serve(tx, admitted))

    async def _from_elsewhere(self, tx: ServerTransaction, admitted: Admitted, dialog: Dialog) -> None:
        """A request of our dialog from an address it never used: its sender must prove who it is."""
        caller = await self._identity.identify(admitted)
        if caller.aor != self._plan.aor(NameAddr.parse(dialog.state.remote_uri).uri):
            raise Rejected(403)
        dialog.receive(tx, admitted.request, admitted.flow)

    async def _in_subscription(self, tx: ServerTransaction, admitted: Admitted, subscription: Subscription) -> None:
        """A request of a subscription's dialog; from an address it never used, its sender must prove who it is."""
        watcher = subscription.watcher
        if not admitted.comes_from(subscription.state.flow.remote.host, watcher.client_address.host):
            caller = await self._identity.identify(admitted)
            if caller.aor != watcher.aor:
                raise Rejected(403)
        self.notifier.refresh(tx, admitted.request, subscription, admitted.flow)

    async def _serve_handed(self, tx: ServerTransaction, request: Request, handed: HandedOver) -> None:
        """What another server asked after and handed over, as we hold the broadcast it is about."""
        if tx.answered:  # it was cancelled
            return
        self._handover.take(tx.request)
        caller, channel = handed.caller, handed.channel
        if request.method == "INVITE":
            if caller.authenticated and self._plan.local(caller.aor):
                self.quotas.call(self.endpoint, tx, request, caller.aor)
            call = Diverted(handed.service, channel)
            await self._as_callee(tx, request, caller, ServiceNumber(handed.service), call, handed)
        elif request.method == "SUBSCRIBE" and channel is not None:
            event = self.notifier.event_of(request)
            await self.notifier.subscribe(tx, request, caller, channel, event, handed.back or tx.flow)
        else:
            target = ServiceNumber(handed.service) if channel is None else LocalNumber(channel)
            if not await self._takes_message(tx, request, caller, target, handed=True):
                await self._call(tx, request, caller, target.aor, trusted=False)

    def on_ack(self, request: Request, flow: Flow) -> None:
        """An ACK for a 2xx between others: passed on without a transaction."""
        self._between.forward_ack(request)

    async def _serve(self, tx: ServerTransaction, admitted: Admitted) -> None:
        """A request outside dialogs; what it is refused for may count against its address."""
        try:
            await self._route(tx, admitted)
        except Rejected as refusal:
            known = admitted.trusted or admitted.connected or self._identity.proves(admitted)
            if refusal.status in SCANNED and known and is_host(admitted.client.host):
                self.guard.scanned(admitted.client.host)
            raise

    async def _route(self, tx: ServerTransaction, admitted: Admitted) -> None:
        """Routes, identity, number analysis."""
        if admitted.request.method != "REGISTER":
            self._merged.check(tx, admitted.request)
        request, _ = without_own_routes(admitted.request, self._names_us, self._signer)
        if request is not admitted.request:
            admitted = replace(admitted, request=request)
        home = self._plan.home(request)
        target = self._plan.analyse(request.parsed_uri, home)
        known = admitted.trusted or self._identity.offers(request)
        if request.method == "OPTIONS" and not asks_phones(target, known=known):
            able = capabilities_of(target, self.notifier.allow_events)
            check_required(request)
            self._merged.serve(tx, request)
            self.endpoint.respond(tx, make_response(request, 200, to_tag=new_tag(), headers=able))
            return
        caller = await self._identity.identify(admitted)
        if caller.authenticated and self._plan.local(caller.aor):
            self.quotas.spend(caller.aor, request.method)
            if request.method == "INVITE":
                self.quotas.call(self.endpoint, tx, request, caller.aor)
        if request.routes:
            raise Rejected(403, "Not A Relay")
        if request.method in WITHIN_CALLS and isinstance(target, ServiceNumber | ServiceCode | TheServer):
            raise Rejected(481)
        if request.method == "REGISTER":
            await self._register(tx, admitted, caller, target)
        elif request.method == "SUBSCRIBE" and self._notifies(target, request):
            check_required(request)
            self._merged.serve(tx, request)
            if not self._plan.may_reach(caller.aor, target.aor):
                raise Rejected(403, OTHER_DOMAIN)
            event = self.notifier.event_of(request)
            roster = event.package == "conference"
            if not (roster and await self._hand_over(tx, request, HandedOver(caller, target.aor, ""))):
                await self.notifier.subscribe(tx, request, caller, target.aor, event, admitted.flow)
        elif request.method == "MESSAGE" and await self._takes_message(tx, request, caller, target):
            return
        elif isinstance(target, TheServer):
            raise Rejected(404) if request.method in METHODS else not_allowed(request.method)
        elif isinstance(target, ForeignTarget):
            await self._onward.leave(tx, request, caller, target)
        elif isinstance(target, ServiceCode):
            await self._as_callee(tx, request, caller, target)
        else:
            await self._call(tx, request, caller, target.aor, trusted=admitted.trusted)

    def _notifies(self, target: Target, request: Request) -> TypeGuard[LocalNumber]:
        """True for a state of a local number that is kept here; others are asked of its phones."""
        if not self.notifier.packages or isinstance(target, ForeignTarget):
            return False
        known = self.notifier.event_of(request).package in self.notifier.packages
        if not isinstance(target, LocalNumber):
            raise Rejected(404) if known else self.notifier.bad_event()
        return known

    async def _takes_message(
        self, tx: ServerTransaction, request: Request, caller: Caller, target: Target, *, handed: bool = False
    ) -> bool:
        """True for a MESSAGE within a broadcast, which is thereby taken; others go to the number's phones."""
        if self.messages is None or not isinstance(target, LocalNumber | ServiceNumber):
            return False
        channel, service = (target.aor, "") if isinstance(target, LocalNumber) else (None, target.aor)
        if self.messages.outside(request, caller, target.aor, service_number=bool(service)):
            self.endpoint.respond(tx, make_response(request, 202, to_tag=new_tag()))
            return True
        return not handed and await self._hand_over(tx, request, HandedOver(caller, channel, service))

    async def _hand_over(self, tx: ServerTransaction, request: Request, about: HandedOver) -> bool:
        """True if another server holds the broadcast, and has the request now."""
        there = None
        if self._service is not None and (channel := about.channel or about.caller.aor):
            there = await self._service.holder(channel)
        if there is not None:
            self._handover.send(tx, request, about, there)
        return there is not None

    async def _register(self, tx: ServerTransaction, admitted: Admitted, caller: Caller, target: Target) -> None:
        request = admitted.request
        if isinstance(target, ForeignTarget):
            raise Rejected(403, "Not Our Domain")
        check_required(request)
        self._merged.serve(tx, request)
        aor = self._plan.aor(request.to.uri, self._plan.home(request))
        if aor is None:
            raise Rejected(404)
        if admitted.trusted and await self._ports.credentials.find(aor) is None:
            raise Rejected(404)
        headers = await self.registrar.register(admitted, aor)
        self.endpoint.respond(tx, make_response(request, 200, to_tag=new_tag(), headers=headers))

    async def _call(
        self, tx: ServerTransaction, request: Request, caller: Caller, dialled: str, *, trusted: bool
    ) -> None:
        """Diversion, then the service or the phones of whoever is left."""
        if not self._plan.may_reach(caller.aor, dialled):
            raise Rejected(403, OTHER_DOMAIN)
        call = arrived(request, dialled, self._plan, trusted=trusted)
        if request.method == "INVITE":
            await self._path.begin(tx, request, caller, call)
        else:
            await self._place(tx, request, caller, call)

    async def _place(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller,
        call: Diverted,
        ringing: RingingCall | None = None,
    ) -> None:
        """A call where its diversions led."""
        if call.diverted_by is not None and not self._plan.may_reach(call.diverted_by, call.target):
            raise Rejected(403, OTHER_DOMAIN)
        if self._plan.is_service(call.target):
            await self._as_callee(tx, request, caller, ServiceNumber(call.target), call)
            return
        if not caller.authenticated:
            raise self._identity.challenged(request, caller.client_address.host)
        if not self._plan.local(call.target):
            await self._onward.leave(tx, request, caller, ForeignTarget(call.foreign_uri(), call.target), call)
            return
        await self._onward.ring(tx, request, caller, call, ringing)

    async def _as_callee(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller,
        target: ServiceNumber | ServiceCode,
        diverted: Diverted | None = None,
        handed: HandedOver | None = None,
    ) -> None:
        """A call we answer ourselves (the service number or a code), or another server that holds its broadcast."""
        if request.method != "INVITE":
            raise not_allowed(request.method, CALL_METHODS)
        check_required(request)
        check_accepted(request)
        if not request.contacts:
            raise Rejected(400, "Missing Contact")
        channel = diverted.diverted_by if diverted is not None else None
        if not caller.authenticated and not await self._welcome(channel):
            raise self._identity.challenged(request, caller.client_address.host)
        self._merged.serve(tx, request)
        if tx.state != "proceeding":
            return
        service = target.aor if isinstance(target, ServiceNumber) else ""
        if service and handed is None and await self._hand_over(tx, request, HandedOver(caller, channel, service)):
            if diverted is not None:
                self._onward.tell(tx, request, diverted)
            return
        self.quotas.answer(self.endpoint)
        back = handed.back if handed is not None else None
        call = IncomingCall(self.endpoint, tx, request, caller, channel, service, back)
        self.endpoint.early[call.id] = call  # from now on, so that a crowd that comes at once finds the limit too
        if isinstance(target, ServiceCode):
            await self.codes.serve(call, target.text)
            return
        try:
            for shown in diverted.tell if diverted is not None else ():
                self._onward.show(tx, shown)
                await call.progress(181)
        except CallGone:
            return
        if self._service is None:
            raise Rejected(503, "No Broadcast Service")
        if channel is None:
            await self._service.go_live(call)
        else:
            await self._service.watch(call, channel)

    async def _welcome(self, channel: str | None) -> bool:
        """True if strangers may watch the channel their call was diverted by."""
        return channel is not None and self._service is not None and await self._service.open_to_guests(channel)

    def _names_us(self, uri: SipUri) -> bool:
        """True for a Route entry that means this server; without a port, our name alone does."""
        if self._cluster is not None and uri.address is not None and self._cluster.holds(uri.address):
            return True  # another server of ours, whose request was brought here
        return self._plan.ours(uri) and (uri.port is None or uri.port in self._own_ports)

    async def reach(self, state: DialogState) -> Flow | None:
        """Another way to the peer of a dialog whose connection is gone."""
        return await self._onward.reach(state)
