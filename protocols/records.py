"""Values that cross the ports between the service logic and the store: subscribers, bindings, diversions, broadcasts.

Plain frozen values without behaviour, so that neither side has to import the other. Times are Unix seconds
(wall clock), because they outlive a process.
"""

from dataclasses import dataclass, field
from typing import Literal

Algorithm = Literal["MD5", "SHA-256", "SHA-512-256"]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An account. `ha1` maps digest algorithm to H(number:realm:password), hex; it is password-equivalent."""

    aor: str
    number: str
    realm: str
    ha1: tuple[tuple[Algorithm, str], ...] = field(repr=False)
    display_name: str = ""
    enabled: bool = True

    def ha1_for(self, algorithm: str) -> str | None:
        """The stored hash for one algorithm, or None when this subscriber has none."""
        return next((digest for name, digest in self.ha1 if name == algorithm), None)


@dataclass(frozen=True, slots=True)
class Binding:
    """One registered contact of an address of record (RFC 3261 section 10), with the flow it came over."""

    aor: str
    contact: str
    call_id: str
    cseq: int
    expires_at: float
    q: float = 1.0
    flow: str = ""
    """The flow's JSON: transport, local and remote address, connection id, and the server process's instance id."""
    path: tuple[str, ...] = ()
    instance_id: str = ""
    """`+sip.instance`, a semicolon, and the `reg-id` of a flow (RFC 5626)."""
    user_agent: str = ""
    received_at: float = 0.0

    @property
    def reg_id(self) -> str:
        """The number of the flow among those of its phone (RFC 5626); "" for a contact that is no such flow."""
        return self.instance_id.rpartition(";")[2] if ";" in self.instance_id else ""

    @property
    def key(self) -> str:
        """What makes it one binding of its number: instance and flow if it is one, else the contact."""
        return self.instance_id if self.reg_id else self.contact

    @property
    def phone(self) -> str:
        """The same for all flows of one phone."""
        return self.instance_id.rpartition(";")[0] if self.reg_id else self.contact


Condition = Literal["unconditional", "busy", "no-answer", "not-registered", "not-reachable"]
"""When a call is diverted, in the words of TS 24.604's rules: CFU, CFB, CFNR, CFNL, CFNRc."""
Reveal = Literal["true", "not-reveal-GRUU", "false"]


@dataclass(frozen=True, slots=True)
class DiversionRule:
    """One diversion of a user (TS 24.604): registered with a target `number@domain`, active or not.

    By XCAP one that is not active may have no target at all: "".

    An option that is None was never set and has its default, which its comment gives.
    """

    condition: Condition
    target: str
    active: bool = True
    id: str = ""
    """The rule's name in the XCAP document; "" until one is needed."""
    notify_caller: bool | None = None
    """Tell the caller by 181; yes unless said otherwise."""
    reveal_identity_to_caller: Reveal | None = None
    """Let the caller see whom the call goes to; "true"."""
    reveal_served_user_identity_to_caller: Reveal | None = None
    """Let the caller see who diverted it; "true"."""
    notify_served_user: bool | None = None
    """Send the user a message about each call diverted; no."""
    notify_served_user_on_outbound_call: bool | None = None
    """Remind the user of the diversion when they call somebody; no."""
    reveal_identity_to_target: Reveal | None = None
    """Let the target see who diverted it; "true"."""


@dataclass(frozen=True, slots=True)
class DiversionRules:
    """A user's own diversions, at most one rule for each condition; also the content of the XCAP document."""

    rules: tuple[DiversionRule, ...] | None = None
    """None: the document has no rule set, which is not quite an empty one."""
    no_reply_timer: int | None = None
    """Seconds a phone rings before "no-answer" applies; None: the operator's default."""
    active: bool | None = None
    """False switches all of it off; None was never said and means on."""
    service: bool = True
    """False: the document holds no communication-diversion element at all."""

    def rule(self, condition: Condition) -> DiversionRule | None:
        """The rule registered for this condition, active or not; one without a target is none."""
        return next((rule for rule in self.rules or () if rule.condition == condition and rule.target), None)


@dataclass(frozen=True, slots=True)
class Overlay:
    """The broadcast's forwarding above the user's own: it lives exactly as long as the group `epoch` it names."""

    target: str
    group_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Diversions:
    """All diversion settings of one address of record, as the INVITE path needs them."""

    own: DiversionRules | None = None
    """The user's own rules; None if nothing was ever registered, or all was deleted."""
    overlay: Overlay | None = None

    def applies(self, condition: Condition) -> DiversionRule | None:
        """The user's own rule for this condition, if it is in force."""
        if self.own is None or self.own.active is False:
            return None
        rule = self.own.rule(condition)
        return rule if rule is not None and rule.active else None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A channel that is live, or about to be: who owns it (AS), where its media is (relay), since when, until when."""

    channel: str
    """The broadcaster's address of record; also the group id."""
    epoch: int
    as_id: str
    relay_id: str
    state: Literal["opening", "live", "lost", "closing"]
    lease_until: float
    opened_at: float
    media: str = ""
    """The group's media format (JSON), needed to answer viewers."""
    leg_id: str = ""
    service: str = ""
    """The service number that was dialled, `number@domain`: the broadcast lives by its policy."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What a broadcaster's number asks of its viewers, beyond the policy of the service number."""

    private: bool = False
    """Only those on the list may watch, and those who know the PIN if there is one."""
    listed: frozenset[str] = frozenset()
    """Addresses of record that may watch while the channel is private, without a PIN."""
    pin: str = field(default="", repr=False)
    """The PIN as `protocols.pin` keeps it; "" for none."""


@dataclass(frozen=True, slots=True)
class Node:
    """An application server that shares the store with others: where the others reach it, and until when it counts."""

    as_id: str
    address: str
    """HOST:PORT of its SIP over UDP."""
    lease_until: float


@dataclass(frozen=True, slots=True)
class StoredDialog:
    """A confirmed dialog as it survives the process: its id and its serialised state."""

    dialog_id: str
    as_id: str
    group_id: str
    state: str
