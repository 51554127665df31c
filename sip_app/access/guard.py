"""Who is blocked: addresses that guess passwords or try numbers out, and accounts whose calls look like fraud.

A UDP source can be forged, so only what proves its address counts against it: credentials made with a nonce that went
there, requests over a connection, requests of an authenticated caller. Otherwise a stranger could have anybody
blocked. And a block does not reach a phone that is known: one whose credentials carry a nonce it has used with the
right password before, which nobody else at its address can know. IPv6 addresses count by their /64.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

import structlog

from protocols.sip.errors import SipParseError
from protocols.sip.headers import AuthParams
from protocols.sip.message import Request
from provisioning.config import Config
from sip_app.bounds import MAX_TRACKED, make_room
from sip_app.metrics import limited

FIRST_DELAY = 0.25
_CREDENTIALS = ("authorization", "proxy-authorization")

log = structlog.get_logger("sip_app.access.guard")


@dataclass(slots=True)
class _Marks:
    """What counts against one address since `since`."""

    since: float
    failures: int = 0
    scans: int = 0
    asked: int = 0
    """Challenges over connections that nobody answered."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block that stands: an address or an account, why, and for how many seconds more."""

    who: str
    why: str
    seconds: float


@lru_cache(4096)
def place_of(host: str) -> str:
    """What counts as one address: an IPv4 host, or the /64 of an IPv6 one, which is a household's.

    What is no address, as a Via may hold, stays as it is.
    """
    host = host.removeprefix("::ffff:") if "." in host else host
    try:
        return str(ip_network(f"{host}/64", strict=False)) if ":" in host and "/" not in host else host
    except ValueError:
        return host


class Guard:
    """Counts failures, blocks and lifts. `clock` is monotonic seconds."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: dict[str, _Marks] = {}
        self._blocks: dict[str, tuple[float, str]] = {}
        self._known: dict[str, None] = {}
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Judge by a changed configuration from now on; blocks that stand go on."""
        self._config = config.security
        ours = (*config.sip.trusted_peers, *config.sip.edge_proxies)
        self._spared = [ip_network(text) for text in (*config.security.never_block, *ours)]
        self._scanners = re.compile(config.security.scanners, re.IGNORECASE)

    # What is asked of every request

    def refuses(self, request: Request, host: str) -> bool:
        """True for a scanner, and for what comes from a blocked address and is neither a call's nor a known phone's."""
        if request.method in ("ACK", "CANCEL") or request.to.tag:
            return False
        if self._scans(request):
            limited("security.scanners")
            return True
        if not self._blocks or not self.blocked(place_of(host)) or self._knows(request):
            return False
        limited("security.block_seconds")
        return True

    def blocked(self, who: str) -> bool:
        """Whether an address (see `place_of`) or an account is blocked now."""
        block = self._blocks.get(who)
        if block is None:
            return False
        if block[0] > self._clock():
            return True
        self.lift(who)
        return False

    # What is told

    def failed(self, host: str) -> float:
        """A wrong password from a proven address: how many seconds its answer shall wait."""
        marks = self._of(host)
        if marks is None:
            return 0.0
        marks.failures += 1
        config = self._config
        if marks.failures >= config.failures_before_block:
            self._block_address(host, "wrong passwords", "security.failures_before_block")
        beyond = marks.failures - config.failures_before_delay
        return min(config.delay_max, FIRST_DELAY * 2.0 ** min(beyond - 1, 20)) if beyond > 0 else 0.0

    def scanned(self, host: str, *, challenged: bool = False) -> None:
        """A number or code that is not there, from a proven address; or a challenge, which it may yet answer."""
        marks = self._of(host)
        if marks is not None:
            marks.asked += challenged
            marks.scans += not challenged
            if marks.scans + marks.asked >= self._config.scans_before_block:
                self._block_address(host, "scanning", "security.scans_before_block")

    def authenticated(self, host: str, nonce: str) -> None:
        """The right password: one challenge answered, and a phone known by this nonce from now on."""
        if self._marks and (marks := self._marks.get(place_of(host))) is not None and marks.asked:
            marks.asked -= 1
        self.know(nonce)

    def know(self, nonce: str) -> None:
        """This nonce is in the hands of somebody who knows a password."""
        if nonce not in self._known:
            make_room(self._known, MAX_TRACKED)
            self._known[nonce] = None

    def block(self, who: str, seconds: float, why: str) -> None:
        """Block an address or an account."""
        if not self.blocked(who):
            make_room(self._blocks, MAX_TRACKED)
            log.warning("guard.blocked", who=who, why=why, seconds=seconds)
        self._blocks[who] = (self._clock() + seconds, why)

    # What the operator sees and does

    def blocks(self) -> list[Block]:
        """Every block that stands."""
        now = self._clock()
        return [Block(who, why, until - now) for who, (until, why) in self._blocks.items() if until > now]

    def lift(self, who: str) -> bool:
        """End a block and forget what led to it; False if there is none. Takes an address, its /64 or an account."""
        who = place_of(who)
        self._marks.pop(who, None)
        return self._blocks.pop(who, None) is not None

    def _of(self, host: str) -> _Marks | None:
        """The marks of an address, new ones after the window; None for one that is spared."""
        place, now = place_of(host), self._clock()
        marks = self._marks.get(place)
        if marks is None or now - marks.since > self._config.failure_window:
            address = ip_address(host.removeprefix("::ffff:") if "." in host else host)
            if any(address in network for network in self._spared):
                return None
            self._marks.pop(place, None)
            make_room(self._marks, MAX_TRACKED)
            marks = self._marks[place] = _Marks(now)
        return marks

    def _block_address(self, host: str, why: str, limit: str) -> None:
        limited(limit)
        self.block(place_of(host), self._config.block_seconds, why)

    def _scans(self, request: Request) -> bool:
        """True for the User-Agent of a tool that only looks for victims."""
        agent = request.headers.get("user-agent")
        return agent is not None and self._scanners.search(agent[:200]) is not None

    def _knows(self, request: Request) -> bool:
        for name in _CREDENTIALS:
            for value in request.headers.all(name):
                try:
                    if AuthParams.parse(value).get("nonce") in self._known:
                        return True
                except SipParseError:
                    continue
        return False
