"""A call that was answered 200: requests within its dialog, both ways (RFC 3261 sections 12.2, 14, 15; RFC 4028)."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from protocols.net import Flow
from protocols.sip.dialog import DialogState
from protocols.sip.errors import BadRequest
from protocols.sip.events import ServerTransaction
from protocols.sip.invite import Acknowledged, AckTimeout, InviteEvent
from protocols.sip.message import Request, Response, make_response
from protocols.sip.session_timer import agree, deadline
from sip_app.invite_server import InviteServer

if TYPE_CHECKING:
    from sip_app.endpoint import SipEndpoint

HeaderList = Sequence[tuple[str, str]]
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE", "INFO", "MESSAGE", "SUBSCRIBE", "REGISTER")
ALLOW = ", ".join(METHODS)
SUPPORTED = frozenset(("100rel", "timer", "path", "histinfo"))
SUPPORTED_TEXT = "100rel, timer, path, histinfo"
ACK_PATIENCE = 2.0
"""Seconds a BYE of ours waits for the ACK, before which RFC 3261 section 15 forbids it."""
RESTORED_CSEQ_GAP = 10_000
"""A restored dialog's CSeq jumps this far: requests since its last save are not counted in the store."""

log = structlog.get_logger("sip_app.dialogs")


def new_tag() -> str:
    """A To tag nobody can guess (RFC 3261 section 19.3)."""
    return secrets.token_hex(8)


class Rejected(Exception):
    """A request is refused: the status, phrase, header fields and (in INFO) body of the answer."""

    def __init__(
        self,
        status: int,
        reason: str | None = None,
        headers: HeaderList = (),
        *,
        body: bytes = b"",
        content_type: str | None = None,
    ) -> None:
        super().__init__(f"{status} {reason or ''}".rstrip())
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.content_type = content_type


class DialogHandler(Protocol):
    """What a service answers to events inside its dialog."""

    async def on_reinvite(self, offer: bytes) -> bytes:
        """The SDP answer to a re-INVITE or UPDATE (an empty offer asks for ours); raises `Rejected`."""
        ...

    async def on_info(self, request: Request) -> None:
        """An INFO request in the dialog; it is answered 200 unless this raises `Rejected`."""
        ...

    async def on_message(self, request: Request) -> None:
        """A MESSAGE in the dialog (RFC 3428); it is answered 202 unless this raises `Rejected`."""
        ...

    def on_ended(self, cause: str) -> None:
        """The dialog is over: "bye" (by the peer), "local" (by us), "ack-timeout", "session-expired"."""
        ...


class Dialog:
    """A dialog in which we sent the 200: the service's handle on a running call.

    `acked` is set by the ACK, or by the end, so that nobody waits for ever; `ended` when the call is over, `end_cause`
    saying why (see `DialogHandler.on_ended`). `app` is what the service stored with it.
    """

    def __init__(self, endpoint: "SipEndpoint", state: DialogState, invite: InviteServer | None) -> None:
        self.id = state.local_tag
        self.state = state
        self.app = dict(state.app)
        self.acked = asyncio.Event()
        self.ended = asyncio.Event()
        self.end_cause = ""
        self.handler: DialogHandler | None = None
        self._endpoint = endpoint
        self._invite = invite
        self._bye: asyncio.Task[None] | None = None
        self._session: asyncio.TimerHandle | None = None
        self._reinviting = False
        if invite is None:
            self.state = replace(state, local_cseq=state.local_cseq + RESTORED_CSEQ_GAP)
            self.acked.set()
            self.watch_session()

    def __repr__(self) -> str:
        return f"<Dialog {self.state.call_id} {self.end_cause or 'running'}>"

    # What the service asks for

    async def bye(self, reason: str | None = None) -> None:
        """End the call: BYE with this Reason header value; waits for its answer or timeout. Idempotent."""
        if self.ended.is_set():
            return
        if self._bye is None:
            self._bye = asyncio.create_task(self._send_bye(reason, "local"))
        await asyncio.shield(self._bye)

    async def probe(self, timeout: float) -> bool:
        """OPTIONS in the dialog; False when the peer no longer knows it or does not answer within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._request("OPTIONS", headers=(("Accept", "application/sdp"),))
        except TimeoutError:
            return False
        return response.status not in (408, 481, 503)

    async def ask(self, method: str, body: bytes, content_type: str) -> Response:
        """INFO or MESSAGE in the dialog; the final response (408 when nobody answers)."""
        return await self._request(method, body=body, content_type=content_type)

    async def _send_bye(self, reason: str | None, cause: str) -> None:
        if not self.acked.is_set():
            try:
                await asyncio.wait_for(self.acked.wait(), ACK_PATIENCE)
            except TimeoutError:
                log.debug("dialog.bye_without_ack", call_id=self.state.call_id)
        if self.ended.is_set():
            return
        await self._request("BYE", headers=(("Reason", reason),) if reason else ())
        self._finish(cause)

    def end_by_server(self, cause: str, reason: str) -> None:
        """BYE because of a rule of SIP itself, not of the service."""
        if self._bye is None and not self.ended.is_set():
            self._bye = asyncio.create_task(self._send_bye(reason, cause))

    async def _request(
        self, method: str, *, headers: HeaderList = (), body: bytes = b"", content_type: str | None = None
    ) -> Response:
        self.state, request = self.state.request(method, headers=headers, body=body, content_type=content_type)
        return await self._endpoint.request(request, await self._endpoint.reach(self.state))

    def _finish(self, cause: str) -> None:
        if self.ended.is_set():
            return
        self.end_cause = cause
        if self._invite is not None:
            self._invite.stop()
        if self._session is not None:
            self._session.cancel()
        self.ended.set()
        self.acked.set()
        self._endpoint.forget(self)
        if self.handler is not None:
            self.handler.on_ended(cause)

    # Session timer

    def watch_session(self) -> None:
        """Start the session timer anew: the session was agreed, or refreshed, just now."""
        if self._session is not None:
            self._session.cancel()
        if self.state.session_interval:
            loop = self._endpoint.loop
            at = deadline(self.state.session_interval, self.state.session_we_refresh, loop.time())
            self._session = loop.call_at(at, self._session_due)

    def _session_due(self) -> None:
        if self.state.session_we_refresh:
            self._endpoint.spawn(self._refresh())
        else:
            self.end_by_server("session-expired", 'SIP;cause=408;text="Session expired"')

    async def _refresh(self) -> None:
        interval = self.state.session_interval
        headers = (("Supported", "timer"), ("Session-Expires", f"{interval};refresher=uac"), ("Min-SE", str(interval)))
        response = await self._request("UPDATE", headers=headers)
        if response.status in (408, 481):
            self.end_by_server("session-expired", 'SIP;cause=408;text="Session expired"')
        elif not self.ended.is_set():
            self.watch_session()

    # What the peer sends

    def on_invite_event(self, event: InviteEvent) -> None:
        """What became of the INVITE's 200."""
        if isinstance(event, Acknowledged):
            self.acked.set()
        elif isinstance(event, AckTimeout):
            self.acked.set()
            self.end_by_server("ack-timeout", 'SIP;cause=408;text="No ACK"')

    def receive_ack(self, request: Request) -> None:
        """An ACK for the 200 of the INVITE or of a re-INVITE."""
        if self._invite is not None:
            self._invite.receive_ack(request)

    def receive(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A request of the peer, known to be from it."""
        respond, method = self._endpoint.respond, request.method
        if method == "PRACK":
            known = self._invite is not None and self._invite.receive_prack(request)
            respond(tx, make_response(request, 200 if known else 481))
            if self._invite is not None:
                self._invite.flush()
            return
        if not self.state.accepts(request):
            respond(tx, make_response(request, 500, "CSeq Out Of Order"))
            return
        self.state = self.state.received(request)
        if flow != self.state.flow:
            self.state = self.state.on_flow(flow)
        if method == "BYE":
            respond(tx, make_response(request, 200))
            self._finish("bye")
        elif method == "OPTIONS":
            respond(tx, make_response(request, 200, headers=(("Allow", ALLOW), ("Supported", SUPPORTED_TEXT))))
        elif method in ("INVITE", "UPDATE", "INFO", "MESSAGE"):
            self._endpoint.serve(tx, request, self._serve(tx, request))
        else:
            respond(tx, make_response(request, 405, headers=(("Allow", ALLOW),)))

    async def _serve(self, tx: ServerTransaction, request: Request) -> None:
        if request.method == "INFO":
            if "info-package" in request.headers:
                raise Rejected(469, headers=(("Recv-Info", "nil"),))
            if self.handler is not None:
                await self.handler.on_info(request)
            self._endpoint.respond(tx, make_response(request, 200))
            return
        if request.method == "MESSAGE":
            if self.handler is None:
                raise Rejected(405, headers=(("Allow", ALLOW),))
            await self.handler.on_message(request)
            self._endpoint.respond(tx, make_response(request, 202))
            return
        if self._reinviting:
            raise Rejected(491)
        self._reinviting = True
        try:
            await self._renegotiate(tx, request)
        finally:
            self._reinviting = False

    async def _renegotiate(self, tx: ServerTransaction, request: Request) -> None:
        answer = b""
        headers = [("Contact", self.state.local_target), ("Allow", ALLOW), ("Supported", SUPPORTED_TEXT)]
        headers += self._refreshed_session(request)
        if request.method == "INVITE" or request.body:
            if request.body and request.content_type != "application/sdp":
                raise Rejected(415, headers=(("Accept", "application/sdp"),))
            if self.handler is None:
                raise Rejected(488)
            answer = await self.handler.on_reinvite(request.body)
        await self._endpoint.save(self)
        content_type = "application/sdp" if answer else None
        if request.method == "INVITE":
            invite = InviteServer(self._endpoint, tx, self.state.local_tag, self.on_invite_event)
            if self._invite is not None:
                self._invite.stop()
            self._invite = invite
            invite.invite.accept(self._endpoint.loop.time(), headers=headers, body=answer, content_type=content_type)
            invite.flush()
        else:
            self._endpoint.respond(
                tx, make_response(request, 200, headers=headers, body=answer, content_type=content_type)
            )

    def _refreshed_session(self, request: Request) -> list[tuple[str, str]]:
        timer, headers = session_of(request, self._endpoint.session_expires, self._endpoint.min_se)
        if timer is not None:
            self.state = replace(self.state, session_interval=timer[0], session_we_refresh=timer[1])
            self.watch_session()
        return headers


def session_of(request: Request, preferred: int, min_se: int) -> tuple[tuple[int, bool] | None, list[tuple[str, str]]]:
    """The session timer for an INVITE or UPDATE: (seconds, whether we refresh), and the header fields of its 2xx.

    None where we would have to refresh a peer that knows no UPDATE. Raises `Rejected` 422 and `SipParseError`.
    """
    try:
        timer = agree(request, preferred, min_se)
    except BadRequest as error:
        raise Rejected(error.status, error.reason, (("Min-SE", str(min_se)),)) from None
    if timer.refresher == "uas" and "UPDATE" not in request.allowed:
        return None, []
    return (timer.interval, timer.refresher == "uas"), list(timer.headers)
