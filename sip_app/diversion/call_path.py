"""The way of a call from number to number until somebody keeps it (3GPP TS 24.604).

Unconditional forwarding is followed before any phone rings; the other kinds act on what becomes of the phones: busy, no
reply, nobody registered, nobody reachable, or deflected by a phone's own 302. A CANCEL ends it at any moment, and what
was set when the phones began to ring is what counts.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Protocol

from protocols.records import Condition
from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.headers import NameAddr, Reason
from protocols.sip.message import Request, Response
from protocols.sip.uri import SipUri
from sip_app.calls.incoming import Caller, Rejected
from sip_app.diversion.diverted import DiversionStep, Diverted, Kind
from sip_app.diversion.notices import Notices
from sip_app.diversion.targets import ForwardingTargets
from sip_app.element.endpoint import SipEndpoint
from sip_app.metrics import limited
from sip_app.proxy.fork import Fork, Outcome
from sip_app.proxy.onward import NobodyThere, still_wanted

_BUSY = (486, 600)
_UNREACHABLE = frozenset((408, 430, 503))
_NO_ANSWER = (408, 480)
_DEFLECTING = (301, 302)


class Place(Protocol):
    """Puts a call where its diversions led: to our own service, another domain, or phones. Raises `Rejected`."""

    async def __call__(
        self, tx: ServerTransaction, request: Request, caller: Caller, call: Diverted, ringing: "Ringing"
    ) -> None: ...


class CallPath:
    """Carries calls along their way."""

    def __init__(
        self, endpoint: SipEndpoint, step: DiversionStep, targets: ForwardingTargets, notices: Notices, place: Place
    ) -> None:
        self.endpoint = endpoint
        self.step = step
        self.targets = targets
        self._notices = notices
        self._place = place

    async def begin(self, tx: ServerTransaction, request: Request, caller: Caller, call: Diverted) -> None:
        """A new call. Raises `Rejected`."""
        if caller.authenticated:
            self._notices.remind(caller.aor, await self.step.settings(caller.aor))
        await self.follow(tx, request, caller, call)

    async def follow(self, tx: ServerTransaction, request: Request, caller: Caller, call: Diverted) -> None:
        """On from wherever the call is now. Raises `Rejected`."""
        while True:
            call = await self.step.resolve(call)
            for notice in call.notices:
                if self.step.may_tell(notice.served, self.endpoint.loop.time()):
                    self._notices.diverted(notice, request, caller)
            call = replace(call, notices=())
            try:
                await self._place(tx, request, caller, call, Ringing(self, tx, request, caller, call))
                return
            except NobodyThere as nobody:
                diverted = self.by_rule(call, nobody.condition)
                if diverted is None:
                    raise
                call = diverted

    def by_rule(self, call: Diverted, condition: Condition) -> Diverted | None:
        """The call one hop further, if its number forwards on this condition; None if not, or if it must not."""
        rule = call.settings.applies(condition)
        if rule is None or call.settings.overlay is not None:
            return None
        try:
            return self.step.divert(call, rule.target, condition, rule)
        except Rejected:  # a loop, or too many: what the phones said is the answer
            return None


class Ringing:
    """The phones of one number ring for one call (`ForkUser`). `contacts` are theirs, as the fork tries them."""

    def __init__(self, path: CallPath, tx: ServerTransaction, request: Request, caller: Caller, call: Diverted) -> None:
        self.contacts: Sequence[SipUri] = ()
        self.patience = path.step.patience(call.settings)
        self._path = path
        self._tx = tx
        self._request = request
        self._caller = caller
        self._call = call

    def redirected(self, fork: Fork, response: Response) -> bool:
        """Communication deflection: the phone says where the call shall go instead."""
        if response.status not in _DEFLECTING:
            return False
        try:
            wanted = sorted(response.contacts, key=lambda contact: -contact.q)
        except SipParseError:
            return False
        fork.abandon(Reason("SIP", response.status, "Deflected"))
        self._go_on(self._deflect(self._tried(fork), wanted, rang=fork.rang))
        return True

    def no_reply(self, fork: Fork) -> None:
        """It rang for long enough."""
        self._divert(fork, "no-answer", Reason("SIP", 408, "Forwarded on no reply"))

    def failed(self, fork: Fork, outcome: Outcome) -> bool:
        """Nobody takes the call here."""
        status = outcome.best.status
        condition: Condition
        if status in _BUSY:
            condition = "busy"
        elif outcome.rang and status in _NO_ANSWER:
            condition = "no-answer"
        elif not outcome.rang and _UNREACHABLE.issuperset(outcome.statuses):
            condition = "not-reachable"
        else:
            return False
        return self._divert(fork, condition, Reason("SIP", status))

    def _divert(self, fork: Fork, condition: Condition, reason: Reason) -> bool:
        diverted = self._path.by_rule(self._tried(fork), condition)
        if diverted is None:
            return False
        fork.abandon(reason)
        self._go_on(self._follow(diverted))
        return True

    def _tried(self, fork: Fork) -> Diverted:
        """The call with what it told already left out, and these phones in its history."""
        return replace(self._call, tell=()).tried(self.contacts, fork.statuses)

    def _go_on(self, work: Coroutine[object, object, None]) -> None:
        self._path.endpoint.serve(self._tx, self._request, work)

    async def _deflect(self, call: Diverted, wanted: Sequence[NameAddr], *, rang: bool) -> None:
        most = self._path.step.deflection_targets
        if len(wanted) > most:
            limited("diversion.max_deflection_targets")
        for contact in wanted[:most]:
            target = await self._path.targets.find(call.target, contact.uri)
            if target is not None:
                kind: Kind = "deflection while ringing" if rang else "deflection"
                written = replace(contact.uri, headers=()) if isinstance(contact.uri, SipUri) else None
                await self._follow(self._path.step.divert(call, target, kind, uri=written))
                return
        raise Rejected(480, "Deflected To Nowhere Allowed")

    async def _follow(self, call: Diverted) -> None:
        if still_wanted(self._tx):
            await self._path.follow(self._tx, self._request, self._caller, call)
