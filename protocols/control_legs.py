"""A leg on the control link: as the AS asks for it, and as the relay grants it.

The commands are in `protocols.control`.
"""

from dataclasses import dataclass, field
from typing import Literal

from protocols.net import Address
from protocols.srtp import Srtp

MediaKind = Literal["audio", "video"]


@dataclass(frozen=True, slots=True)
class MediaSpec:
    """One medium of a leg, as negotiated by the AS. Directions are the relay's: it `sends`, it `receives`."""

    kind: MediaKind
    codec: str
    payload_type: int
    clock_rate: int
    sends: bool
    receives: bool
    rtp: Address
    """Where the peer's SDP says it wants RTP; trusted only as far as the latching rules allow."""
    rtcp: Address
    fmtp: str = ""
    rtcp_mux: bool = False
    ice: bool = False
    """The peer does connectivity checks: nothing is sent to it before an authenticated one."""
    remote_ufrag: str = ""
    feedback: tuple[str, ...] = ()
    """RTCP feedback the peer announced, e.g. "nack pli", "ccm fir" (RFC 4585, RFC 5104)."""
    telephone_event: int | None = None
    """Payload type under which the peer sends keys (RFC 4733), None where it sends none."""
    send_security: Srtp | None = None
    """What the relay protects its RTP and RTCP to the peer with; None: it sends them in the clear."""
    receive_security: Srtp | None = None
    """What the peer protects its RTP and RTCP with; None: they come in the clear."""


@dataclass(frozen=True, slots=True)
class LegMedia:
    """Where one medium of a leg lives on the relay (advertised addresses) and the credentials of its join."""

    kind: MediaKind
    rtp: Address
    rtcp: Address
    ufrag: str
    password: str = field(repr=False)
    shared: bool = field(default=False, compare=False)
    """The group's viewers share the port."""


@dataclass(frozen=True, slots=True)
class LegPlace:
    """Where the peer of one medium proved to be: by a check, or by what latched."""

    kind: MediaKind
    rtp: Address
    rtcp: Address | None


@dataclass(frozen=True, slots=True)
class KeptMedia:
    """What a leg had for one medium: asked for again, with where its peer was then.

    There is no wish for an SSRC: what a relay sends anew is another stream (RFC 3550 section 8), and numbers that
    start again under an old name would repeat SRTP's key stream.
    """

    media: LegMedia
    peer: LegPlace | None = None


@dataclass(frozen=True, slots=True)
class LegSpec:
    """A leg the AS asks for. `client_address` is the peer's signalling address, the other one latching may trust.

    `kept` is what its phone was told before, by a relay that has died since: granted as far as it is free.
    """

    leg_id: str
    number: str
    client_address: str
    media: tuple[MediaSpec, ...]
    kept: tuple[KeptMedia, ...] = ()


@dataclass(frozen=True, slots=True)
class LegInfo:
    """What the relay reserved for a leg: put into the SDP answer by the AS."""

    leg_id: str
    media: tuple[LegMedia, ...]
