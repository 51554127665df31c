"""Runs one INVITE being answered: sends what `UasInvite` wants sent, keeps its timer, tells what becomes of it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.invite import InviteEvent, UasInvite
from protocols.sip.message import Request, make_response

if TYPE_CHECKING:
    from sip_app.element.endpoint import SipEndpoint


class InviteServer:
    """The shell of one `UasInvite`: call `flush` after each step taken on `invite`."""

    def __init__(
        self,
        endpoint: "SipEndpoint",
        tx: ServerTransaction,
        local_tag: str,
        on_event: Callable[[InviteEvent], None],
    ) -> None:
        self.tx = tx
        self.invite = UasInvite(tx.request, local_tag, timers=endpoint.timers)
        self._endpoint = endpoint
        self._on_event: Callable[[InviteEvent], None] | None = on_event
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def flush(self) -> None:
        """Send what is waiting, hand on what happened, set the timer."""
        for response in self.invite.to_send():
            self._endpoint.respond(self.tx, response)
        while (event := self.invite.next_event()) is not None:
            if self._on_event is not None:
                self._on_event(event)
        at = self.invite.next_timer()
        if at is None:
            self._stop()
        elif at != self._timer_at:
            self._stop()
            self._timer_at = at
            self._timer = self._endpoint.loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, 0.0
        self.invite.handle_timer(self._endpoint.loop.time())
        self.flush()

    def receive_ack(self, request: Request) -> None:
        """An ACK of this dialog came."""
        self.invite.receive_ack(request)
        self.flush()

    def answer_prack(self, tx: ServerTransaction, request: Request) -> None:
        """A PRACK of this dialog came: 200, 481 if it matches nothing, 400 if it does not say what it is for."""
        try:
            status = 200 if self.invite.receive_prack(request, self._endpoint.loop.time()) else 481
        except SipParseError:
            status = 400
        self._endpoint.respond(tx, make_response(request, status))
        self.flush()

    def close(self) -> None:
        """Nothing more is to come of it: nobody is told, so that nothing holds the call."""
        self._stop()
        self._on_event = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, 0.0
