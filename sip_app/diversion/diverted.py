"""Communication diversion (3GPP TS 24.604): which number a call goes to, and how that is told.

The outcome is typed (`Diverted`): who diverted last, and every hop as History-Info (RFC 7044: index, `mp`, and the
`cause` of RFC 4458 in the URI). Headers are read for it only from trusted peers; Diversion (RFC 5806) is the fallback.
Each hop is kept twice, as the next target and as the caller may see it: the options of a rule differ for the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from protocols.records import Condition, DiversionRule, Diversions
from protocols.sip.errors import SipParseError
from protocols.sip.headers import DiversionEntry, HistoryEntry
from protocols.sip.message import Request
from protocols.sip.uri import SipUri
from provisioning.config import Config
from sip_app.bounds import RateLimit
from sip_app.calls.incoming import Rejected
from sip_app.diversion.history import made_private, wants_privacy, with_reason
from sip_app.metrics import DIVERSIONS, limited
from sip_app.numbers import NumberPlan
from sip_app.ports import DiversionSettings

Kind = Condition | Literal["deflection", "deflection while ringing"]
History = tuple[HistoryEntry, ...]
_NOTHING_SET = Diversions()

_CAUSES: dict[Kind, tuple[int, str]] = {
    "unconditional": (302, "unconditional"),
    "busy": (486, "user-busy"),
    "no-answer": (408, "no-answer"),
    "not-registered": (404, "unavailable"),
    "not-reachable": (503, "unavailable"),
    "deflection": (480, "deflection"),
    "deflection while ringing": (487, "deflection"),
}
"""The cause in History-Info (RFC 4458, TS 24.604) and the reason in Diversion (RFC 5806)."""

log = structlog.get_logger("sip_app.diversion.diverted")


@dataclass(frozen=True, slots=True)
class Notice:
    """A call was diverted whose `served` user wants to hear of it."""

    served: str
    target: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Diverted:
    """Where a call ends up. `diverted_by` is the address that sent it to `target`; None if nobody did.

    `history` is for whoever receives the call next, `shown` for the caller. `here` counts the diversions made by this
    server, `before` those made elsewhere.
    """

    target: str
    diverted_by: str | None = None
    history: History = ()
    diversions: tuple[DiversionEntry, ...] = ()
    here: int = 0
    before: int = 0
    at: str = ""
    """The index of the entry that stands for `target`; "" while there is no history."""
    shown: History = ()
    visited: frozenset[str] = frozenset()
    settings: Diversions = _NOTHING_SET
    """What the number it ends up at has set."""
    tell: tuple[History, ...] = ()
    """The history of each 181 the caller is still to get."""
    notices: tuple[Notice, ...] = ()
    """Who is still to hear of a diversion."""
    hidden: bool = False
    """The caller wants no stranger to see the history."""
    uri: SipUri | None = None
    """The target as the phone that deflected the call wrote it."""
    nameless: bool = False
    """The target must not learn who forwarded the call to it."""

    @property
    def named(self) -> str:
        """What To shall hold for the target: its own URI if the number that was called must not show, else ""."""
        return str(_uri(self.target)) if self.nameless else ""

    def foreign_uri(self) -> SipUri:
        """The Request-URI of a call that leaves for another domain: the target, and why it comes there (RFC 4458)."""
        uri = self.uri or _uri(self.target)
        cause = self.history[-1].cause if self.here else None
        return uri if cause is None else uri.with_param("cause", str(cause))

    def contact_entry(self, contact: SipUri, branch: int = 1) -> HistoryEntry | None:
        """The entry of the registered contact the call is sent to (`rc`), or None for a call with no history."""
        if not self.history:
            return None
        at = self.at or self.history[-1].index
        return HistoryEntry(contact.without_params(), f"{at}.{_children(self.history, at) + branch}", (("rc", at),))

    def tried(self, contacts: Sequence[SipUri], statuses: Sequence[int]) -> "Diverted":
        """The call after its target's phones were tried in vain: each is an entry with the response it gave.

        They are private: whom the call goes to next need not know those phones' addresses.
        """
        call = self._begun()
        entries = []
        for branch, (contact, status) in enumerate(zip(contacts, statuses, strict=True), 1):
            entry = call.contact_entry(contact, branch)
            assert entry is not None
            entries.append(made_private(with_reason(entry, status)))
        return replace(call, history=(*call.history, *entries), shown=(*call.shown, *entries))

    def _begun(self) -> "Diverted":
        """With an entry for the number that was called, where the history begins."""
        if self.history:
            return self
        first = (HistoryEntry(_uri(self.target), "1"),)
        return replace(self, history=first, shown=first, at="1")

    def hop(self, target: str, kind: Kind, rule: DiversionRule | None, uri: SipUri | None = None) -> "Diverted":
        """The call on its way to `target` (`uri` as written); a deflection has no rule, and the default options."""
        call = self._begun()
        rule = rule or DiversionRule("unconditional", target)
        cause, word = _CAUSES[kind]
        index = f"{call.at}.{_children(call.history, call.at) + 1}"
        entry = HistoryEntry(replace(_uri(target), params=(("cause", str(cause)),)), index, (("mp", call.at),))
        history = _hiding(call.history, call.at, hide=rule.reveal_identity_to_target == "false")
        shown = _hiding(call.shown, call.at, hide=rule.reveal_served_user_identity_to_caller == "false")
        seen = made_private(entry) if rule.reveal_identity_to_caller == "false" else entry
        shown = (*shown, seen)
        privacy = (("privacy", "full"),) if rule.reveal_identity_to_target == "false" else ()
        return replace(
            call,
            target=target,
            uri=uri,
            nameless=call.nameless or rule.reveal_identity_to_target == "false",
            diverted_by=call.target,
            history=(*history, entry),
            diversions=(DiversionEntry(_uri(call.target), word, params=privacy), *call.diversions),
            here=call.here + 1,
            at=index,
            shown=shown,
            visited=call.visited | {call.target},
            tell=call.tell if rule.notify_caller is False else (*call.tell, shown),
            notices=(*call.notices, Notice(call.target, target, kind)) if rule.notify_served_user else call.notices,
        )


def arrived(request: Request, target: str, plan: NumberPlan, *, trusted: bool) -> Diverted:
    """What the headers of a trusted peer say of diversions before the call came here."""
    call = Diverted(target, hidden=wants_privacy(request))
    if not trusted:
        return call
    try:
        history, diversions = request.history, request.diversions
    except SipParseError:
        return call
    diverted_by, at = None, history[-1].index if history else ""
    by_index = {entry.index: entry for entry in history}
    for entry in reversed(history):
        if plan.aor(entry.uri) == target:
            before = by_index.get(_parent(entry))
            diverted_by = plan.aor(before.uri) if before is not None else None
            at = entry.index
            break
    if diverted_by is None and diversions:
        diverted_by = plan.aor(diversions[0].uri)
    if diverted_by == target:
        diverted_by = None
    hops = sum(1 for entry in history if entry.cause is not None) or len(diversions)
    visited = {plan.aor(entry.uri) for entry in history if "rc" not in dict(entry.params)}
    return replace(
        call,
        diverted_by=diverted_by,
        history=history,
        diversions=diversions,
        before=hops,
        at=at,
        shown=history,
        visited=frozenset(aor for aor in visited if aor is not None and aor != target),
    )


def _parent(entry: HistoryEntry) -> str:
    stated = next((value for name, value in entry.params if name.lower() in ("mp", "rc", "np") and value), None)
    return stated or entry.index.rpartition(".")[0]


def _uri(aor: str) -> SipUri:
    user, _, host = aor.partition("@")
    return SipUri(host, user)


def _children(history: History, index: str) -> int:
    """How many places were tried already from the entry with this index."""
    return sum(1 for entry in history if entry.index.rpartition(".")[0] == index)


def _hiding(history: History, index: str, *, hide: bool) -> History:
    return tuple(made_private(entry) if hide and entry.index == index else entry for entry in history)


class DiversionStep:
    """Follows forwarding from number to number until one keeps the call."""

    def __init__(self, config: Config, settings: DiversionSettings, plan: NumberPlan) -> None:
        self._settings = settings
        self._plan = plan
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Take the limits of a changed configuration."""
        self._max = config.diversion.max_diversions
        self._notices = RateLimit.a_minute(config.diversion.notices_per_minute)
        self.deflection_targets = config.diversion.max_deflection_targets
        self._no_reply = config.diversion.no_reply_timer

    async def resolve(self, call: Diverted) -> Diverted:
        """Apply unconditional forwarding to `call.target`. Raises `Rejected`: 482 for a loop, 480 past the limit."""
        while not self._plan.is_service(call.target):
            settings = await self._settings.get(call.target)
            if settings.overlay is not None:
                call = self.divert(call, self._plan.expand(settings.overlay.target, call.target), "unconditional")
            elif (rule := settings.applies("unconditional")) is not None:
                call = self.divert(call, rule.target, "unconditional", rule)
            else:
                return replace(call, settings=settings)
        return call

    def divert(
        self, call: Diverted, target: str, kind: Kind, rule: DiversionRule | None = None, uri: SipUri | None = None
    ) -> Diverted:
        """One hop. Raises `Rejected`: 482 for a loop; past the limit 480, or 486 if the phone was busy (TS 24.604)."""
        target = self._plan.expand(target, call.target)
        if target == call.target or target in call.visited:
            raise Rejected(482, "Forwarding Loop")
        if call.before + call.here >= self._max:
            limited("diversion.max_diversions")
            raise Rejected(486 if kind == "busy" else 480, "Too Many Diversions")
        call = call.hop(target, kind, rule, uri)
        DIVERSIONS.labels(kind).inc()
        log.info("diversion.applied", diverted_by=call.diverted_by, target=target, kind=kind)
        return call

    async def settings(self, aor: str) -> Diversions:
        """What this number has set; nothing, if it is of another domain."""
        return await self._settings.get(aor) if self._plan.local(aor) else _NOTHING_SET

    def may_tell(self, aor: str, now: float) -> bool:
        """False for a user whose phones have had as many notices as they shall have in a minute."""
        if not self._notices.allows(aor, now):
            limited("diversion.notices_per_minute")
            return False
        return True

    def patience(self, settings: Diversions) -> float | None:
        """Seconds a phone may ring before forwarding on no reply applies; None if it never does."""
        if settings.applies("no-answer") is None or settings.own is None:
            return None
        return float(settings.own.no_reply_timer or self._no_reply)
