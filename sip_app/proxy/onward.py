"""Onward: the last step of a call that is not for this server itself: the phones of a number, or another domain.

Requests to a binding use the flow it registered over (RFC 3261 section 18, RFC 5626); a connection that is gone is
dialled anew only to the host it came from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from protocols.net import Flow
from protocols.records import Condition
from protocols.sip.dialog import DialogState
from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.headers import NameAddr
from protocols.sip.message import Request, make_response
from protocols.sip.uri import SipUri, Uri, parse_uri
from sip_app.access.quotas import Quotas
from sip_app.calls.dialogs import new_tag
from sip_app.calls.incoming import Caller, Rejected
from sip_app.diversion.diverted import Diverted, History
from sip_app.diversion.history import history_lines
from sip_app.element.endpoint import SipEndpoint
from sip_app.numbers import ForeignTarget, NumberPlan, number_of
from sip_app.ports import Credentials
from sip_app.proxy.fork import ForkUser
from sip_app.proxy.forwarding import Proxy, ProxyTarget
from sip_app.proxy.resolver import Hop, NextHops, Unresolved
from sip_app.registrar import Registrar
from sip_app.transport.streams import SECURE

MAX_DATAGRAM = 1_300
"""Bytes a request may have to go by UDP where the path's MTU is not known (RFC 3261 section 18.1.1)."""
OUR_LINES = 400
"""Bytes Via and Record-Route add at most, nearly."""
TCP_TRIAL = 1.0
"""Seconds until such a request goes by UDP all the same."""


class NobodyThere(Rejected):
    """480: no phone of the number can be asked. `condition` says which forwarding that calls for."""

    def __init__(self, condition: Condition, reason: str) -> None:
        super().__init__(480, reason)
        self.condition = condition


class RingingCall(ForkUser, Protocol):
    """Whoever follows what becomes of the phones: told which they are; how long they may ring, in seconds."""

    contacts: Sequence[SipUri]
    patience: float | None


class Onward:
    """Finds where calls of others go, and sends them there."""

    def __init__(
        self,
        endpoint: SipEndpoint,
        plan: NumberPlan,
        registrar: Registrar,
        credentials: Credentials,
        proxy: Proxy,
        quotas: Quotas,
        hops: NextHops,
    ) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._registrar = registrar
        self._credentials = credentials
        self._proxy = proxy
        self._quotas = quotas
        self._hops = hops

    async def ring(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller,
        call: Diverted,
        ringing: RingingCall | None = None,
    ) -> None:
        """An ordinary call: to every phone registered for the number. `ringing` hears if none of them takes it.

        Raises `Rejected`, as `NobodyThere` where forwarding may still help.
        """
        if call.tell:
            self.show(tx, call.tell[-1])
        if request.max_forwards == 0:
            raise Rejected(483)
        self._proxy.check_loop(tx, request)
        targets = await self.phones(call, secure=request.uri[:5].lower() == "sips:")
        if not targets:
            if await self._credentials.find(call.target) is None:
                raise Rejected(404)
            if await self._registrar.bindings(call.target):
                raise NobodyThere("not-reachable", f"{number_of(call.target)} Is Out Of Reach")
            raise NobodyThere("not-registered", f"{number_of(call.target)} Is Not Registered")
        if not still_wanted(tx):
            return
        self.tell(tx, request, call)
        patience = None
        if ringing is not None:
            ringing.contacts = [uri for target in targets if isinstance(uri := parse_uri(target.uri), SipUri)]
            patience = ringing.patience
        self._proxy.forward(tx, request, caller, targets, record=True, user=ringing, patience=patience)

    async def phones(self, call: Diverted, *, secure: bool = False) -> list[ProxyTarget]:
        """Every phone of the called number that can be reached, best and newest first, with the history it gets.

        `secure`: only over TLS (RFC 5630). A phone's several flows (RFC 5626) are the ways to one target.
        """
        phones: dict[str, ProxyTarget] = {}
        bindings = await self._registrar.bindings(call.target)
        for branch, binding in enumerate(sorted(bindings, key=lambda known: (-known.q, -known.received_at)), 1):
            uri = parse_uri(binding.contact)
            flow = self._registrar.flow_of(binding)
            if secure and flow.transport not in SECURE:
                continue
            if not self._endpoint.transports.alive(flow):
                if binding.reg_id and flow.reliable:
                    continue
                hop = str(NameAddr.parse(binding.path[0]).uri) if binding.path else binding.contact
                reached = self.redialled(flow, hop)
                if reached is None:
                    continue
                flow = reached
            history = call.history
            if isinstance(uri, SipUri) and (entry := call.contact_entry(uri, branch)) is not None:
                history = (*history, entry)
            target = ProxyTarget(_request_uri(uri), flow, binding.path, history, call.diversions, named=call.named)
            first = phones.get(binding.phone)
            phones[binding.phone] = target if first is None else replace(first, others=(*first.others, target))
        return list(phones.values())

    def tell(self, tx: ServerTransaction, request: Request, call: Diverted) -> None:
        """One 181 for each diversion the caller may know of; none if it could only have reliable ones."""
        if "100rel" not in request.required:
            for shown in call.tell:
                self.show(tx, shown)
                self._endpoint.respond(tx, make_response(request, 181, to_tag=new_tag()))

    def show(self, tx: ServerTransaction, shown: History) -> None:
        """What every response to a diverted call says of its history from now on (RFC 7044)."""
        self._endpoint.show_history(tx, history_lines(shown, trusted=self._proxy.trusts(tx.flow)))

    async def leave(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller,
        target: ForeignTarget,
        call: Diverted | None = None,
    ) -> None:
        """A request to another domain, only where an operator's pattern allows it: to each of its hosts in turn."""
        call = call or Diverted(target.key)
        if call.tell:
            self.show(tx, call.tell[-1])
        keys = [target.key]
        if elsewhere := target.uri.param("maddr"):  # the host that is really called
            keys.append(f"{target.uri.decoded_user}@{elsewhere.lower()}")
        if not caller.authenticated or not all(self._plan.may_leave_for(key) for key in keys):
            raise Rejected(403, "Foreign Domain")
        if request.method == "INVITE":
            payers = {caller.aor, call.diverted_by or caller.aor}
            self._quotas.leave({aor for aor in payers if self._plan.local(aor)}, target.key)
        self._proxy.check_loop(tx, request)
        try:
            hops = await self._hops.find(target.uri)
        except Unresolved as error:
            raise Rejected(503 if error.temporary else 404, f"{target.uri.host}: {error}") from None
        ways = [
            ProxyTarget(str(target.uri), flow, (), call.history, call.diversions, named=call.named)
            for flow in self._flows(hops, request)
        ]
        leaving = replace(ways[0], others=tuple(ways[1:]))
        if still_wanted(tx):
            self.tell(tx, request, call)
            self._proxy.forward(tx, request, caller, [leaving], record=True)

    def _flows(self, hops: Sequence[Hop], request: Request) -> Iterator[Flow]:
        """The flows to try. A request too large for one datagram tries TCP first (RFC 3261 section 18.1.1)."""
        transports = self._endpoint.transports
        large = len(request.serialise()) + OUR_LINES > MAX_DATAGRAM
        for hop in hops:
            if hop.transport == "udp" and large and "tcp" in transports.bound:
                yield transports.intend("tcp", hop.address, timeout=TCP_TRIAL)
            yield transports.intend(hop.transport, hop.address, hop.name)

    def redialled(self, flow: Flow, uri: str) -> Flow | None:
        """A new connection for a dead one: to where the peer says it listens, if that is the host it came from."""
        if flow.transport == "udp":
            return self._endpoint.transports.udp_flow(flow.remote)
        try:
            parsed = parse_uri(uri)
        except SipParseError:
            return None
        address = parsed.address if isinstance(parsed, SipUri) else None
        if address is None or address.host != flow.remote.host or flow.transport != "tcp":
            return None
        return self._endpoint.transports.connect(address)

    async def reach(self, state: DialogState) -> Flow | None:
        """Another way to the peer of a dialog: the flow it has registered over since, else a new connection."""
        aor = self._plan.aor(NameAddr.parse(state.remote_uri).uri)
        if aor is not None:
            for binding in await self._registrar.bindings(aor):
                flow = self._registrar.flow_of(binding)
                same_phone = flow.remote.host == state.flow.remote.host
                if same_phone and flow.transport == state.flow.transport and self._endpoint.transports.alive(flow):
                    return flow
        return self.redialled(state.flow, state.next_hop)


def _request_uri(contact: Uri) -> str:
    """A contact as a Request-URI, which has no header fields of its own (RFC 3261 section 19.1.1)."""
    return str(replace(contact, headers=()) if isinstance(contact, SipUri) and contact.headers else contact)


def still_wanted(tx: ServerTransaction) -> bool:
    """False once the request was answered while we were looking something up: it was cancelled."""
    return tx.state in ("trying", "proceeding")
