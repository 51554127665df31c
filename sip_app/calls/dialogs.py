"""A call that was answered 200: requests within its dialog, both ways (RFC 3261 sections 12.2 and 15).

What changes or refreshes its session is in `session`.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from protocols.net import Flow
from protocols.sip.dialog import DialogState
from protocols.sip.events import ServerTransaction
from protocols.sip.invite import Acknowledged, AckTimeout, InviteEvent
from protocols.sip.message import Request, Response, make_response
from sip_app.calls.capabilities import (
    ALLOW,
    CALL_CAPABILITIES,
    CALL_METHODS,
    METHODS,
    SUPPORTED,
    SUPPORTED_TEXT,
    HeaderList,
    Rejected,
    not_allowed,
)
from sip_app.calls.invite_server import InviteServer
from sip_app.calls.session import CallSession

if TYPE_CHECKING:
    from sip_app.element.endpoint import SipEndpoint

__all__ = [
    "ALLOW",
    "METHODS",
    "SUPPORTED",
    "SUPPORTED_TEXT",
    "Dialog",
    "DialogHandler",
    "HeaderList",
    "Rejected",
    "new_tag",
]

ACK_PATIENCE = 2.0
"""Seconds a BYE of ours waits for the ACK, before which RFC 3261 section 15 forbids it."""
RESTORED_CSEQ_GAP = 10_000
"""A restored dialog's CSeq jumps this far: requests since its last save are not counted in the store."""

log = structlog.get_logger("sip_app.calls.dialogs")


def new_tag() -> str:
    """A To tag nobody can guess (RFC 3261 section 19.3)."""
    return secrets.token_hex(8)


class DialogHandler(Protocol):
    """What a service answers to events inside its dialog."""

    async def on_reinvite(self, offer: bytes) -> bytes:
        """The SDP answer to a re-INVITE or UPDATE (an empty offer asks for ours); raises `Rejected`."""
        ...

    async def on_answer(self, answer: bytes) -> None:
        """The SDP answer to an offer of ours, which the ACK brought; raises `Rejected`."""
        ...

    async def on_info(self, request: Request) -> None:
        """An INFO request in the dialog; it is answered 200 unless this raises `Rejected`."""
        ...

    async def on_message(self, request: Request) -> None:
        """A MESSAGE in the dialog (RFC 3428); it is answered 202 unless this raises `Rejected`."""
        ...

    def on_ended(self, cause: str) -> None:
        """The dialog is over: "bye" (by the peer), "local" (by us), "ack-timeout", "no-answer", "session-expired"."""
        ...


class Dialog:
    """A dialog in which we sent the 200: the service's handle on a running call.

    `acked` is set by the ACK, or by the end, so that nobody waits for ever; `ended` when the call is over, `end_cause`
    saying why (see `DialogHandler.on_ended`). `app` is what the service stored with it, `sdp` what the peer last had
    from us, `session` its rules for both. One that is not `lasting` is never stored.
    """

    def __init__(
        self, endpoint: "SipEndpoint", state: DialogState, invite: InviteServer | None, *, lasting: bool = True
    ) -> None:
        self.id = state.local_tag
        self.state = state
        self.lasting = lasting
        self.app = dict(state.app)
        self.acked = asyncio.Event()
        self.ended = asyncio.Event()
        self.end_cause = ""
        self.handler: DialogHandler | None = None
        self._endpoint = endpoint
        self._invite = invite
        self._bye: asyncio.Task[None] | None = None
        self.sdp = b""
        self.session = CallSession(self, endpoint)
        if invite is None:
            self.state = replace(state, local_cseq=state.local_cseq + RESTORED_CSEQ_GAP)
            self.acked.set()
            self.session.watch()

    def __repr__(self) -> str:
        return f"<Dialog {self.state.call_id} {self.end_cause or 'running'}>"

    # What the service asks for

    async def remember(self, app: Mapping[str, str]) -> None:
        """Store something else with the call than it was answered with; durable on return, unless the call is over."""
        self.app = dict(app)
        self.state = replace(self.state, app=dict(app))
        if not self.ended.is_set():
            await self._endpoint.save(self)

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
                response = await self.request("OPTIONS", headers=(("Accept", "application/sdp"),))
        except TimeoutError:
            return False
        return response.status not in (408, 481, 503)

    async def ask(self, method: str, body: bytes, content_type: str) -> Response:
        """INFO or MESSAGE in the dialog; the final response (408 when nobody answers)."""
        return await self.request(method, body=body, content_type=content_type)

    async def reoffer(self, sdp: bytes) -> bool:
        """A re-INVITE with this description of ours; False unless the peer agrees (`on_answer` had its answer)."""
        return await self.session.offer(sdp)

    async def _send_bye(self, reason: str | None, cause: str) -> None:
        if not self.acked.is_set():
            try:
                await asyncio.wait_for(self.acked.wait(), ACK_PATIENCE)
            except TimeoutError:
                log.debug("dialog.bye_without_ack", call_id=self.state.call_id)
        if self.ended.is_set():
            return
        await self.request("BYE", headers=(("Reason", reason),) if reason else ())
        self._finish(cause)

    def end_by_server(self, cause: str, reason: str) -> None:
        """BYE because of a rule of SIP itself, not of the service."""
        if self._bye is None and not self.ended.is_set():
            self._bye = asyncio.create_task(self._give_up(cause, reason))

    async def _give_up(self, cause: str, reason: str) -> None:
        if self._endpoint.sure is not None:
            await self._endpoint.sure()
        await self._send_bye(reason, cause)

    async def request(
        self, method: str, *, headers: HeaderList = (), body: bytes = b"", content_type: str | None = None
    ) -> Response:
        """Any request but INVITE in the dialog; its final response (408 when nobody answers)."""
        self.state, request = self.state.request(method, headers=headers, body=body, content_type=content_type)
        return await self._endpoint.request(request, await self._endpoint.reach(self.state))

    def _finish(self, cause: str) -> None:
        if self.ended.is_set():
            return
        self._end(cause)
        self._endpoint.forget(self)
        handler, self.handler = self.handler, None  # they hold each other
        if handler is not None:
            handler.on_ended(cause)

    def _end(self, cause: str) -> None:
        self.end_cause = cause
        if self._invite is not None:
            self._invite.close()
        self.session.stop()
        self.ended.set()
        self.acked.set()

    def abandon(self) -> None:
        """Another server has this call now: it is forgotten here, and nobody is told."""
        self.handler = None
        self._end("abandoned")

    # What the peer sends

    def on_invite_event(self, event: InviteEvent) -> None:
        """What became of the INVITE's 200."""
        if isinstance(event, Acknowledged):
            self.acked.set()
            self.session.acknowledged(event.request)
        elif isinstance(event, AckTimeout):
            self.acked.set()
            self.session.acknowledged(None)
            self.end_by_server("ack-timeout", 'SIP;cause=408;text="No ACK"')

    def receive_ack(self, request: Request) -> None:
        """An ACK for the 200 of the INVITE or of a re-INVITE."""
        if self._invite is not None:
            self._invite.receive_ack(request)

    def receive(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A request of the peer, known to be from it."""
        respond, method = self._endpoint.respond, request.method
        if method == "PRACK":
            if self._invite is not None:
                self._invite.answer_prack(tx, request)
            else:
                respond(tx, make_response(request, 481))
            return
        if not self.state.accepts(request):
            respond(tx, make_response(request, 500, "CSeq Out Of Order"))
            return
        self.state = self.state.received(request)
        if flow != self.state.flow:
            self.state = self.state.on_flow(flow)
        if unknown := request.required - SUPPORTED:
            respond(tx, make_response(request, 420, headers=(("Unsupported", ", ".join(sorted(unknown))),)))
        elif method == "BYE":
            respond(tx, make_response(request, 200))
            self._finish("bye")
        elif method == "OPTIONS":
            respond(tx, make_response(request, 200, headers=CALL_CAPABILITIES))
        elif method in ("INVITE", "UPDATE", "INFO", "MESSAGE"):
            self._endpoint.serve(tx, request, self._serve(tx, request))
        else:
            self._endpoint.reject(tx, request, not_allowed(method, CALL_METHODS))

    async def _serve(self, tx: ServerTransaction, request: Request) -> None:
        if request.method == "INFO":
            if "info-package" in request.headers:  # RFC 6086 section 4.2.2: we take none
                raise Rejected(469, headers=(("Recv-Info", "nil"),))
            if self.handler is not None:
                await self.handler.on_info(request)
            self._endpoint.respond(tx, make_response(request, 200))
            return
        if request.method == "MESSAGE":
            if self.handler is None:
                raise not_allowed("MESSAGE", CALL_METHODS)
            await self.handler.on_message(request)
            self._endpoint.respond(tx, make_response(request, 202))
            return
        await self.session.serve(tx, request, self._reinvited)

    def _reinvited(self, invite: InviteServer) -> None:
        if self._invite is not None:
            self._invite.close()
        self._invite = invite
