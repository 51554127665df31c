"""Requests within dialogs between others, which our Record-Route brought here (RFC 3261 section 16.12)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from protocols.sip.uri import SipUri
from sip_app.access.admission import Admitted
from sip_app.access.quotas import Quotas
from sip_app.bounds import make_room
from sip_app.calls.incoming import Rejected
from sip_app.cluster.strays import Strays
from sip_app.element.endpoint import SipEndpoint
from sip_app.proxy.forwarding import Proxy, ProxyTarget, one_hop_less
from sip_app.proxy.onward import Onward
from sip_app.proxy.routes import DialogRoute, RouteSigner, without_own_routes

MAX_OVER = 20_000
"""Calls remembered as over, so that neither side reaches the other any more; beyond it the oldest are forgotten."""

DialogName = tuple[str, str, str]
"""Call-ID and both tags, in the order of the alphabet: it is the same from either side. Its hash, which nobody outside
can foresee, is what is remembered: a tenth of the memory."""


class Between:
    """Passes them on to the other side of their dialog, and nowhere else."""

    def __init__(
        self,
        endpoint: SipEndpoint,
        proxy: Proxy,
        onward: Onward,
        signer: RouteSigner,
        names_us: Callable[[SipUri], bool],
        quotas: Quotas,
    ) -> None:
        self._endpoint = endpoint
        self._proxy = proxy
        self._onward = onward
        self._signer = signer
        self._names_us = names_us
        self._quotas = quotas
        self.strays: Strays | None = None
        """Knows the dialogs of other servers on our store."""
        self._over: dict[int, None] = {}

    async def serve(self, tx: ServerTransaction, admitted: Admitted) -> None:
        """Any request but ACK. Raises `Rejected` 481 where no Record-Route of ours leads on."""
        request, route = without_own_routes(admitted.request, self._names_us, self._signer)
        name = _dialog(request)
        if hash(name) in self._over:
            raise Rejected(481)
        if route is None:
            if self.strays is None:
                raise Rejected(481)
            await self.strays.find(tx, admitted)
            return
        ended = partial(self._ended, name) if request.method == "BYE" else None
        # What an INVITE recorded stays as it is, and a second entry would not know the names.
        target = self._next(request, route)
        self._proxy.forward(tx, route.renamed(request), None, [target], record=route.names is None, concluded=ended)

    def _ended(self, name: DialogName, status: int) -> None:
        """A BYE was answered: the call counts no longer, and nothing of it goes to anybody any more.

        Nor does it where the other side was silent, but that call counts on: it might be alive.
        """
        call_id, *tags = name
        if status < 300 or status == 481:
            for caller_tag in tags:
                self._quotas.end((call_id, caller_tag))
        elif status != 408:
            return
        make_room(self._over, MAX_OVER)
        self._over[hash(name)] = None

    def forward_ack(self, request: Request) -> None:
        """An ACK: passed on without a transaction, or dropped."""
        try:
            request, route = without_own_routes(request, self._names_us, self._signer)
            if route is not None and hash(_dialog(request)) not in self._over:
                target = self._next(request, route)
                request = replace(request, headers=one_hop_less(request))
                self._endpoint.send_stateless(route.renamed(request), target.flow)
        except (SipParseError, Rejected):
            return  # nobody answers an ACK

    def _next(self, request: Request, route: DialogRoute) -> ProxyTarget:
        flow = route.onward(request)
        if not self._endpoint.transports.alive(flow):
            uri = str(request.routes[0].uri) if request.routes else request.uri
            flow = self._onward.redialled(flow, uri) or flow
        return ProxyTarget(request.uri, flow)


def _dialog(request: Request) -> DialogName:
    one, other = sorted((request.from_.tag, request.to.tag))
    return request.call_id, one, other
