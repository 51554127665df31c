"""Calls as the service logic sees them: an INVITE it may answer, and the dialog that comes of it (RFC 3261 section 13).

Everything here runs in the event loop's thread; nothing blocks. The wire is the endpoint's business.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from protocols.net import Address, Flow
from protocols.sip.dialog import DialogId, uas_dialog
from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.invite import InviteEvent, ProvisionalAcknowledged, ProvisionalTimeout
from protocols.sip.message import Request, make_response
from sip_app.access.guard import place_of
from sip_app.calls.capabilities import (
    ALLOW,
    CALL_CAPABILITIES,
    EARLY_METHODS,
    SUPPORTED_TEXT,
    HeaderList,
    Rejected,
    check_required,
    not_allowed,
    offer_in,
)
from sip_app.calls.dialogs import Dialog, DialogHandler, new_tag
from sip_app.calls.invite_server import InviteServer
from sip_app.calls.session import retry_after, session_of

if TYPE_CHECKING:
    from sip_app.element.endpoint import SipEndpoint

__all__ = ["BroadcastService", "CallGone", "Caller", "Dialog", "DialogHandler", "HeaderList", "IncomingCall"]
__all__ += ["Rejected"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as authenticated: never taken from the From header field."""

    aor: str
    number: str
    authenticated: bool
    client_address: Address

    @property
    def key(self) -> str:
        """What to count this caller by: the address of record; for a stranger, who has none, the host called from
        (an IPv6 one by its /64)."""
        return self.aor if self.authenticated else place_of(self.client_address.host)


class CallGone(Exception):
    """The caller hung up, or its transaction died, before the final answer."""


OverlayOutcome = Literal["active", "no broadcast", "too early or too late"]


class BroadcastService(Protocol):
    """The service behind the service number. Each call is answered or rejected by these before they return."""

    async def go_live(self, call: "IncomingCall") -> None:
        """The service number was dialled, not diverted: the caller wants to provide a stream."""
        ...

    async def open_to_guests(self, channel: str) -> bool:
        """True if a caller nobody has identified may watch `channel`; else it is asked who it is before `watch`."""
        ...

    async def watch(self, call: "IncomingCall", channel: str) -> None:
        """The call was diverted to the service number by `channel` (an address of record): the caller watches it."""
        ...

    async def holder(self, channel: str) -> Address | None:
        """Where another server listens that holds the channel's broadcast, and so its calls; None for none."""
        ...

    async def activate_overlay(self, channel: str) -> OverlayOutcome:
        """Put the broadcast's forwarding above the subscriber's own, if its group is open; durable on return."""
        ...


class IncomingCall:
    """One INVITE for which we are the user agent server.

    `offer` is the raw SDP body, `diverted_by` the address of record that diverted the call here, `service` that of the
    service number it reached. `ended` is set when the caller gave up or its transaction died before the final answer.
    """

    def __init__(
        self,
        endpoint: "SipEndpoint",
        tx: ServerTransaction,
        request: Request,
        caller: Caller,
        diverted_by: str | None = None,
        service: str = "",
        flow: Flow | None = None,
    ) -> None:
        """`flow` is the way of what follows in the dialog where that is not the way of the INVITE."""
        self._session, self._timer_headers = session_of(request, endpoint.session_expires, endpoint.min_se)
        self.request = request
        self.flow = flow or tx.flow
        self.caller = caller
        self.offer = offer_in(request)
        self.diverted_by = diverted_by
        self.service = service
        self.ended = asyncio.Event()
        self.local_tag = new_tag()
        self._endpoint = endpoint
        self._server = InviteServer(endpoint, tx, self.local_tag, self._on_event)
        endpoint.calls[tx] = self
        self._dialog: Dialog | None = None
        self._pracks: dict[int, asyncio.Future[None]] = {}
        self._sdp = b""
        self._updated: Request | None = None
        self._answered = False

    @property
    def id(self) -> DialogId:
        """The early dialog's identity."""
        return self.request.call_id, self.local_tag, self.request.from_.tag

    @property
    def cancelled(self) -> bool:
        """True once the caller gave up or its transaction died before the final answer."""
        return self.ended.is_set()

    def contact(self, user: str, params: str = "") -> str:
        """A Contact of ours on the way this call came, with a user part and more URI parameters (`;name=value`)."""
        return self._endpoint.contact(self.flow, user, params, secure=self.request.uri[:5].lower() == "sips:")

    async def progress(
        self,
        status: int,
        reason: str | None = None,
        *,
        body: bytes = b"",
        content_type: str = "application/sdp",
        contact: str | None = None,
        headers: HeaderList = (),
        reliable: bool = False,
    ) -> None:
        """Send a provisional answer; a reliable one returns after its PRACK. Raises `CallGone`.

        Reliable is only possible if the caller supports 100rel, and is forced if it requires that.
        """
        self._check()
        invite = self._server.invite
        reliable = invite.must_be_reliable or (reliable and invite.can_be_reliable)
        if reliable and not (self.offer or body):
            return  # the first reliable answer to an INVITE without an offer must bring ours (RFC 3262 section 5)
        self._sdp = body or self._sdp
        response = invite.provisional(
            self._endpoint.loop.time(),
            status,
            reason,
            reliable=reliable,
            headers=[("Contact", contact or self.contact("")), ("Allow", ALLOW), *headers],
            body=body,
            content_type=content_type if body else None,
        )
        if not reliable:
            self._server.flush()
            return
        pracked = self._pracks[response.rseq or 0] = self._endpoint.loop.create_future()
        self._server.flush()
        await pracked
        self._check()

    async def answer(
        self,
        *,
        body: bytes = b"",
        contact: str | None = None,
        headers: HeaderList = (),
        app: Mapping[str, str] | None = None,
        lasting: bool = True,
    ) -> Dialog:
        """Accept: the dialog is durable before the 200 leaves; returns once it is sent. Raises `CallGone`.

        One that is not `lasting`, as it ends with its ACK, is not stored. Raises `Rejected` for an INVITE nobody can be
        in a dialog with (no Contact, too short a session timer).
        """
        self._check()
        endpoint = self._endpoint
        contact = contact or self.contact("")
        try:
            state = uas_dialog(self.request, self.local_tag, contact, self.flow)
        except SipParseError as error:
            raise Rejected(400, f"Bad Request ({error})") from error
        if self._updated is not None:
            state = state.received(self._updated)
        interval, we_refresh = self._session
        state = replace(state, app=dict(app or {}), session_interval=interval, session_we_refresh=we_refresh)
        dialog = Dialog(endpoint, state, self._server, lasting=lasting)
        dialog.sdp = body or self._sdp
        if we_refresh and dialog.sdp and "UPDATE" not in self.request.allowed:
            dialog.session.keep(dialog.sdp)
        await endpoint.save(dialog)
        if self.cancelled or self._answered:  # meanwhile it was given up, or refused by the service
            endpoint.forget(dialog)
            raise CallGone
        self._answered = True
        self._dialog = dialog
        endpoint.dialogs[state.id] = dialog
        endpoint.early.pop(self.id, None)
        lines = [("Contact", contact), ("Allow", ALLOW), ("Supported", SUPPORTED_TEXT), *self._timer_headers, *headers]
        content_type = "application/sdp" if body else None
        self._server.invite.accept(endpoint.loop.time(), headers=lines, body=body, content_type=content_type)
        if body and not self.offer:
            dialog.session.offered()
        self._server.flush()
        dialog.session.watch()
        return dialog

    def reject(self, status: int, reason: str | None = None, headers: HeaderList = ()) -> None:
        """Refuse. Idempotent; without effect after a final answer."""
        if self._answered:
            return
        self._answered = True
        self._server.invite.reject(status, reason, headers=headers)
        self._server.flush()
        self._close()

    def _check(self) -> None:
        if self.cancelled or self._answered:
            raise CallGone

    def _close(self) -> None:
        """No dialog will come of it."""
        self._server.close()
        self._endpoint.early.pop(self.id, None)
        for waiting in self._pracks.values():
            if not waiting.done():
                waiting.set_result(None)

    # What the endpoint hands in

    def cancel(self) -> None:
        """The caller sent CANCEL (or BYE): 487, unless already answered."""
        if not self._answered:
            self.ended.set()
            self.reject(487)

    def lost(self) -> None:
        """The INVITE's transaction died."""
        if not self._answered:
            self._answered = True
            self.ended.set()
            self._close()

    def receive(self, tx: ServerTransaction, request: Request) -> None:
        """A request within the early dialog: PRACK, BYE; nothing else may change what is not answered yet."""
        respond, method = self._endpoint.respond, request.method
        if method == "PRACK":
            self._server.answer_prack(tx, request)
        elif method == "BYE":
            respond(tx, make_response(request, 200))
            self.cancel()
        elif method == "OPTIONS":
            respond(tx, make_response(request, 200, headers=CALL_CAPABILITIES))
        elif method == "UPDATE":
            self._endpoint.serve(tx, request, self._update(tx, request))
        else:
            refusal = retry_after() if method == "INVITE" else not_allowed(method, EARLY_METHODS)
            self._endpoint.reject(tx, request, refusal)

    async def _update(self, tx: ServerTransaction, request: Request) -> None:
        """A new target or a sign of life; an offer must wait until the INVITE's is answered (RFC 3311 section 5.2)."""
        check_required(request)
        known = self._updated or self.request
        if offer_in(request) or request.cseq.number <= known.cseq.number:
            raise retry_after()
        self._updated = request
        contact = ("Contact", self.contact(""))
        self._endpoint.respond(tx, make_response(request, 200, headers=(contact, *CALL_CAPABILITIES)))

    def _on_event(self, event: InviteEvent) -> None:
        if isinstance(event, ProvisionalAcknowledged):
            waiting = self._pracks.pop(event.response.rseq or 0, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        elif isinstance(event, ProvisionalTimeout):
            self.ended.set()
            self.reject(504, "No PRACK")
        elif self._dialog is not None:
            self._dialog.on_invite_event(event)
