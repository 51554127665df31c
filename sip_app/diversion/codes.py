"""Service codes dialled as calls (3GPP TS 22.030 section 6.5.2, Annex B) for communication diversion (TS 24.604).

A code is a one-shot call: its change is durable, then it is answered 200 and, to a caller who offers to listen, the
outcome is spoken; else the answer is inactive audio (on port 9, never 0: some phones would hang up). After that, or
after the ACK, the server sends BYE, the outcome as text in its Reason.
"""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import structlog

from protocols.prompts import Prompt, digits
from protocols.records import Condition, DiversionRules, Diversions
from protocols.sdp import Format, Media, Origin, SdpError, SessionDescription, answer_media, parse, reject
from protocols.sip.headers import Reason
from sip_app.calls.incoming import BroadcastService, IncomingCall, Rejected
from sip_app.diversion.rules import erased, registered, switched
from sip_app.diversion.targets import ForwardingTargets
from sip_app.numbers import NumberPlan, number_of
from sip_app.ports import DiversionSettings

if TYPE_CHECKING:
    from sip_app.broadcast.announcements import Announcements

Operation = Literal["activate", "register", "deactivate", "erase", "interrogate"]
DISCARD_PORT = 9
_CODE = re.compile(
    r"(\*\*|\*#|\*|##|#)([0-9]{2,3})(?:\*(\+?[0-9]{1,20})?(?:\*([0-9]{2})?(?:\*([0-9]{1,2}))?)?)?(?<!\*)#"
)
_OPERATIONS: dict[str, Operation] = {
    "*": "activate", "**": "register", "#": "deactivate", "##": "erase", "*#": "interrogate",
}  # fmt: skip
_WITH_NUMBER = ("activate", "register")

log = structlog.get_logger("sip_app.diversion.codes")


@dataclass(frozen=True, slots=True)
class Code:
    """A well-formed code: what to do, with which service, for which number ("" if none was given).

    `bearer` is the basic service it names (TS 22.030 Annex C), to which all calls belong here; `timer` seconds.
    """

    operation: Operation
    service: str
    number: str = ""
    bearer: str = ""
    timer: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What a service code stands for: the conditions it sets, and how its outcome is told."""

    name: str
    conditions: tuple[Condition, ...]


_CONDITIONAL: tuple[Condition, ...] = ("busy", "no-answer", "not-registered", "not-reachable")
_SERVICES = {
    "67": Service("Forwarding on busy", ("busy",)),
    "61": Service("Forwarding on no reply", ("no-answer",)),
    "62": Service("Forwarding when not reachable", ("not-registered", "not-reachable")),
    "002": Service("All forwarding", ("unconditional", *_CONDITIONAL)),
    "004": Service("Conditional forwarding", _CONDITIONAL),
}
_TIMED = {code for code, service in _SERVICES.items() if "no-answer" in service.conditions}
_TIMES = range(5, 31, 5)


def parse_code(text: str) -> Code:
    """Read a code as dialled, `#` also as `%23`. Raises `Rejected` 484."""
    match = _CODE.fullmatch(text.replace("%23", "#"))
    if match is None:
        raise Rejected(484, "Malformed Service Code")
    timer = int(match[5]) if match[5] else None
    code = Code(_OPERATIONS[match[1]], match[2], match[3] or "", match[4] or "", timer)
    if ((code.number or timer is not None) and code.operation not in _WITH_NUMBER) or (
        code.operation == "register" and not code.number
    ):
        raise Rejected(484, "Malformed Service Code")
    if timer is not None and (code.service not in _TIMED or timer not in _TIMES):
        raise Rejected(484, "No Reply Time Is 5 To 30 In Steps Of 5")
    return code


def _offered(call: IncomingCall) -> SessionDescription | None:
    """The offer, None where there is none. Raises `Rejected` 488 for one that cannot be read."""
    try:
        return parse(call.offer) if call.offer else None
    except SdpError:
        raise Rejected(488, "Unreadable SDP") from None


def inactive_answer(offered: SessionDescription | None, host: str) -> bytes:
    """The SDP of a call that carries nothing: audio inactive on port 9."""
    connection = "::" if ":" in host else "0.0.0.0"
    if offered is None:
        media = (Media("audio", DISCARD_PORT, formats=(Format(0, "PCMU", 8000),), direction="inactive"),)
        return SessionDescription(Origin(address=host), connection=connection, media=media).serialise()
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
        targets: ForwardingTargets,
        service: BroadcastService | None,
        host: str,
    ) -> None:
        self._plan = plan
        self._services = _SERVICES | {forwarding_code: Service("Forwarding", ("unconditional",))}
        self._diversions = diversions
        self._targets = targets
        self._service = service
        self._host = host
        self.announcements: Announcements | None = None
        """Speaks outcomes to callers who can hear them."""

    async def serve(self, call: IncomingCall, dialled: str) -> None:
        """Do what a code asks and answer its call. Raises `Rejected`: 484 malformed, 403 forbidden, 404 no such."""
        try:
            await self._serve(call, dialled)
        except Rejected as refusal:
            if self.announcements is None:
                raise
            await self.announcements.refuse(call, refusal, "invalid")

    async def _serve(self, call: IncomingCall, dialled: str) -> None:
        code = parse_code(dialled)
        if not call.caller.authenticated:
            raise Rejected(403, "Codes Need Authentication")
        offered = _offered(call)
        outcome = await self.apply(call.caller.aor, code)
        log.info("code.accepted", aor=call.caller.aor, operation=code.operation, number=code.number, outcome=outcome)
        reason = str(Reason("SIP", 200, outcome))
        if self.announcements is not None and await self.announcements.confirm(
            call, offered, spoken(code, outcome), reason
        ):
            return
        body = inactive_answer(offered, self._host)
        dialog = await call.answer(body=body, app={"kind": "code"}, lasting=False)
        await dialog.acked.wait()
        await dialog.bye(reason)

    async def apply(self, aor: str, code: Code) -> str:
        """Change or read the settings of `aor`; durable on return. The outcome in words. Raises `Rejected`."""
        service = self._services.get(code.service)
        if service is None:
            raise Rejected(404, "No Such Service")
        if code.operation == "interrogate":
            return _state(await self._diversions.get(aor), service)
        if code.operation == "erase":
            known = (await self._diversions.get(aor)).own
            await self._diversions.change(aor, lambda own: erased(own, service.conditions))
            return _told(service, known, "erased")
        if not code.number:
            active = code.operation == "activate"
            rules = await self._diversions.change(
                aor, lambda own: switched(own, service.conditions, active=active, timer=code.timer)
            )
            return _told(service, rules, "active" if active else "inactive")
        target = await self._targets.find(aor, code.number)
        if target is None:
            raise Rejected(403, "Forwarding Target Not Allowed")
        broadcast = service.conditions == ("unconditional",) and self._plan.is_service(target)
        if self._service is not None and code.operation == "activate" and broadcast:
            outcome = await self._service.activate_overlay(aor)
            if outcome == "too early or too late":
                # A terminal's own code that missed its broadcast must not become the user's forwarding.
                raise Rejected(480, "Broadcast Not Open")
            if outcome == "active":
                return f"Forwarding to {number_of(target)} active"
        rules = await self._diversions.change(
            aor, lambda own: registered(own, service.conditions, target, timer=code.timer)
        )
        return _told(service, rules, "active")


def spoken(code: Code, outcome: str) -> tuple[Prompt, ...]:
    """What is said by voice of a code's outcome: of a question, the first number calls go to."""
    match code.operation:
        case "deactivate":
            return ("deactivated",)
        case "erase":
            return ("erased",)
        case "interrogate":
            if forwarded := re.search(r" to \+?([0-9]+) active", outcome):
                return ("forwarded-to", *digits(forwarded[1]))
            return ("deactivated",) if outcome.endswith(" inactive") else ("not-registered",)
    return ("active",)


def _told(service: Service, rules: DiversionRules | None, outcome: str) -> str:
    """What became of a service's rules, as in `Forwarding on no reply after 20 s to 1003 active`."""
    known = rules or DiversionRules()
    found = [rule for condition in service.conditions if (rule := known.rule(condition)) is not None]
    targets = {number_of(rule.target) for rule in found}
    after = f" after {known.no_reply_timer} s" if known.no_reply_timer and service.conditions == ("no-answer",) else ""
    return f"{service.name}{after}{f' to {targets.pop()}' if len(targets) == 1 else ''} {outcome}"


def _state(settings: Diversions, service: Service) -> str:
    parts = []
    if settings.overlay is not None and "unconditional" in service.conditions:
        parts.append(f"Broadcast forwarding to {number_of(settings.overlay.target)} active")
    rules = settings.own or DiversionRules()
    for single in [*_SINGLE] if len(service.conditions) > 2 else [service]:
        rule = next((found for condition in single.conditions if (found := rules.rule(condition))), None)
        if rule is not None:
            in_force = settings.applies(rule.condition) is not None
            parts.append(_told(single, rules, "active" if in_force else "inactive"))
        elif single is service:
            parts.append(f"No f{service.name[1:]} registered")
    return "; ".join(parts) or "No forwarding registered"


_SINGLE = (Service("Forwarding", ("unconditional",)), *(_SERVICES[code] for code in ("67", "61", "62")))
