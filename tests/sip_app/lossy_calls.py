"""The calls of a `lossy_phone.Phone`: those it makes, those it gets, and both once they stand."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from protocols.net import Address
from protocols.sip.dialog import DialogState, uac_dialog, uas_dialog
from protocols.sip.events import ServerTransaction
from protocols.sip.invite import Acknowledged, AckTimeout, ProvisionalTimeout, UasInvite, prack
from protocols.sip.message import Request, Response
from protocols.sip.session_timer import agree, deadline
from protocols.sip.transaction import Timers

if TYPE_CHECKING:
    from tests.sip_app.lossy_phone import Phone

DOMAIN = "dialcast.internal"
SERVER = Address("127.0.0.1", 5060)
OTHER_SERVER = Address("127.0.0.2", 5060)
TIMERS = Timers(c=180)
ALL = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE"


def sdp(
    address: Address, direction: str = "sendrecv", *, version: int = 1, ice: bool = False, answer: bool = False
) -> bytes:
    """An offer of audio and video; an answer has the same shape, and the parameters of our offer."""
    lines = ["v=0", f"o=- 1 {version} IN IP4 {address.host}", "s=-", f"c=IN IP4 {address.host}", "t=0 0"]
    for line, codec in (("audio 40000 RTP/AVP 0", "0 PCMU/8000"), ("video 40002 RTP/AVP 96", "96 H264/90000")):
        lines += [f"m={line}", f"a=rtpmap:{codec}", f"a={direction}"]
        lines += ["a=fmtp:96 profile-level-id=42e01f;packetization-mode=1"] if answer and codec[:2] == "96" else []
        lines += ["a=ice-ufrag:abcd", f"a=ice-pwd:{'p' * 22}"] if ice else []
    return "\r\n".join([*lines, ""]).encode()


class Leg:
    """One established call of a phone. `ended` is set when it is over; `asked` holds what the other side asked."""

    def __init__(self, phone: "Phone", state: DialogState, invite: "Ringing | None" = None) -> None:
        self.phone, self.state, self.invite = phone, state, invite
        self.ended = asyncio.Event()
        self.asked: list[Request] = []
        self.acks: list[Request] = []
        self._acked: dict[int, Request] = {}
        self._reinvite: Ringing | None = None
        self._inviting = False
        self._timer: asyncio.TimerHandle | None = None
        phone.legs[state.id] = self

    def end(self) -> None:
        self.phone.legs.pop(self.state.id, None)
        for ringing in (self.invite, self._reinvite):
            if ringing is not None:
                ringing.stop()
        if self._timer is not None:
            self._timer.cancel()
        self.ended.set()

    def watch(self, interval: int, we_refresh: bool) -> None:
        """Session timer: refresh, or expect refreshes."""
        if self._timer is not None:
            self._timer.cancel()
        self.state = replace(self.state, session_interval=interval, session_we_refresh=we_refresh)
        loop = self.phone.loop
        if interval and not self.ended.is_set():
            act = self.refresh if we_refresh else self.bye
            at = deadline(interval, we_refresh, loop.time())
            self._timer = loop.call_at(at, lambda: self.phone.spawn(act()))

    async def refresh(self) -> int:
        """UPDATE with the session timer, again after 491 and 500 for a while."""
        interval = self.state.session_interval
        headers = [("Supported", "timer"), ("Session-Expires", f"{interval};refresher=uac")]
        while not self.ended.is_set():
            status = (await self.ask("UPDATE", headers=headers)).status
            if status in (491, 500):
                await asyncio.sleep(self.phone.random.uniform(0.5, 4))
            elif status in (408, 481):
                await self.bye()
            else:
                self.watch(interval, self.state.session_we_refresh)
                return status
        return 481

    async def ask(self, method: str, **options: Any) -> Response:
        """One request in the dialog; a 2xx to an INVITE is acknowledged (with `answer` if that is given)."""
        answer: bytes = options.pop("answer", b"")
        self.state, request = self.state.request(method, **options)
        if method != "INVITE":
            return await self.phone.final(request)
        self._inviting = True
        try:
            result: asyncio.Future[Response] = self.phone.loop.create_future()

            def answered(response: Response) -> None:
                if 200 <= response.status < 300 and not self.ended.is_set():
                    kind = {"body": answer, "content_type": "application/sdp"} if answer else {}
                    self.state = self.state.refreshed(response)
                    self.phone.stateless(self._acked.setdefault(request.cseq.number, self.ack(request, **kind)))
                if response.status >= 200 and not result.done():
                    result.set_result(response)

            self.phone.start(request, answered)
            return await result
        finally:
            self._inviting = False

    def ack(self, request: Request, **options: Any) -> Request:
        return self.state.ack(request.cseq.number, **options)

    async def reinvite(self, **options: Any) -> int:
        """A re-INVITE, again after 491 (section 14.1: this side owns the Call-ID, or not)."""
        while not self.ended.is_set():
            status = (await self.ask("INVITE", **options)).status
            if status not in (491, 500):
                return status
            await asyncio.sleep(self.phone.random.uniform(2.1, 4))
        return 481

    async def bye(self) -> None:
        """Hang up."""
        if not self.ended.is_set():
            self.end()
            self.state, request = self.state.request("BYE")
            response = await self.phone.final(request)
            self.phone.unheard += response.status == 408  # a server on the way may have waited in vain

    def receive(self, tx: ServerTransaction, request: Request) -> None:
        """A request of the other side."""
        phone = self.phone
        if request.method == "PRACK":
            known = self.invite is not None and self.invite.take_prack(request)
            phone.answer(tx, 200 if known else 481)
            return
        if not self.state.accepts(request):
            phone.answer(tx, 500)
            return
        self.state = self.state.received(request)
        self.asked.append(request)
        if request.method not in phone.allow:
            phone.answer(tx, 405)
        elif request.method == "BYE":
            phone.answer(tx, 200)
            self.end()
        elif request.method == "INVITE":
            if self._inviting or (self._reinvite is not None and not self._reinvite.settled):
                phone.answer(tx, 491)
                return
            self._reinvite = Ringing(phone, tx, self.state.local_tag, self)
            self._reinvite.accept(self._refreshed(request))
        elif request.method == "UPDATE":
            phone.answer(tx, 200, headers=self._refreshed(request))
        else:
            phone.answer(tx, 200)

    def _refreshed(self, request: Request) -> list[tuple[str, str]]:
        timer = agree(request, 120, self.phone.min_se)
        if "timer" not in request.supported:
            return []
        self.watch(timer.interval, timer.refresher == "uas")
        return list(timer.headers)


class Ringing:
    """An INVITE this phone was sent, initial or within a call; `settled` once acknowledged, refused or given up."""

    def __init__(self, phone: "Phone", tx: ServerTransaction, tag: str, leg: Leg | None = None) -> None:
        self.phone, self.tx, self.leg = phone, tx, leg
        self.invite = UasInvite(tx.request, tag, timers=TIMERS)
        self.settled = False
        self._timer: asyncio.TimerHandle | None = None

    def provisional(self, status: int, *, reliable: bool = False) -> None:
        if not self.invite.answered and not self.settled:
            headers = [("Contact", self.phone.contact), ("Allow", ALL)]
            self.invite.provisional(self.phone.loop.time(), status, reliable=reliable, headers=headers)
            self.flush()

    def accept(self, headers: list[tuple[str, str]]) -> None:
        lines = [("Contact", self.phone.contact), ("Allow", ALL), ("Supported", "timer"), *headers]
        body = sdp(self.phone.address)
        self.invite.accept(self.phone.loop.time(), headers=lines, body=body, content_type="application/sdp")
        self.flush()

    def answer(self) -> Leg | None:
        """Pick up."""
        if self.invite.answered or self.settled:
            return None
        timer = agree(self.tx.request, 120)
        state = uas_dialog(self.tx.request, self.invite.local_tag, self.phone.contact, self.phone.flow)
        self.leg = Leg(self.phone, state, self)
        self.accept(list(timer.headers) if "timer" in self.tx.request.supported else [])
        if "timer" in self.tx.request.supported:
            self.leg.watch(timer.interval, timer.refresher == "uas")
        return self.leg

    def refuse(self, status: int, headers: Any = ()) -> None:
        if not self.invite.answered:
            self.invite.reject(status, headers=headers)
            self.flush()
            self.settled = True

    def take_prack(self, request: Request) -> bool:
        known = self.invite.receive_prack(request, self.phone.loop.time())
        self.flush()
        return known

    def flush(self) -> None:
        for response in self.invite.to_send():
            self.phone.layer.send_response(self.tx, response, self.phone.loop.time())
        self.phone.pump()
        while (event := self.invite.next_event()) is not None:
            match event:
                case Acknowledged(request) if self.leg is not None:
                    self.settled = True
                    self.leg.acks.append(request)
                case AckTimeout() if self.leg is not None:
                    self.settled = True
                    self.phone.unacknowledged += 1
                    self.phone.spawn(self.leg.bye())
                case ProvisionalTimeout():
                    self.refuse(504)
        self.stop()
        over = self.leg is not None and self.leg.ended.is_set()  # a BYE came before the ACK
        if (at := self.invite.next_timer()) is not None and not over:
            self._timer = self.phone.loop.call_at(at, self._due)

    def _due(self) -> None:
        self.invite.handle_timer(self.phone.loop.time())
        self.flush()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Dialling:
    """An INVITE this phone sent. `final` is its outcome: the leg of the first 2xx, or the refusal."""

    def __init__(self, phone: "Phone", request: Request, *, answer: bytes = b"") -> None:
        self.phone = phone
        self.seen: list[Response] = []
        self.legs: dict[str, Leg] = {}
        self.final: asyncio.Future[Leg | Response] = phone.loop.create_future()
        self.cancelled = False
        self._answer = answer
        self.early: dict[str, DialogState] = {}
        self._rseq: dict[str, int] = {}
        self._acks: dict[str, Request] = {}
        self.tx = phone.start(request, self.on_response)

    def cancel(self) -> None:
        self.cancelled = True
        self.phone.layer.cancel(self.tx, self.phone.loop.time())
        self.phone.pump()

    def on_response(self, response: Response) -> None:
        phone, status = self.phone, response.status
        if status < 200:
            self.seen.append(response)
            if response.rseq is not None and "100rel" in response.required:
                self._acknowledge(response)
        elif status < 300:
            self._answered(response)
        elif not self.final.done():
            self.final.set_result(response)
        phone.pump()

    def _acknowledge(self, response: Response) -> None:
        """PRACK what comes in order; what overtook another is repeated by its sender (RFC 3262 section 4)."""
        tag, rseq = response.to.tag, response.rseq or 0
        if rseq != self._rseq.get(tag, rseq - 1) + 1:
            return
        self._rseq[tag] = rseq
        early = self.early.get(tag) or uac_dialog(self.tx.request, response, self.phone.flow)
        self.early[tag], request = prack(early, response)
        self.phone.start(request, lambda response: None)

    def _answered(self, response: Response) -> None:
        tag, phone = response.to.tag, self.phone
        if tag in self._acks:
            phone.stateless(self._acks[tag])
            return
        state = uac_dialog(self.tx.request, response, phone.flow)
        if tag in self.early:
            state = replace(state, local_cseq=self.early[tag].local_cseq)
        leg = self.legs[tag] = Leg(phone, state)
        kind: dict[str, Any] = {"body": self._answer, "content_type": "application/sdp"} if self._answer else {}
        self._acks[tag] = state.ack(self.tx.request.cseq.number, **kind)
        phone.stateless(self._acks[tag])
        if interval := response.session_expires:
            leg.watch(interval, response.refresher == "uac")
        if self.cancelled or self.final.done():
            phone.spawn(leg.bye())  # it lost the race, or nobody wants it any more
        if not self.final.done():
            self.final.set_result(leg)
