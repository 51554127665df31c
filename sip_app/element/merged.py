"""Merged requests: the same one by two ways, of which one is enough (RFC 3261 section 8.2.2.2)."""

from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from sip_app.calls.incoming import Rejected
from sip_app.element.endpoint import SipEndpoint
from sip_app.element.passing import Name


class Merged:
    """Remembers the requests being served here."""

    def __init__(self, endpoint: SipEndpoint) -> None:
        self._passing = endpoint.passing

    def check(self, tx: ServerTransaction, request: Request) -> None:
        """Raises `Rejected` 482 if this is served already."""
        if self._passing.find(_name(request)) not in (None, tx):
            raise Rejected(482, "Merged Request")

    def serve(self, tx: ServerTransaction, request: Request) -> None:
        """The same, and from now on until its transaction is over it is being served."""
        self.check(tx, request)
        self._passing.add(tx, _name(request))


def _name(request: Request) -> Name:
    return request.call_id, request.from_.tag, request.cseq.number
