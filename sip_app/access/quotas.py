"""What one account may ask for: requests a minute, calls at once, and calls to other domains, where money flows.

An account that is not of our domains (a gateway behind a trusted peer) has no quota: its peer answers for it.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request
from provisioning.config import Config
from sip_app.access.guard import Guard
from sip_app.bounds import MAX_TRACKED, RateLimit, make_room
from sip_app.calls.incoming import Rejected
from sip_app.metrics import limited
from sip_app.numbers import spellings

if TYPE_CHECKING:
    from sip_app.element.endpoint import SipEndpoint

HOUR = 3600.0
MINUTE = 60.0
FORGOTTEN_AFTER = 4 * HOUR
"""A call whose end never passed here counts no longer than this."""

CallName = tuple[str, str]
"""Call-ID and the caller's tag. A caller may give several calls one name: each counts."""

log = structlog.get_logger("sip_app.access.quotas")


class Quotas:
    """Counts by address of record; tables are bounded. `clock` is monotonic seconds."""

    def __init__(self, config: Config, guard: Guard, clock: Callable[[], float]) -> None:
        self._guard = guard
        self._clock = clock
        self._calls: dict[str, dict[CallName, list[float]]] = {}
        self._callers: dict[CallName, str] = {}
        self._arriving: dict[ServerTransaction, CallName] = {}
        self._abroad: dict[str, deque[tuple[float, str]]] = {}
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Count by changed limits from now on."""
        self._config = security = config.security
        self._rates = {
            "REGISTER": ("security.registers_per_minute", RateLimit.a_minute(security.registers_per_minute)),
            "INVITE": ("security.calls_per_minute", RateLimit.a_minute(security.calls_per_minute)),
            "": ("security.messages_per_minute", RateLimit.a_minute(security.messages_per_minute)),
        }
        self._denied = [re.compile(pattern) for pattern in security.deny_targets]

    def spend(self, aor: str, method: str) -> None:
        """One more request of an account. Raises `Rejected` 503 when it sends too many."""
        limit, rate = self._rates.get(method) or self._rates[""]
        if not rate.allows(aor, self._clock()):
            limited(limit)
            raise Rejected(503, "Too Many Requests Of This Account", (("Retry-After", "10"),))

    def answer(self, endpoint: "SipEndpoint") -> None:
        """A call that we answer ourselves, whoever calls. Raises `Rejected` 503 while there are too many."""
        if len(endpoint.dialogs) + len(endpoint.early) >= self._config.max_dialogs:
            limited("security.max_dialogs")
            raise Rejected(503, "Too Many Calls", (("Retry-After", "30"),))

    def call(self, endpoint: "SipEndpoint", tx: ServerTransaction, request: Request, aor: str) -> None:
        """A call of an account arrives, and counts until it is refused, ends or `departs`. Raises `Rejected` 486."""
        if tx.answered:  # it was cancelled
            return
        name = request.call_id, request.from_.tag
        self.begin(aor, name)
        self._arriving[tx] = name

        def answered(status: int) -> None:
            if self._arriving.pop(tx, None) is not None and not 200 <= status < 300:
                self.end(name)

        endpoint.at_answer[tx] = answered

    def departs(self, tx: ServerTransaction) -> None:
        """What follows in a call does not pass here, its end neither: the server that has it counts it."""
        name = self._arriving.pop(tx, None)
        if name is not None:
            self.end(name)

    def begin(self, aor: str, name: CallName) -> None:
        """A call of an account begins. Raises `Rejected` 486 when it has too many, 482 for the name of another's.

        (Whoever was called knows that name, and could otherwise keep the caller's call counted for hours.)
        """
        if self._callers.get(name, aor) != aor:
            raise Rejected(482, "Call-ID Of Another's Call")
        now = self._clock()
        if self._running(aor) >= self._config.calls_at_once:
            for old, begun in list(self._calls[aor].items()):
                if now - begun[-1] > FORGOTTEN_AFTER:
                    self._forget(old)
            if self._running(aor) >= self._config.calls_at_once:
                limited("security.calls_at_once")
                raise Rejected(486, "Too Many Calls At Once")
        if len(self._callers) >= 2 * MAX_TRACKED and name not in self._callers:
            self._forget(next(iter(self._callers)))
        self._calls.setdefault(aor, {}).setdefault(name, []).append(now)
        self._callers[name] = aor

    def end(self, name: CallName) -> None:
        """A call is over, or came to nothing."""
        aor = self._callers.get(name)
        if aor is not None:
            begun = self._calls[aor][name]
            del begun[0]
            if not begun:
                self._forget(name)

    def _running(self, aor: str) -> int:
        return sum(len(begun) for begun in self._calls.get(aor, {}).values())

    def _forget(self, name: CallName) -> None:
        aor = self._callers.pop(name)
        del self._calls[aor][name]
        if not self._calls[aor]:
            del self._calls[aor]

    def leave(self, payers: set[str], target: str) -> None:
        """A call leaves for the foreign `number@host` at these accounts' cost. Raises `Rejected` 403."""
        forms = spellings(target)
        if any(pattern.fullmatch(form) for pattern in self._denied for form in forms):
            limited("security.deny_targets")
            raise Rejected(403, "Target Denied")
        for payer in payers:
            self._judge(payer, target)
        now = self._clock()
        for payer in payers:
            if payer not in self._abroad:
                make_room(self._abroad, MAX_TRACKED)
            self._abroad.setdefault(payer, deque()).append((now, target))

    def _judge(self, payer: str, target: str) -> None:
        if self._guard.blocked(payer):
            limited("security.fraud_block_seconds")
            raise Rejected(403, "Calls To Other Domains Are Blocked")
        now, config = self._clock(), self._config
        gone = self._abroad.get(payer, deque())
        while gone and now - gone[0][0] > HOUR:
            gone.popleft()
        if sum(1 for at, _ in gone if now - at <= MINUTE) >= config.foreign_burst:
            limited("security.foreign_burst")
            self._guard.block(payer, config.fraud_block_seconds, "burst of calls to other domains")
            raise Rejected(403, "Calls To Other Domains Are Blocked")
        if len(gone) >= config.foreign_calls_per_hour:
            limited("security.foreign_calls_per_hour")
            raise self._too_many(payer, target)
        targets = {called for _, called in gone}
        if target not in targets and len(targets) >= config.foreign_targets_per_hour:
            limited("security.foreign_targets_per_hour")
            raise self._too_many(payer, target)

    def _too_many(self, payer: str, target: str) -> Rejected:
        log.warning("quotas.abroad", aor=payer, target=target[:100])
        return Rejected(403, "Too Many Calls To Other Domains")
