"""The stateful proxy (RFC 3261 section 16): builds the request each target gets; what comes back is `fork`'s.

Timer C is the transaction layer's. Loops are caught by a request that passes here a second time unchanged (RFC 5393).
P-Asserted-Identity and the whole of History-Info go to trusted peers only (RFC 3325, RFC 7044 section 10).
"""

from collections.abc import Callable
from dataclasses import dataclass

from protocols.net import Flow
from protocols.sip.events import ServerTransaction
from protocols.sip.headers import DiversionEntry, HistoryEntry
from protocols.sip.message import Headers, Request
from sip_app.access.admission import Admission
from sip_app.calls.incoming import Caller, Rejected
from sip_app.diversion.history import diversion_lines, history_lines, wants_privacy
from sip_app.element.endpoint import SipEndpoint
from sip_app.proxy.fork import Fork, ForkUser
from sip_app.proxy.routes import RouteSigner, record_routes

MAX_FORWARDS = 70
_DIALOG_MAKERS = frozenset(("INVITE", "SUBSCRIBE", "REFER"))


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """One place a request is sent to: Request-URI, flow, the routes it takes, and the call's history as it gets it.

    `others` are tried in turn when this one fails: more flows of the same phone (RFC 5626), more hosts of the same
    domain (RFC 3263).
    """

    uri: str
    flow: Flow
    routes: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    diversions: tuple[DiversionEntry, ...] = ()
    others: tuple["ProxyTarget", ...] = ()
    named: str = ""
    """The URI To shall hold on this side, where whom the caller called must not show; "" for what the caller wrote."""


def one_hop_less(request: Request) -> Headers:
    """The headers with Max-Forwards counted down. Raises `Rejected` 483."""
    left = request.max_forwards
    if left == 0:
        raise Rejected(483)
    return request.headers.with_("Max-Forwards", str(MAX_FORWARDS if left is None else left - 1))


class Proxy:
    """Forwards requests; what it must remember lives as long as their transactions."""

    def __init__(self, endpoint: SipEndpoint, admission: Admission, signer: RouteSigner) -> None:
        self.endpoint = endpoint
        self._admission = admission
        self._signer = signer

    def check_loop(self, tx: ServerTransaction, request: Request) -> None:
        """Remember that this request passes; raises `Rejected` 482 if it came round while it still did."""
        name = request.call_id, request.from_.tag, request.cseq.number, request.method, request.uri
        known = self.endpoint.passing.find(name)
        if known is not None and known is not tx:
            own = {listener.shown for listener in self.endpoint.transports.listeners}
            if any(via.sent_by in own for via in request.vias[1:]):
                raise Rejected(482)
            return
        self.endpoint.passing.add(tx, name)

    def trusts(self, flow: Flow) -> bool:
        """True for the flow of a trusted peer."""
        return self._admission.trusted(flow.remote.host)

    def came_through_edge(self, flow: Flow) -> bool:
        """True for the flow of an edge proxy of ours."""
        return self._admission.edge(flow.remote.host)

    def forward(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller | None,
        targets: list[ProxyTarget],
        *,
        record: bool,
        user: ForkUser | None = None,
        patience: float | None = None,
        concluded: Callable[[int], object] | None = None,
    ) -> None:
        """Send the request to all targets. `caller` is asserted to trusted ones; `record` keeps us in its dialog.

        `user` hears first when nobody answers, or none within `patience` seconds of the first ringing; `concluded`,
        which final status the caller got. Raises
        `Rejected`: 420 for anything that is asked of proxies, 483.
        """
        if tx.answered:  # it was cancelled
            return
        if "proxy-require" in request.headers:
            raise Rejected(420, headers=(("Unsupported", ", ".join(request.headers.all("proxy-require"))),))
        headers = one_hop_less(request).without("proxy-authorization")
        fork = Fork(self.endpoint, tx, user, patience, concluded)
        outgoing = [
            [
                (self._outgoing(tx, request, headers, caller, way, record=record), way.flow)
                for way in (target, *target.others)
            ]
            for target in targets
        ]
        fork.start(outgoing)

    def _outgoing(
        self,
        tx: ServerTransaction,
        request: Request,
        headers: Headers,
        caller: Caller | None,
        target: ProxyTarget,
        *,
        record: bool,
    ) -> Request:
        trusted = self.trusts(target.flow)
        if "p-asserted-identity" in headers:
            headers = headers.without("p-asserted-identity")
        if trusted and caller is not None and caller.authenticated:
            headers = headers.add(("P-Asserted-Identity", f"<sip:{caller.aor}>"))
        if record and request.method in _DIALOG_MAKERS:
            token = self._signer.token(request, tx.flow, target.flow, target.named)
            shown = self.endpoint.via_address
            sides = (tx.flow, shown(tx.flow)), (target.flow, shown(target.flow))
            for value in reversed(record_routes(token, *sides)):
                headers = headers.prepend("Record-Route", value)
        if target.named:
            headers = headers.with_("To", f"<{target.named}>")
        for route in reversed(target.routes):
            headers = headers.prepend("Route", route)
        if target.history or target.diversions:
            hidden = wants_privacy(request)
            lines = history_lines(target.history, trusted=trusted, hidden=hidden)
            lines += diversion_lines(target.diversions, trusted=trusted)
            headers = headers.without("history-info", "diversion").add(*lines)
        return Request(request.method, target.uri, headers, request.body)
