"""The join: STUN connectivity checks between terminal and relay (ICE, RFC 8445; STUN, RFC 8489; consent, RFC 7675).

The relay is an ICE-lite agent: `IceLiteResponder` only answers, and what it says about a check is all that may latch
an address. The terminal is the controlling agent and nominates at once: `Checker` repeats its check until it is
answered, then keeps the consent alive. One of each per m-line; packets are coded by `aioice.stun`.
"""

import struct
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from aioice import stun

from protocols.net import Address
from protocols.rtp.classify import classify

CONSENT_TIMEOUT = 30.0
"""Seconds without a valid answer (checker) or check (responder) after which consent is gone, RFC 7675 section 5.1."""
CHECK_PRIORITY = 110 << 24 | 0xFFFF << 8 | 0xFF
"""What a candidate learnt from this check would be worth: peer reflexive, component 1 (RFC 8445 section 7.1.1)."""
MAX_CHECK_BYTES = 1280

_USERNAME = 0x0006
_ATTRIBUTE = struct.Struct("!HH")
_JITTER = 0.2
"""RFC 7675 spreads consent checks over 0.8 to 1.2 of their interval."""


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """A user name fragment and its password, as in a=ice-ufrag and a=ice-pwd."""

    ufrag: str
    password: str = field(repr=False)


def new_credentials(random_bytes: Callable[[int], bytes]) -> IceCredentials:
    """Fresh credentials from a secure source: 48 bits of name, 144 bits of password (RFC 8839 section 5.4)."""
    ufrag, password = (b64encode(random_bytes(count)).decode() for count in (6, 18))
    return IceCredentials(ufrag, password)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of a datagram: an answer for its source, if any, and whether its sender proved himself."""

    reply: bytes | None = field(default=None, repr=False)
    authenticated: bool = False
    nominated: bool = False
    """True if the check carried USE-CANDIDATE: media belongs on this path."""


_IGNORED = CheckResult()


class IceLiteResponder:
    """Answers the checks of one leg's m-line. A lite agent is always controlled and never checks by itself."""

    def __init__(self, local: IceCredentials, remote_ufrag: str | None = None) -> None:
        self._local = local
        self._remote_ufrag = remote_ufrag
        self.last_check: float | None = None
        """When the last authentic check came; None before the first."""

    def receive(self, datagram: bytes, source: Address, now: float) -> CheckResult:
        """Answer a datagram. Nonsense, other STUN and checks for another name are met with silence."""
        request = _parse(datagram)
        if request is None or (request.message_class, request.message_method) != (
            stun.Class.REQUEST,
            stun.Method.BINDING,
        ):
            return _IGNORED
        local_ufrag, _, remote_ufrag = str(request.attributes.get("USERNAME", "")).partition(":")
        if local_ufrag != self._local.ufrag or self._remote_ufrag not in {None, remote_ufrag}:
            return _IGNORED
        if "MESSAGE-INTEGRITY" not in request.attributes:
            return CheckResult(_refusal(request, 400, "Bad Request"))
        key = self._local.password.encode()
        if not request.check_message_integrity(key):
            return CheckResult(_refusal(request, 401, "Unauthorized"))
        self.last_check = now
        if "ICE-CONTROLLED" in request.attributes:
            return CheckResult(_refusal(request, 487, "Role Conflict", key), authenticated=True)
        answer = stun.Message(
            stun.Method.BINDING,
            stun.Class.RESPONSE,
            request.transaction_id,
            {"XOR-MAPPED-ADDRESS": (source.host, source.port)},
        )
        answer.add_message_integrity(key)
        return CheckResult(bytes(answer), True, "USE-CANDIDATE" in request.attributes)

    def has_consent(self, now: float, timeout: float = CONSENT_TIMEOUT) -> bool:
        """True if an authentic check came within the last `timeout` seconds."""
        return self.last_check is not None and now - self.last_check <= timeout


def check_username(datagram: bytes) -> tuple[str, str] | None:
    """Receiver's and sender's name fragment in a check, unverified: finds the leg on a socket that many share."""
    if classify(datagram) != "stun" or len(datagram) > MAX_CHECK_BYTES:
        return None
    at = 20
    while at + 4 <= len(datagram):
        kind, size = _ATTRIBUTE.unpack_from(datagram, at)
        value = datagram[at + 4 : at + 4 + size]
        if kind == _USERNAME:
            receiver, colon, sender = value.decode("utf-8", "replace").partition(":")
            return (receiver, sender) if colon else None
        at += 4 + size + -size % 4
    return None


@dataclass(frozen=True, slots=True)
class Joined:
    """The relay answered an authenticated check; `mapped` is this terminal's address as the relay sees it."""

    mapped: Address | None


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """Nobody answered in time, or the relay refused; `reason` says which, for a person to read."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConsentLost:
    """The relay has not answered for CONSENT_TIMEOUT: media to it must stop."""


@dataclass(frozen=True, slots=True)
class CheckTiming:
    """Seconds. RFC 8489 section 6.2.1 doubles the wait from `rto` on; ICE allows a small one on a known path."""

    rto: float = 0.1
    transmissions: int = 6
    last_wait: float = 1.6
    """The wait after the last transmission; with the defaults a join fails after 4.7 s."""
    consent_interval: float = 5.0
    consent_timeout: float = CONSENT_TIMEOUT


class Checker:
    """The terminal's checks of one m-line towards the relay's address. `random_bytes` must be a secure source."""

    def __init__(
        self,
        local: IceCredentials,
        remote: IceCredentials,
        destination: Address,
        random_bytes: Callable[[int], bytes],
        timing: CheckTiming | None = None,
    ) -> None:
        self._username = f"{remote.ufrag}:{local.ufrag}"
        self._key = remote.password.encode()
        self._destination = destination
        self._random_bytes = random_bytes
        self._timing = timing or CheckTiming()
        self._tie_breaker = int.from_bytes(random_bytes(8), "big")
        self._state: Literal["idle", "joining", "joined", "ended"] = "idle"
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Joined | JoinFailed | ConsentLost] = deque()
        self._check = b""
        self._transactions: deque[bytes] = deque(maxlen=8)
        self._sent = 0
        self._timer: float | None = None
        self._consented = 0.0
        self._refusal = ""

    def start(self, now: float) -> None:
        """Begin to join; also begins anew after a failure."""
        self._state, self._sent, self._refusal = "joining", 0, ""
        self._transactions.clear()
        self._check = self._new_check()
        self._transmit(now)

    def stop(self) -> None:
        """Send nothing more and report nothing more."""
        self._state, self._timer = "ended", None
        self._outgoing.clear()

    def receive(self, datagram: bytes, source: Address, now: float) -> bool:
        """Take a datagram; True if it answers one of these checks, authentic and from where it was sent."""
        answer = _parse(datagram)
        if answer is None or source != self._destination or answer.transaction_id not in self._transactions:
            return False
        if answer.message_class not in {stun.Class.RESPONSE, stun.Class.ERROR} or self._state == "ended":
            return False
        error = answer.error_code
        if not answer.check_message_integrity(self._key):
            # Anybody can forge this: worth mentioning should the join fail, no reason to give up.
            self._refusal = f", refused with {error}" if error else ""
            return False
        if answer.message_class == stun.Class.ERROR:
            if self._state == "joining":
                self._end(JoinFailed(f"the relay at {self._destination} refused the join with {error}"))
            return True
        self._consented = now
        if self._state == "joining":
            self._state = "joined"
            mapped = answer.attributes.get("XOR-MAPPED-ADDRESS")
            self._events.append(Joined(Address(*mapped) if mapped else None))
            self._schedule_consent(now)
        return True

    def next_timer(self) -> float | None:
        """When `handle_timer` is due, or None."""
        return self._timer

    def handle_timer(self, now: float) -> None:
        """Repeat or renew the check if it is time to; early calls do nothing."""
        if self._timer is None or now < self._timer:
            return
        if self._state == "joining":
            if self._sent < self._timing.transmissions:
                self._transmit(now)
            else:
                self._end(JoinFailed(f"no answer from the relay at {self._destination}{self._refusal}"))
        elif now >= self._consented + self._timing.consent_timeout:
            self._end(ConsentLost())
        else:
            self._outgoing.append((self._new_check(), self._destination))
            self._schedule_consent(now)

    def to_send(self) -> list[tuple[bytes, Address]]:
        """Datagrams to send now, and where to; each is handed out once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_event(self) -> Joined | JoinFailed | ConsentLost | None:
        """The oldest event not yet handed out."""
        return self._events.popleft() if self._events else None

    def _transmit(self, now: float) -> None:
        self._outgoing.append((self._check, self._destination))
        wait = self._timing.rto * 2**self._sent
        self._sent += 1
        last = self._sent == self._timing.transmissions
        self._timer = now + (self._timing.last_wait if last else wait)

    def _schedule_consent(self, now: float) -> None:
        spread = 1 - _JITTER + 2 * _JITTER * self._random_bytes(1)[0] / 255
        expiry = self._consented + self._timing.consent_timeout
        self._timer = min(now + spread * self._timing.consent_interval, expiry)

    def _new_check(self) -> bytes:
        """A check under a transaction of its own; RFC 7675 wants a new one each time."""
        transaction_id = self._random_bytes(12)
        self._transactions.append(transaction_id)
        check = stun.Message(
            stun.Method.BINDING,
            stun.Class.REQUEST,
            transaction_id,
            {
                "USERNAME": self._username,
                "PRIORITY": CHECK_PRIORITY,
                "ICE-CONTROLLING": self._tie_breaker,
                "USE-CANDIDATE": None,
            },
        )
        check.add_message_integrity(self._key)
        return bytes(check)

    def _end(self, event: JoinFailed | ConsentLost) -> None:
        self._state, self._timer = "ended", None
        self._events.append(event)


def _parse(datagram: bytes) -> stun.Message | None:
    """The STUN message in a datagram, or None; aioice lets struct.error through for attributes cut short."""
    if classify(datagram) != "stun" or len(datagram) > MAX_CHECK_BYTES:
        return None
    try:
        return stun.parse_message(datagram)
    except (ValueError, struct.error):
        return None


def _refusal(request: stun.Message, code: int, phrase: str, key: bytes | None = None) -> bytes:
    """An error answer, signed where the request was authentic."""
    answer = stun.Message(stun.Method.BINDING, stun.Class.ERROR, request.transaction_id, {"ERROR-CODE": (code, phrase)})
    if key is None:
        answer.add_fingerprint()
    else:
        answer.add_message_integrity(key)
    return bytes(answer)
