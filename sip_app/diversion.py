"""Communication diversion (3GPP TS 24.604): unconditional forwarding resolved before any phone rings.

The outcome is typed (`Diverted`): who diverted last, and every hop as History-Info (RFC 7044: index, `mp`, and the
`cause` of RFC 4458 in the URI). Headers are read for it only from trusted peers; Diversion (RFC 5806) is the fallback.
"""

from dataclasses import dataclass, replace

import structlog

from protocols.sip.errors import SipParseError
from protocols.sip.headers import DiversionEntry, HistoryEntry
from protocols.sip.message import Request
from protocols.sip.uri import SipUri
from sip_app.calls import Rejected
from sip_app.numbers import NumberPlan
from sip_app.ports import DiversionSettings

MAX_DIVERSIONS = 5
CAUSE_UNCONDITIONAL = 302

log = structlog.get_logger("sip_app.diversion")


@dataclass(frozen=True, slots=True)
class Diverted:
    """Where a call ends up. `diverted_by` is the address that sent it to `target`; None if nobody did.

    `here` counts the diversions made by this server, which decides on a 181.
    """

    target: str
    diverted_by: str | None = None
    history: tuple[HistoryEntry, ...] = ()
    diversions: tuple[DiversionEntry, ...] = ()
    here: int = 0

    @property
    def history_headers(self) -> list[tuple[str, str]]:
        """The History-Info lines for whoever receives the call, or the 181."""
        return [("History-Info", str(entry)) for entry in self.history]

    @property
    def diversion_headers(self) -> list[tuple[str, str]]:
        """The Diversion lines for a peer that knows no History-Info."""
        return [("Diversion", str(entry)) for entry in self.diversions]

    def contact_entry(self, contact: SipUri, branch: int = 1) -> HistoryEntry | None:
        """The entry of the registered contact the call is sent to (`rc`), or None for a call with no history."""
        if not self.history:
            return None
        last = self.history[-1].index
        return HistoryEntry(contact.without_params(), f"{last}.{branch}", (("rc", last),))


def arrived(request: Request, target: str, plan: NumberPlan, *, trusted: bool) -> Diverted:
    """What the headers of a trusted peer say of diversions before the call came here."""
    if not trusted:
        return Diverted(target)
    try:
        history, diversions = request.history, request.diversions
    except SipParseError:
        return Diverted(target)
    diverted_by = None
    by_index = {entry.index: entry for entry in history}
    for entry in reversed(history):
        if plan.aor(entry.uri) == target:
            before = by_index.get(_parent(entry))
            diverted_by = plan.aor(before.uri) if before is not None else None
            break
    if diverted_by is None and diversions:
        diverted_by = plan.aor(diversions[0].uri)
    if diverted_by == target:
        diverted_by = None
    return Diverted(target, diverted_by, history, diversions)


def _parent(entry: HistoryEntry) -> str:
    stated = next((value for name, value in entry.params if name.lower() in ("mp", "rc", "np") and value), None)
    return stated or entry.index.rpartition(".")[0]


class DiversionStep:
    """Follows forwarding from number to number until one keeps the call."""

    def __init__(self, settings: DiversionSettings, plan: NumberPlan) -> None:
        self._settings = settings
        self._plan = plan

    async def resolve(self, call: Diverted) -> Diverted:
        """Apply forwarding to `call.target`. Raises `Rejected`: 482 for a loop, 480 past the hop limit."""
        before = sum(1 for entry in call.history if entry.cause is not None) or len(call.diversions)
        visited = {call.target}
        while not self._plan.is_service(call.target):
            settings = await self._settings.get(call.target)
            if settings.overlay is not None:
                target = self._plan.expand(settings.overlay.target)
            elif (rule := settings.applies("unconditional")) is not None:
                target = self._plan.expand(rule.target)
            else:
                break
            if target in visited:
                raise Rejected(482, "Forwarding Loop")
            if before + call.here >= MAX_DIVERSIONS:
                raise Rejected(480, "Too Many Diversions")
            visited.add(target)
            call = self._hop(call, target)
            log.info("diversion.applied", diverted_by=call.diverted_by, target=target)
        return call

    def _hop(self, call: Diverted, target: str) -> Diverted:
        user, _, host = call.target.partition("@")
        here = SipUri(host, user)
        history = call.history or (HistoryEntry(here, "1"),)
        last = history[-1].index
        user, _, host = target.partition("@")
        there = SipUri(host, user, params=(("cause", str(CAUSE_UNCONDITIONAL)),))
        return replace(
            call,
            target=target,
            diverted_by=call.target,
            history=(*history, HistoryEntry(there, f"{last}.1", (("mp", last),))),
            diversions=(DiversionEntry(here, "unconditional"), *call.diversions),
            here=call.here + 1,
        )
