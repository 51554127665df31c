"""Who uses the endpoint: whoever sent a request and hears what becomes of it; the pipeline that serves new ones."""

import asyncio
from typing import Protocol

from protocols.net import Flow
from protocols.sip.dialog import DialogState
from protocols.sip.events import ClientTransaction, ServerTransaction
from protocols.sip.message import Request, Response


class ClientUser(Protocol):
    """Whoever sent a request: hears what becomes of it. Timeouts come as 408, transport failures as 503."""

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        """A response; after a final one to anything but INVITE nothing more follows."""
        ...


class Pipeline(Protocol):
    """Who serves what the endpoint cannot answer from its own dialogs."""

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A new request."""
        ...

    def on_ack(self, request: Request, flow: Flow) -> None:
        """An ACK for a 2xx that is not of a dialog here."""
        ...

    async def reach(self, state: DialogState) -> Flow | None:
        """Another way to the peer of a dialog whose flow is gone."""
        ...


class Waiter:
    """One request of ours whose final response somebody awaits."""

    def __init__(self, answered: "asyncio.Future[Response]") -> None:
        self._answered = answered

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        if response.status >= 200 and not self._answered.done():
            self._answered.set_result(response)
