"""Merged requests: the same one by two ways, of which one is enough (RFC 3261 section 8.2.2.2)."""

from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from sip_app.calls.incoming import Rejected
from sip_app.element.endpoint import SipEndpoint


class Merged:
    """Remembers the requests being served here."""

    def __init__(self, endpoint: SipEndpoint) -> None:
        self._endpoint = endpoint
        self._served: dict[tuple[str, str, int], ServerTransaction] = {}

    def check(self, tx: ServerTransaction, request: Request) -> None:
        """Raises `Rejected` 482 if this is served already."""
        if self._served.get(_key(request), tx) is not tx:
            raise Rejected(482, "Merged Request")

    def serve(self, tx: ServerTransaction, request: Request) -> None:
        """The same, and from now on until its transaction is over it is being served."""
        self.check(tx, request)
        key = _key(request)
        self._served[key] = tx
        self._endpoint.at_end(tx, lambda: self._served.pop(key, None))


def _key(request: Request) -> tuple[str, str, int]:
    return request.call_id, request.from_.tag, request.cseq.number
