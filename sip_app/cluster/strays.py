"""Requests in dialogs that another server on our store holds, or held.

They come here when an edge proxy finds their server silent. If that lives they go on to it; if it is dead, whoever goes
on with its broadcasts has their dialogs.
"""

from collections.abc import Callable

from protocols.net import Flow
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from sip_app.access.admission import Admitted
from sip_app.calls.incoming import Rejected
from sip_app.cluster.nodes import Cluster, Survivor
from sip_app.ports import Dialogs
from sip_app.proxy.forwarding import Proxy, ProxyTarget

Serve = Callable[[ServerTransaction, Request, Flow], None]


class Strays:
    """`serve` is the beginning of a request's way through this server."""

    def __init__(self, dialogs: Dialogs, cluster: Cluster, survivor: Survivor, proxy: Proxy, serve: Serve) -> None:
        self._dialogs = dialogs
        self._cluster = cluster
        self._survivor = survivor
        self._proxy = proxy
        self._serve = serve

    async def find(self, tx: ServerTransaction, admitted: Admitted) -> None:
        """Send the request where its dialog is. Raises `Rejected` 481 if there is none, 503 until that is settled."""
        request = admitted.request
        stored = await self._dialogs.find(request.to.tag)
        if stored is None:
            raise Rejected(481)
        # The edge found it silent just now: what was heard of it before that says nothing.
        lives = await self._cluster.lives(stored.as_id)
        owner = self._cluster.address_of(stored.as_id)
        if owner is not None and lives:
            way = self._proxy.endpoint.transports.udp_flow(owner)
            self._proxy.forward(tx, request, None, [ProxyTarget(request.uri, way)], record=False)
            return
        await self._survivor.take_over(stored.as_id)
        after = await self._dialogs.find(request.to.tag)
        if after is None or not after.group_id:  # one of no broadcast (a PIN was being asked) nobody goes on with
            raise Rejected(481)
        if after.as_id == stored.as_id:
            raise Rejected(503, headers=(("Retry-After", "2"),))
        self._serve(tx, request, admitted.flow)
