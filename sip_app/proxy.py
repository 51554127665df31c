"""The stateful proxy (RFC 3261 section 16): forks a request to its targets, and sends back the best that comes.

INVITE goes to all contacts at once; the first 2xx wins and the others are cancelled; 6xx ends the search. Timer C is
the transaction layer's. Loops are caught by a request that passes here a second time unchanged (RFC 5393).
"""

from dataclasses import dataclass
from functools import partial

from protocols.net import Flow
from protocols.sip.events import ClientTransaction, ServerTransaction
from protocols.sip.headers import Reason
from protocols.sip.message import Headers, Request, Response, make_response
from sip_app.admission import Admission
from sip_app.calls import Caller, Rejected
from sip_app.dialogs import new_tag
from sip_app.endpoint import SipEndpoint
from sip_app.routes import RouteSigner, record_routes

MAX_FORWARDS = 70
_DIALOG_MAKERS = frozenset(("INVITE", "SUBSCRIBE", "REFER"))
_PREFERRED_4XX = (401, 407, 415, 420, 484)
_ANSWERED_ELSEWHERE = (("Reason", str(Reason("SIP", 200, "Call completed elsewhere"))),)

LoopKey = tuple[str, str, int, str, str]


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """One place a request is sent to: Request-URI, flow, the routes it takes, header lines only it gets."""

    uri: str
    flow: Flow
    routes: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


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
        self._passing: dict[LoopKey, ServerTransaction] = {}

    def check_loop(self, tx: ServerTransaction, request: Request) -> None:
        """Remember that this request passes; raises `Rejected` 482 if it came round while it still did."""
        key = (request.call_id, request.from_.tag, request.cseq.number, request.method, request.uri)
        known = self._passing.get(key)
        if known is not None and known is not tx:
            own = {address for _, address in self.endpoint.addresses}
            if any(via.sent_by in own for via in request.vias[1:]):
                raise Rejected(482)
            return
        self._passing[key] = tx
        self.endpoint.at_end(tx, partial(self._passing.pop, key, None))

    def forward(
        self,
        tx: ServerTransaction,
        request: Request,
        caller: Caller | None,
        targets: list[ProxyTarget],
        *,
        record: bool,
    ) -> None:
        """Send the request to all targets. `caller` is asserted to trusted ones; `record` keeps us in its dialog."""
        headers = one_hop_less(request).without("proxy-authorization")
        fork = Fork(self.endpoint, tx)
        if request.method == "INVITE":
            self.endpoint.cancellable[tx] = fork.give_up
        outgoing = [
            (self._outgoing(tx, request, headers, caller, target, record=record), target.flow) for target in targets
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
        trusted = self._admission.trusted(target.flow.remote.host)
        if "p-asserted-identity" in headers:
            headers = headers.without("p-asserted-identity")
        if trusted and caller is not None and caller.authenticated:
            headers = headers.add(("P-Asserted-Identity", f"<sip:{caller.aor}>"))
        if record and request.method in _DIALOG_MAKERS:
            token = self._signer.token(request, tx.flow, target.flow)
            shown = self.endpoint.via_address
            sides = (tx.flow, shown(tx.flow)), (target.flow, shown(target.flow))
            for value in reversed(record_routes(token, *sides)):
                headers = headers.prepend("Record-Route", value)
        for route in reversed(target.routes):
            headers = headers.prepend("Route", route)
        if target.headers:
            lines = [line for line in target.headers if trusted or line[0] != "Diversion"]
            headers = headers.without(*{name for name, _ in lines}).add(*lines)
        return Request(request.method, target.uri, headers, request.body)


class Fork:
    """The response context of one forwarded request (section 16.7)."""

    def __init__(self, endpoint: SipEndpoint, tx: ServerTransaction) -> None:
        self._endpoint = endpoint
        self._tx = tx
        self._pending: set[ClientTransaction] = set()
        self._best: Response | None = None
        self._done = False
        self._given_up = False

    def start(self, outgoing: list[tuple[Request, Flow]]) -> None:
        """Send every branch."""
        for request, flow in outgoing:
            self._pending.add(self._endpoint.send(request, flow, self))
        self._endpoint.pump()

    def give_up(self) -> None:
        """The caller sent CANCEL: cancel what has no final answer; the 487 comes from there."""
        self._given_up = True
        self._cancel_pending(())

    def _cancel_pending(self, headers: tuple[tuple[str, str], ...]) -> None:
        if self._tx.request.method == "INVITE":
            for branch in list(self._pending):
                self._endpoint.cancel(branch, headers)

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        """A branch answered."""
        status = response.status
        if status == 100:
            return
        if "via" in response.headers:
            headers = response.headers.with_first("Via", None)
            response = Response(status, response.reason, headers, response.body)
        else:
            response = make_response(self._tx.request, 408 if status == 408 else 480, to_tag=new_tag())
        if status < 200:
            if not self._done:
                self._endpoint.respond(self._tx, response)
            return
        self._pending.discard(tx)
        if status < 300:
            if not self._done or self._tx.request.method == "INVITE":
                self._done = True
                self._endpoint.respond(self._tx, response)
                self._cancel_pending(_ANSWERED_ELSEWHERE)
            return
        if self._done:
            return
        if self._best is None or _rank(response.status) < _rank(self._best.status):
            self._best = response
        if status >= 600:
            self._cancel_pending(())
        if not self._pending:
            self._done = True
            self._endpoint.respond(self._tx, self._final(self._best))

    def _final(self, best: Response) -> Response:
        if self._given_up and best.status != 487:
            return make_response(self._tx.request, 487, to_tag=new_tag())
        if best.status == 503:
            return Response(500, "Server Internal Error", best.headers.without("retry-after"), best.body)
        return best


def _rank(status: int) -> tuple[int, int]:
    """How good a final response is (section 16.7 step 6), smaller is better: 6xx first, then the lowest class."""
    if status >= 600:
        return 0, 0
    group = status // 100
    if group == 4:
        return 4, 0 if status in _PREFERRED_4XX else 2 if status in (408, 480, 487) else 1
    return group, 0
