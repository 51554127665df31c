"""Who uses the endpoint: whoever sent a request and hears what becomes of it; the pipeline that serves new ones."""

import asyncio
from typing import Protocol

from protocols.net import Flow
from protocols.sip.dialog import DialogState
from protocols.sip.errors import SipParseError
from protocols.sip.events import ClientTransaction, ServerTransaction
from protocols.sip.message import Request, Response
from sip_app.calls.capabilities import Rejected


class ClientUser(Protocol):
    """Whoever sent a request: hears what becomes of it. Timeouts come as 408, transport failures as 503."""

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        """A response; after a final one to anything but INVITE nothing more follows."""
        ...


class Pipeline(Protocol):
    """Who serves what the endpoint cannot answer from its own dialogs."""

    def asks(self, request: Request, flow: Flow) -> Rejected | None:
        """The challenge for a request outside dialogs that cannot be served as it is; None if it can, or has to."""
        ...

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A new request."""
        ...

    def on_ack(self, request: Request, flow: Flow) -> None:
        """An ACK for a 2xx that is not of a dialog here."""
        ...

    async def reach(self, state: DialogState) -> Flow | None:
        """Another way to the peer of a dialog whose flow is gone."""
        ...


def refusal_for(work: "asyncio.Task[None]") -> Rejected | None:
    """The answer to a request whose service ended without one; None if it ended well."""
    if work.cancelled():
        return Rejected(503)
    match work.exception():
        case Rejected() as refusal:
            return refusal
        case SipParseError() as error:
            return Rejected(400, f"Bad Request ({error})")
        case OSError():
            # Not 503: with that an edge proxy would try the next server, which has the same database.
            return Rejected(500, "Database Unavailable", (("Retry-After", "2"),))
        case None:
            return None
    return Rejected(500)


class Waiter:
    """One request of ours whose final response somebody awaits."""

    def __init__(self, answered: "asyncio.Future[Response]") -> None:
        self._answered = answered

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        if response.status >= 200 and not self._answered.done():
            self._answered.set_result(response)
