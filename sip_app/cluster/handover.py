"""Calls handed over to the application server that holds the broadcast they are about.

Several servers share one store (`sip_app.cluster.nodes`). The one a call reaches has asked who calls and followed the
diversions; it tells the other in a Route entry (RFC 3261 section 20.34) that only a server with the same store can have
signed, for this very request, that server and a short time; it is good once. So nobody is asked for a password twice,
and no address is trusted.
"""

import json
import time
from dataclasses import dataclass, replace

from protocols.net import Address, Flow
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from protocols.sip.uri import SipUri
from sip_app.access.quotas import Quotas
from sip_app.calls.incoming import Caller, Rejected
from sip_app.proxy.forwarding import Proxy, ProxyTarget
from sip_app.proxy.routes import Seal
from sip_app.transport import Transports

PREFIX = "handed-over."
LIFETIME = 30.0
"""Seconds in which a call handed over must arrive; the servers' clocks may differ by less than that."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What the other server found out about a call to a service number.

    `channel` is the number that diverted it here, None for going live. `back` is the way of all that follows in its
    dialog, for a caller behind an edge proxy; None leads through the other server.
    """

    caller: Caller
    channel: str | None
    service: str
    back: Flow | None = None


class Handover:
    """Sends calls to other servers and reads what comes of them. `key` is a secret of the store."""

    def __init__(self, key: bytes, transports: Transports, proxy: Proxy, quotas: Quotas) -> None:
        self._seal = Seal(key)
        self._transports = transports
        self._proxy = proxy
        self._quotas = quotas
        self.address: Address | None = None
        """Where the others send to; None while there are none."""
        self._taken: dict[str, float] = {}
        """Entries that were used, until they would be too old anyway; only servers of ours can write them."""

    def send(self, tx: ServerTransaction, request: Request, handed: HandedOver, to: Address) -> None:
        """Have the server at `to` answer the call.

        What follows in its dialog comes through us only if nobody else stands between the caller and that server; else
        the call is counted here no longer than until it is answered.
        """
        behind_edge = tx.flow.transport == "udp" and self._proxy.came_through_edge(tx.flow)
        if behind_edge:
            handed = replace(handed, back=replace(tx.flow, local=to))
        target = ProxyTarget(request.uri, self._transports.udp_flow(to), (self.route(request, handed, to),))
        concluded = (lambda _: self._quotas.departs(tx)) if behind_edge else None
        self._proxy.forward(tx, request, None, [target], record=not behind_edge, concluded=concluded)

    def route(self, request: Request, handed: HandedOver, to: Address) -> str:
        """The Route entry that hands `request` over to the server at `to`."""
        caller, back = handed.caller, handed.back
        way = None if back is None else (back.transport, *back.local, *back.remote)
        who = (caller.aor, caller.number, caller.authenticated, *caller.client_address)
        text = json.dumps((who, handed.channel, handed.service, way, time.time() + LIFETIME), separators=(",", ":"))
        return f"<{SipUri(to.host, PREFIX + self._seal.close(text, _of(request, to)), to.port)};lr>"

    def read(self, request: Request) -> tuple[Request, HandedOver] | None:
        """What the topmost Route entry tells, and the request without it; None if it is not one of these."""
        routes = request.routes
        if not routes or not isinstance(top := routes[0].uri, SipUri):
            return None
        user = top.user or ""
        if not user.startswith(PREFIX) or self.address is None:
            return None
        text = self._seal.open(user.removeprefix(PREFIX), _of(request, self.address))
        if text is None:
            return None
        (aor, number, authenticated, host, port), channel, service, way, until = json.loads(text)
        if time.time() > until:
            return None
        back = None
        if way is not None:
            transport, local_host, local_port, remote_host, remote_port = way
            back = Flow(transport, Address(local_host, local_port), Address(remote_host, remote_port))
        caller = Caller(aor, number, authenticated, Address(host, port))
        headers = request.headers.with_("Route", *(str(route) for route in routes[1:]))
        return replace(request, headers=headers), HandedOver(caller, channel, service, back)

    def take(self, request: Request) -> None:
        """Use the topmost Route entry, once `read` has believed it. Raises `Rejected` 482 if it was used before."""
        now, uri = time.time(), request.routes[0].uri
        entry = uri.user or "" if isinstance(uri, SipUri) else ""
        while self._taken and next(iter(self._taken.values())) < now:
            del self._taken[next(iter(self._taken))]
        if entry in self._taken:
            raise Rejected(482, "Handed Over Already")
        self._taken[entry] = now + 2 * LIFETIME


def _of(request: Request, to: Address) -> str:
    return f"{request.call_id}|{request.cseq}|{request.from_.tag}|{to}"
