"""Service codes dialled as calls (3GPP TS 22.030 section 6.5.2, Annex B) for unconditional forwarding.

A code is a one-shot call: its change is durable, then it is answered 200 with inactive audio (on port 9, never 0: some
phones would hang up), and after the ACK the server sends BYE, the outcome as text in its Reason.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from protocols.records import Diversions, Forwarding
from protocols.sdp import Format, Media, Origin, SdpError, SessionDescription, answer_media, parse, reject
from protocols.sip.headers import Reason
from sip_app.calls import BroadcastService, IncomingCall, Rejected
from sip_app.numbers import NumberPlan, number_of
from sip_app.ports import Credentials, DiversionSettings

Operation = Literal["activate", "register", "deactivate", "erase", "interrogate"]
DISCARD_PORT = 9
_CODE = re.compile(r"(\*\*|\*#|\*|##|#)([0-9]{2,3})(?:\*(\+?[0-9]{1,20}))?#")
_OPERATIONS: dict[str, Operation] = {
    "*": "activate", "**": "register", "#": "deactivate", "##": "erase", "*#": "interrogate",
}  # fmt: skip
_WITH_NUMBER = ("activate", "register")

log = structlog.get_logger("sip_app.codes")


@dataclass(frozen=True, slots=True)
class Code:
    """A well-formed code: what to do, with which service, for which number ("" if none was given)."""

    operation: Operation
    service: str
    number: str = ""


def parse_code(text: str) -> Code:
    """Read a code as dialled, `#` also as `%23`. Raises `Rejected` 484."""
    match = _CODE.fullmatch(text.replace("%23", "#"))
    if match is None:
        raise Rejected(484, "Malformed Service Code")
    code = Code(_OPERATIONS[match[1]], match[2], match[3] or "")
    if (code.number and code.operation not in _WITH_NUMBER) or (code.operation == "register" and not code.number):
        raise Rejected(484, "Malformed Service Code")
    return code


def inactive_answer(offer: bytes, host: str) -> bytes:
    """The SDP of a call that carries nothing: audio inactive on port 9. Raises `Rejected` 488 for a bad offer."""
    connection = "::" if ":" in host else "0.0.0.0"
    if not offer:
        media = (Media("audio", DISCARD_PORT, formats=(Format(0, "PCMU", 8000),), direction="inactive"),)
        return SessionDescription(Origin(address=host), connection=connection, media=media).serialise()
    try:
        offered = parse(offer)
    except SdpError:
        raise Rejected(488, "Unreadable SDP") from None
    answered = tuple(
        replace(
            answer_media(m, port=DISCARD_PORT, connection="", formats=m.formats[:1], direction="inactive"),
            ice_ufrag="",
            ice_pwd="",
        )
        if m.kind == "audio" and m.formats and m.port
        else reject(m)
        for m in offered.media
    )
    return SessionDescription(Origin(address=host), connection=connection, media=answered).serialise()


class ServiceCodes:
    """Carries out codes. `host` is what our SDP shows as origin; nothing is ever sent there."""

    def __init__(
        self,
        plan: NumberPlan,
        forwarding_code: str,
        diversions: DiversionSettings,
        credentials: Credentials,
        service: BroadcastService | None,
        host: str,
    ) -> None:
        self._plan = plan
        self._forwarding_code = forwarding_code
        self._diversions = diversions
        self._credentials = credentials
        self._service = service
        self._host = host

    async def serve(self, call: IncomingCall, dialled: str) -> None:
        """Do what a code asks and answer its call. Raises `Rejected`: 484 malformed, 403 forbidden, 404 no such."""
        code = parse_code(dialled)
        if not call.caller.authenticated:
            raise Rejected(403, "Codes Need Authentication")
        if code.service != self._forwarding_code:
            raise Rejected(404, "No Such Service")
        body = inactive_answer(call.offer, self._host)
        outcome = await self.apply(call.caller.aor, code)
        log.info("code.accepted", aor=call.caller.aor, operation=code.operation, number=code.number, outcome=outcome)
        dialog = await call.answer(body=body, app={"kind": "code"})
        await dialog.acked.wait()
        await dialog.bye(str(Reason("SIP", 200, outcome)))

    async def apply(self, aor: str, code: Code) -> str:
        """Change or read the settings of `aor`; durable on return. The outcome in words."""
        settings = await self._diversions.get(aor)
        if code.operation == "interrogate":
            return _state(settings)
        if code.number:
            return await self._register(aor, code)
        own = settings.own
        if own is None:
            raise Rejected(404, "No Forwarding Registered")
        target = number_of(own.target)
        if code.operation == "erase":
            await self._diversions.set_own(aor, None)
            return f"Forwarding to {target} erased"
        active = code.operation == "activate"
        await self._diversions.set_own(aor, replace(own, active=active))
        return f"Forwarding to {target} {'active' if active else 'inactive'}"

    async def _register(self, aor: str, code: Code) -> str:
        target = await self._target(aor, code.number)
        number = number_of(target)
        if self._service is not None and code.operation == "activate" and self._plan.is_service(target):
            outcome = await self._service.activate_overlay(aor)
            if outcome == "too early or too late":
                # A terminal's own code that missed its broadcast must not become the user's forwarding.
                raise Rejected(480, "Broadcast Not Open")
            if outcome == "active":
                return f"Forwarding to {number} active"
        await self._diversions.set_own(aor, Forwarding(target, active=True))
        return f"Forwarding to {number} active"

    async def _target(self, aor: str, number: str) -> str:
        """The key one may forward to: a service number, another subscriber, or what an operator's pattern allows."""
        target = self._plan.expand(number.lstrip("+"))
        if self._plan.is_service(target) or self._plan.may_leave_for(self._plan.expand(number)):
            return target
        if target == aor or await self._credentials.find(target) is None:
            raise Rejected(403, "Forwarding Target Not Allowed")
        return target


def _state(settings: Diversions) -> str:
    parts = []
    if settings.overlay is not None:
        parts.append(f"Broadcast forwarding to {number_of(settings.overlay.target)} active")
    if settings.own is None:
        parts.append("No forwarding registered")
    else:
        parts.append(
            f"Forwarding to {number_of(settings.own.target)} {'active' if settings.own.active else 'inactive'}"
        )
    return "; ".join(parts)
