"""The session of an answered call: offers both ways without glare (RFC 3261 section 14, RFC 3311) and the session timer
in both roles (RFC 4028).

A peer that knows no UPDATE is refreshed by a re-INVITE with the session description it has from us.
"""

import asyncio
import secrets
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.sip.body import session_body
from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.events import ClientTransaction, ServerTransaction
from protocols.sip.message import Request, Response, make_response
from protocols.sip.session_timer import MAX_INTERVAL, agree, deadline
from sip_app.calls.capabilities import ALLOW, SUPPORTED_TEXT, HeaderList, Rejected, offer_in
from sip_app.calls.invite_server import InviteServer

if TYPE_CHECKING:
    from sip_app.calls.dialogs import Dialog
    from sip_app.element.endpoint import SipEndpoint

GLARE_WAIT = 2.0
"""Seconds below which we try again after 491: the Call-ID of our dialogs is always the peer's (section 14.1)."""
OPEN_OFFER_WAIT = 0.05
"""Seconds between two looks whether an offer of the peer is still open."""
RECONNECT_WAIT = 10.0
"""Seconds between attempts to refresh a session whose peer's connection is gone."""
REFRESH_ATTEMPTS = 8
_EXPIRED = 'SIP;cause=408;text="Session expired"'


def retry_after() -> Rejected:
    """500 for a request that came while another of the same peer was being answered (section 14.2, RFC 3311 5.2)."""
    return Rejected(500, "Another Request Pending", (("Retry-After", str(secrets.randbelow(11))),))


def session_of(request: Request, preferred: int, min_se: int) -> tuple[tuple[int, bool], list[tuple[str, str]]]:
    """The session timer for an INVITE or UPDATE: (seconds, whether we refresh), and the header fields of its 2xx.

    Raises `Rejected` 422 and `SipParseError`.
    """
    try:
        timer = agree(request, preferred, min_se)
    except BadRequest as error:
        raise Rejected(error.status, error.reason, (("Min-SE", str(min_se)),)) from None
    return (timer.interval, timer.refresher == "uas"), list(timer.headers)


class CallSession:
    """The session of one `Dialog`: what was agreed last, who may offer now, who refreshes it and when."""

    def __init__(self, dialog: "Dialog", endpoint: "SipEndpoint") -> None:
        self._held_by = weakref.ref(dialog)
        self._endpoint = endpoint
        self._timer: asyncio.TimerHandle | None = None
        self._theirs = False
        """True while a re-INVITE or UPDATE of the peer is being answered."""
        self._ours = False
        """True while a re-INVITE of ours is out."""
        self._offered = False
        """True while the answer to an offer in our 2xx is awaited with its ACK."""
        self._must_answer = False
        """The call came without an offer: without an answer it is nothing."""

    @property
    def _dialog(self) -> "Dialog":
        """Whose session it is; held weakly, or each call would wait for the garbage collector."""
        dialog = self._held_by()
        assert dialog is not None
        return dialog

    # The session timer

    def watch(self) -> None:
        """Start the timer anew: the session was agreed, or refreshed, just now."""
        self.stop()
        state = self._dialog.state
        if state.session_interval and not self._dialog.ended.is_set():
            loop = self._endpoint.loop
            self._timer = loop.call_at(
                deadline(state.session_interval, state.session_we_refresh, loop.time()), self._due
            )

    def stop(self) -> None:
        """The call is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        if self._dialog.state.session_we_refresh:
            self._endpoint.spawn(self._refresh(self._dialog))
        else:
            self._dialog.end_by_server("session-expired", _EXPIRED)

    async def _refresh(self, dialog: "Dialog") -> None:
        """Refresh the session, trying again while the peer says 491, 500 or 422 with a longer interval."""
        for _ in range(REFRESH_ATTEMPTS):
            await self._our_turn(dialog)
            if dialog.ended.is_set():
                return
            interval = dialog.state.session_interval
            headers = _timer(interval, "uac")
            sdp = dialog.state.our_sdp.encode()
            by_update = not sdp
            response = await (dialog.request("UPDATE", headers=headers) if by_update else self._reinvite(sdp, headers))
            if dialog.ended.is_set():
                return
            match response.status:
                case 408 | 481:
                    dialog.end_by_server("session-expired", _EXPIRED)
                    return
                case 422 if interval < (longer := _min_se(response)) <= MAX_INTERVAL:
                    dialog.state = replace(dialog.state, session_interval=longer)
                case 491 | 500:
                    await asyncio.sleep(GLARE_WAIT * (1 + secrets.randbelow(200)) / 200)
                case 503 if "via" not in response.headers:  # its connection is gone: it may come back
                    await asyncio.sleep(RECONNECT_WAIT)
                case 405 | 501 if by_update and dialog.sdp:
                    self.keep(dialog.sdp)
                case status:
                    if status < 300:
                        self._agreed(response)
                    break
        else:
            if response.status == 503:
                dialog.end_by_server("session-expired", _EXPIRED)
                return
        self.watch()  # whatever it said, it is alive
        await self._endpoint.save(dialog)

    def _agreed(self, response: Response) -> None:
        """Our refresh was accepted: the peer may have shortened the interval or taken over (section 7.2)."""
        dialog = self._dialog
        state = dialog.state.refreshed(response)
        try:
            shorter = max(response.session_expires or state.session_interval, self._endpoint.min_se)
            interval = min(shorter, state.session_interval)
        except SipParseError:
            interval = state.session_interval
        we_refresh = response.session_expires is None or response.refresher != "uas"
        dialog.state = replace(state, session_interval=interval, session_we_refresh=we_refresh)

    async def _our_turn(self, dialog: "Dialog") -> None:
        """Returns once no offer is open, nor the call's answer unacknowledged."""
        while self._theirs or self._ours or self._offered or not dialog.acked.is_set():  # noqa: ASYNC110 - four things
            await asyncio.sleep(OPEN_OFFER_WAIT)

    async def offer(self, sdp: bytes) -> bool:
        """Change the session by a re-INVITE of ours; True once the peer has agreed and its answer is taken."""
        dialog = self._dialog
        for _ in range(REFRESH_ATTEMPTS):
            await self._our_turn(dialog)
            if dialog.ended.is_set():
                return False
            interval, refresher = dialog.state.session_interval, "uac" if dialog.state.session_we_refresh else "uas"
            response = await self._reinvite(sdp, _timer(interval, refresher) if interval else [])
            if response.status in (491, 500):
                await asyncio.sleep(GLARE_WAIT * (1 + secrets.randbelow(200)) / 200)
                continue
            if response.status >= 300 or dialog.ended.is_set():
                return False
            dialog.sdp = sdp
            if dialog.state.our_sdp:
                self.keep(sdp)
            if interval:
                self._agreed(response)
                self.watch()
            return await self._answered(dialog, response)
        return False

    async def _answered(self, dialog: "Dialog", response: Response) -> bool:
        self._theirs = True  # the answer is being taken: nobody may offer before
        try:
            answer = session_body(response)
            if not answer or dialog.handler is None:
                return False
            await dialog.handler.on_answer(answer)
            await self._endpoint.save(dialog)
        except (Rejected, SipParseError):
            return False
        finally:
            self._theirs = False
        return True

    async def _reinvite(self, body: bytes, headers: HeaderList) -> Response:
        """A re-INVITE with this session; its final response, acknowledged."""
        dialog, endpoint = self._dialog, self._endpoint
        lines = [*headers, ("Allow", ALLOW)]
        dialog.state, request = dialog.state.request("INVITE", headers=lines, body=body, content_type="application/sdp")
        answered: asyncio.Future[Response] = endpoint.loop.create_future()
        self._ours = True
        try:
            endpoint.send(request, await endpoint.reach(dialog.state), _Reinvite(dialog, endpoint, answered))
            endpoint.pump()
            return await answered
        finally:
            self._ours = False

    def keep(self, sdp: bytes) -> None:
        """From now on refresh by re-INVITE, with this session description of ours."""
        self._dialog.state = replace(self._dialog.state, our_sdp=sdp.decode())

    # What the peer asks

    async def serve(self, tx: ServerTransaction, request: Request, accepted: Callable[[InviteServer], None]) -> None:
        """A re-INVITE or UPDATE. Raises `Rejected`: 491 while our offer is open, 500 while another of theirs is."""
        offer = offer_in(request)
        if self._theirs:
            raise retry_after()
        if (self._ours or self._offered) and (offer or request.method == "INVITE"):
            raise Rejected(491)
        self._theirs = True
        try:
            await self._renegotiate(tx, request, offer, accepted)
        finally:
            self._theirs = False

    async def _renegotiate(
        self, tx: ServerTransaction, request: Request, offer: bytes, accepted: Callable[[InviteServer], None]
    ) -> None:
        dialog, endpoint = self._dialog, self._endpoint
        (interval, we_refresh), timer_headers = session_of(request, endpoint.session_expires, endpoint.min_se)
        headers = [("Contact", dialog.state.local_target), ("Allow", ALLOW), ("Supported", SUPPORTED_TEXT)]
        headers += timer_headers
        body = b""
        if request.method == "INVITE" or offer:
            if dialog.handler is None:
                raise Rejected(488)
            body = dialog.sdp = await dialog.handler.on_reinvite(offer)
        dialog.state = replace(dialog.state, session_interval=interval, session_we_refresh=we_refresh)
        if body and dialog.state.our_sdp:
            self.keep(body)
        await endpoint.save(dialog)
        if dialog.ended.is_set():
            raise Rejected(481)
        self.watch()
        content_type = "application/sdp" if body else None
        if request.method == "UPDATE":
            endpoint.respond(tx, make_response(request, 200, headers=headers, body=body, content_type=content_type))
            return
        self._offered = not offer
        server = InviteServer(endpoint, tx, dialog.state.local_tag, dialog.on_invite_event)
        accepted(server)
        server.invite.accept(endpoint.loop.time(), headers=headers, body=body, content_type=content_type)
        server.flush()

    def offered(self) -> None:
        """Our offer is in the 2xx to the call's INVITE, which had none: its ACK must bring the answer."""
        self._offered = self._must_answer = True

    def acknowledged(self, ack: Request | None) -> None:
        """The ACK of a 2xx came, or (None) never did."""
        if not self._offered:
            return
        self._offered = False
        if ack is not None:
            self._theirs = True  # the answer is being taken: nobody may offer before
            self._endpoint.spawn(self._take_answer(self._dialog, ack))

    async def _take_answer(self, dialog: "Dialog", ack: Request) -> None:
        try:
            answer = session_body(ack)
            if self._must_answer and not answer:
                raise Rejected(488)
            if dialog.handler is not None and not dialog.ended.is_set():
                await dialog.handler.on_answer(answer)
            self._must_answer = False
        except (Rejected, SipParseError) as error:
            if isinstance(error, Rejected) and error.status == 503 and not self._must_answer:
                return  # the relay is away: media goes on as it was
            dialog.end_by_server("no-answer", 'SIP;cause=488;text="No usable answer in the ACK"')
        finally:
            self._theirs = False


class _Reinvite:
    """Who sent a re-INVITE: every 2xx of it is acknowledged, however often it comes (section 13.2.2.4)."""

    def __init__(self, dialog: "Dialog", endpoint: "SipEndpoint", answered: "asyncio.Future[Response]") -> None:
        self._dialog, self._endpoint, self._answered = dialog, endpoint, answered

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        if response.status < 200:
            return
        if response.status < 300:
            ack = self._dialog.state.refreshed(response).ack(tx.request.cseq.number)
            self._endpoint.send_stateless(ack, tx.flow)
        if not self._answered.done():
            self._answered.set_result(response)


def _timer(interval: int, refresher: str) -> list[tuple[str, str]]:
    expires = ("Session-Expires", f"{interval};refresher={refresher}")
    return [("Supported", "timer"), expires, ("Min-SE", str(interval))]


def _min_se(response: Response) -> int:
    try:
        return response.min_se or 0
    except SipParseError:
        return 0
