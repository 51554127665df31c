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
    user_agent: str = ""
    received_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A user's own unconditional forwarding (CFU, TS 24.604): registered with a target, active or not."""

    target: str
    active: bool


@dataclass(frozen=True, slots=True)
class Overlay:
    """The broadcast's forwarding above the user's own: it lives exactly as long as the group `epoch` it names."""

    target: str
    group_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Diversions:
    """All diversion settings of one address of record, as the INVITE path needs them."""

    own: Forwarding | None = None
    overlay: Overlay | None = None


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


@dataclass(frozen=True, slots=True)
class StoredDialog:
    """A confirmed dialog as it survives the process: its id and its serialised state."""

    dialog_id: str
    as_id: str
    group_id: str
    state: str
