"""The called side of an INVITE: reliable provisional responses (RFC 3262) and the 2xx repeated until its ACK
(RFC 3261 section 13.3.1.4). Both are end to end, so they retransmit over TCP too.

`UasInvite` builds the responses and says when to send them; the user hands what `to_send()` gives to
`TransactionLayer.send_response`. `prack` is the calling side's answer to a reliable response.
"""

import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from protocols.sip.dialog import DialogState
from protocols.sip.headers import RAck
from protocols.sip.message import Request, Response, make_response
from protocols.sip.transaction import Timers


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The ACK for the 2xx came: the dialog is confirmed. `request` may carry the answer to an offer in the 2xx."""

    request: Request


@dataclass(frozen=True, slots=True)
class AckTimeout:
    """No ACK for 64*T1: the user sends BYE."""


@dataclass(frozen=True, slots=True)
class ProvisionalAcknowledged:
    """The PRACK for a reliable provisional response came."""

    response: Response
    request: Request


@dataclass(frozen=True, slots=True)
class ProvisionalTimeout:
    """No PRACK for 64*T1: the user rejects the INVITE with a 5xx."""

    response: Response


InviteEvent = Acknowledged | AckTimeout | ProvisionalAcknowledged | ProvisionalTimeout


class UasInvite:
    """One INVITE being answered. `rseq` is the first RSeq (random by default); times are seconds, monotonic."""

    def __init__(
        self, request: Request, local_tag: str, *, timers: Timers | None = None, rseq: int | None = None
    ) -> None:
        self.request = request
        self.local_tag = local_tag
        self.answered = False
        """True once a final response was asked for."""
        self._timers = timers or Timers()
        self._rseq = rseq or 1 + secrets.randbelow(2**30)
        self._unsent: deque[Response] = deque()
        self._pending: Response | None = None
        self._accept: Response | None = None
        self._interval = self._retry_at = self._give_up_at = 0.0
        self._out: list[Response] = []
        self._events: deque[InviteEvent] = deque()

    @property
    def can_be_reliable(self) -> bool:
        """Whether the caller supports or requires 100rel."""
        return "100rel" in self.request.supported or self.must_be_reliable

    @property
    def must_be_reliable(self) -> bool:
        """Whether the caller requires 100rel."""
        return "100rel" in self.request.required

    def provisional(
        self,
        now: float,
        status: int,
        reason: str | None = None,
        *,
        reliable: bool = False,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Response:
        """Send a 101-199. A reliable one is repeated until its PRACK, and waits while another is unacknowledged."""
        lines = list(headers)
        if reliable:
            lines += [("Require", "100rel"), ("RSeq", str(self._rseq))]
            self._rseq += 1
        response = self._make(status, reason, lines, body, content_type)
        if not reliable:
            self._out.append(response)
        elif self._pending is None:
            self._send_reliable(response, now)
        else:
            self._unsent.append(response)
        return response

    def accept(
        self,
        now: float,
        status: int = 200,
        reason: str | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Response:
        """Send a 2xx and repeat it until its ACK. It waits for the PRACK of a response that carried a body."""
        response = self._make(status, reason, headers, body, content_type)
        self.answered = True
        self._accept = response
        if not any(waiting.body for waiting in (self._pending, *self._unsent) if waiting is not None):
            self._send_accept(now)
        return response

    def reject(self, status: int, reason: str | None = None, *, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """Send a 300-699; the transaction repeats it. All that still waited is dropped."""
        response = self._make(status, reason, headers, b"", None)
        self.answered = True
        self._unsent.clear()
        self._stop()
        self._accept = None
        self._out.append(response)
        return response

    def receive_prack(self, request: Request, now: float) -> bool:
        """Take a PRACK of this dialog. True: answer it 200; False: it matches nothing, 481. Raises SipParseError."""
        pending, rack = self._pending, request.rack
        cseq = self.request.cseq
        if pending is None or rack != RAck(pending.rseq or 0, cseq.number, cseq.method):
            return False
        self._stop()
        self._events.append(ProvisionalAcknowledged(pending, request))
        if self._unsent:
            self._send_reliable(self._unsent.popleft(), now)
        elif self._accept is not None:
            self._send_accept(now)
        return True

    def receive_ack(self, request: Request) -> bool:
        """Take an ACK of this dialog. False if it is not the first for our 2xx."""
        unsent = self._accept is None or self._pending is not None
        if unsent or not self._give_up_at or request.cseq.number != self.request.cseq.number:
            return False
        self._stop()
        self._accept = None
        self._events.append(Acknowledged(request))
        return True

    def to_send(self) -> list[Response]:
        """Take the responses to be sent now."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> InviteEvent | None:
        """Take the next event, or None."""
        return self._events.popleft() if self._events else None

    def next_timer(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        return min(self._retry_at, self._give_up_at) if self._give_up_at else None

    def handle_timer(self, now: float) -> None:
        """Repeat, or give up, what is due at `now`."""
        if not self._give_up_at:
            return
        waiting = self._pending or self._accept
        if now >= self._give_up_at and waiting is not None:
            self._stop()
            if waiting is self._accept:
                self._accept = None
                self._events.append(AckTimeout())
            else:
                self._events.append(ProvisionalTimeout(waiting))
        elif now >= self._retry_at and waiting is not None:
            self._out.append(waiting)
            self._interval *= 2
            if waiting is self._accept:
                self._interval = min(self._interval, self._timers.t2)
            self._retry_at = now + self._interval

    def _make(
        self,
        status: int,
        reason: str | None,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        content_type: str | None,
    ) -> Response:
        return make_response(
            self.request,
            status,
            reason,
            to_tag=self.local_tag,
            headers=headers,
            body=body,
            content_type=content_type,
        )

    def _send_reliable(self, response: Response, now: float) -> None:
        self._pending = response
        self._start(response, now)

    def _send_accept(self, now: float) -> None:
        self._unsent.clear()
        self._pending = None
        if self._accept is not None:
            self._start(self._accept, now)

    def _start(self, response: Response, now: float) -> None:
        self._out.append(response)
        self._interval = self._timers.t1
        self._retry_at = now + self._interval
        self._give_up_at = now + self._timers.timeout

    def _stop(self) -> None:
        self._pending = None
        self._give_up_at = 0.0


def prack(dialog: DialogState, response: Response) -> tuple[DialogState, Request]:
    """The PRACK for a reliable provisional response in its early dialog, and the state after it."""
    rack = RAck(response.rseq or 0, response.cseq.number, response.cseq.method)
    return dialog.request("PRACK", headers=[("RAck", str(rack))])
