"""Notices of communication diversion to the user it belongs to (3GPP TS 24.604), as MESSAGE (RFC 3428) to their phones.

Two kinds, each an option of a rule: a call was diverted just now; a reminder, when the user calls somebody, that calls
to them go elsewhere. Nobody waits for them, and a phone that knows no MESSAGE misses nothing else.
"""

import secrets

from protocols.net import Flow
from protocols.records import Diversions
from protocols.sip.message import Headers, Request
from sip_app.calls.dialogs import new_tag
from sip_app.calls.incoming import Caller
from sip_app.diversion.diverted import Diverted, Kind, Notice
from sip_app.diversion.history import wants_anonymity
from sip_app.element.endpoint import SipEndpoint
from sip_app.numbers import domain_of, number_of
from sip_app.proxy.onward import Onward

_WHY: dict[Kind, str] = {
    "unconditional": "",
    "busy": " (busy)",
    "no-answer": " (no reply)",
    "not-registered": " (not logged in)",
    "not-reachable": " (not reachable)",
}


class Notices:
    """Sends notices over whatever flow a phone registered."""

    def __init__(self, endpoint: SipEndpoint, onward: Onward) -> None:
        self._endpoint = endpoint
        self._onward = onward

    def diverted(self, notice: Notice, request: Request, caller: Caller) -> None:
        """A call was diverted; who called stays unsaid if they wish."""
        who = "somebody" if wants_anonymity(request) or not caller.authenticated else caller.number
        text = f"Call from {who} forwarded to {number_of(notice.target)}{_WHY.get(notice.kind, '')}"
        self._endpoint.spawn(self._send(notice.served, text))

    def remind(self, aor: str, settings: Diversions) -> None:
        """The user calls somebody: say which of their own diversions are active, as far as they want to be told."""
        rules = settings.own.rules or () if settings.own is not None else ()
        active = [
            rule for rule in rules if rule.notify_served_user_on_outbound_call and settings.applies(rule.condition)
        ]
        if active:
            parts = [f"{number_of(rule.target)}{_WHY[rule.condition]}" for rule in active]
            self._endpoint.spawn(self._send(aor, f"Your calls are forwarded to {', '.join(parts)}"))

    async def _send(self, aor: str, text: str) -> None:
        for target in await self._onward.phones(Diverted(aor)):
            lines = [
                *[("Route", route) for route in target.routes],
                ("Max-Forwards", "70"),
                ("From", f"<sip:{domain_of(aor)}>;tag={new_tag()}"),
                ("To", f"<sip:{aor}>"),
                ("Call-ID", secrets.token_hex(12)),
                ("CSeq", "1 MESSAGE"),
                ("Content-Type", "text/plain"),
            ]
            message = Request("MESSAGE", target.uri, Headers(lines), text.encode())
            self._endpoint.spawn(self._sent(message, target.flow))

    async def _sent(self, message: Request, flow: Flow) -> None:
        await self._endpoint.request(message, flow)
