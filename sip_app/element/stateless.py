"""Answers given without a transaction (RFC 3261 sections 8.2.7 and 26.3.2.4), so that asking costs a stranger more.

A challenge is half of all registrations: without transaction, timers and events it takes a third less time. Its To tag
is a keyed hash of what its ACK repeats: a retransmitted request gets the same one, and the ACK is known by it.
"""

import secrets
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest

from protocols.net import Flow
from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.message import REASONS, Request, Response, make_response, oversized
from protocols.sip.transaction_keys import response_flow, stamped
from provisioning.config import SipConfig
from sip_app.bounds import make_room
from sip_app.calls.capabilities import Rejected
from sip_app.calls.dialogs import new_tag
from sip_app.metrics import count_answer, limited

_REMEMBERED = 512
"""Challenges given last, so that a request sent twice is not asked twice, with two nonces, of which one is taken for a
refusal; about 700 bytes each."""
_TAG_BYTES = 10
"""Longer than the tags of dialogs, so that their ACKs are told apart by a glance."""


class Stateless:
    """Makes such answers and gives them to `send`."""

    def __init__(self, send: Callable[[Response | bytes, Flow], None]) -> None:
        self._send = send
        self._key = secrets.token_bytes(32)
        self._asked: dict[tuple[str, int, Flow], bytes] = {}

    def challenge(self, request: Request, flow: Flow, challenge: Rejected) -> None:
        """Ask for credentials. Whoever missed the question asks again, and lately asked hears the same."""
        request = stamped(request, flow)
        count_answer(request.method, challenge.status)
        key = self._tag(request), request.cseq.number, flow
        answer = self._asked.get(key)
        if answer is None:
            make_room(self._asked, _REMEMBERED)
            answer = self._asked[key] = challenge.answer(request, key[0]).serialise()
        self._send(answer, response_flow(request, flow))

    def acknowledged(self, ack: Request) -> bool:
        """True for the ACK of a challenge: nobody waits for it."""
        try:
            tag = ack.to.tag
            return len(tag) == 2 * _TAG_BYTES and compare_digest(tag.encode(), self._tag(ack).encode())
        except SipParseError:
            return False

    def refuse(self, request: Request, flow: Flow, error: BadRequest) -> None:
        """Answer what cannot be served, if it says whom to answer."""
        try:
            answerable = request.method != "ACK" and bool(request.top_via)
        except SipParseError:
            answerable = False
        if answerable:
            self._send(make_response(request, error.status, error.reason, to_tag=new_tag()), flow)

    def refuse_too_large(self, data: bytes, flow: Flow, sip: SipConfig) -> None:
        """513 for a request beyond our limits, if its beginning says whom to answer (RFC 3261 section 21.5.7)."""
        start = oversized(data, sip.max_message_bytes, sip.max_header_bytes, sip.max_headers)
        if start is not None:
            head = data.lstrip(b"\r\n").partition(b"\r\n\r\n")[0]
            too_many = "sip.max_header_bytes" if len(head) > sip.max_header_bytes else "sip.max_headers"
            limited("sip.max_message_bytes" if len(data) > sip.max_message_bytes else too_many)
            self.refuse(start, flow, BadRequest(513, REASONS[513]))

    def _tag(self, request: Request) -> str:
        text = f"{request.top_via.branch} {request.call_id}".encode("utf-8", "replace")
        return blake2b(text, key=self._key, digest_size=_TAG_BYTES).hexdigest()
