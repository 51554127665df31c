"""SRTP (RFC 3711, RFC 7714) of a leg's streams: each direction of each medium has its own keys and state.

The index of a packet is its sequence number and how often that rolled over. It is used for one packet only: other
octets under the same index would give the plaintext away, or the authentication key (RFC 7714 section 8.4). So what
is sent again goes out as it went out first, or not at all.
"""

from collections.abc import Callable

from pylibsrtp import SRTP_MAX_TRAILER_LEN, Error, Policy, Session, ffi  # type: ignore[attr-defined]

from media_relay.numbering import HISTORY
from protocols.srtp import Profile, Srtp

WINDOW = HISTORY
"""How far behind the newest a protected packet may be, either way."""
MAX_SSRCS = 64
"""Of one peer's medium under one key: each has a replay list for as long as the leg lives."""
OVERHEAD: dict[Profile, int] = {"AEAD_AES_128_GCM": 16, "AES_CM_128_HMAC_SHA1_80": 10}
"""Octets of the authentication tag."""
_HEADER = 12
PROFILES: dict[Profile, int] = {
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}


def session(keys: Srtp, ssrc: int | None, *, room: int = 0) -> Session:
    """Of what we send under this SSRC; without one, of what a peer sends. `room`: octets of a packet beyond 1,356."""
    policy = Policy(keys.master_key_and_salt, srtp_profile=PROFILES[keys.profile])
    policy.ssrc_type = Policy.SSRC_ANY_INBOUND if ssrc is None else Policy.SSRC_SPECIFIC
    policy.ssrc_value = ssrc or 0
    policy.window_size = WINDOW
    policy.allow_repeat_tx = True
    return _Roomy(policy, room) if room else Session(policy)


class Protection:
    """What we send under one SSRC and key."""

    def __init__(self, keys: Srtp, ssrc: int, room: int) -> None:
        self._keys = keys
        self._ssrc = ssrc
        self._session = session(keys, ssrc, room=room)
        self._first: int | None = None
        """Number that went out first under these keys: what is older has no index under them."""
        self._sent: list[tuple[int, bytes]] = []

    def is_for(self, keys: Srtp, ssrc: int) -> bool:
        """True if it goes on with these keys."""
        return (self._keys, self._ssrc) == (keys, ssrc)

    def apply(self, number: int, packet: bytes) -> bytes | None:
        """The packet of this endless sequence number encrypted; None when it must not go out."""
        if self._first is None:
            self._first = number
            self._sent = [(-1, b"")] * WINDOW
        if number < self._first:
            return None
        try:
            protected = self._session.protect(packet)
        except Error:  # too old for the window
            return None
        before, tag = self._sent[number % WINDOW]
        if before == number and tag != protected[-4:]:
            return None
        self._sent[number % WINDOW] = number, protected[-4:]
        return protected

    def apply_rtcp(self, packet: bytes) -> bytes | None:
        """An RTCP packet encrypted, under an index of its own; None when it is too long."""
        try:
            return self._session.protect_rtcp(packet)
        except (Error, ValueError):
            return None


class Unprotection:
    """What a peer sends us for one medium, under whichever SSRCs."""

    def __init__(self, keys: Srtp, room: int) -> None:
        self.keys = keys
        self._session = session(keys, None, room=room)
        self._ssrcs: set[bytes] = set()

    def apply(self, packet: bytes) -> bytes | None:
        """The packet decrypted; None when it is forged, replayed, too old or garbage."""
        return self._opened(self._session.unprotect, packet, packet[8:_HEADER])

    def apply_rtcp(self, packet: bytes) -> bytes | None:
        """An RTCP packet decrypted; None as above."""
        return self._opened(self._session.unprotect_rtcp, packet, packet[4:8])

    def _opened(self, unprotect: Callable[[bytes], bytes], packet: bytes, ssrc: bytes) -> bytes | None:
        if len(packet) < _HEADER + OVERHEAD[self.keys.profile]:
            return None
        if ssrc not in self._ssrcs and len(self._ssrcs) == MAX_SSRCS:
            return None
        try:
            plain = unprotect(packet)
        except (Error, ValueError):
            return None
        self._ssrcs.add(ssrc)
        return plain


class _Roomy(Session):
    """pylibsrtp has room for packets of 1,500 octets only; H.264 in mode 0 and jumbo frames are larger."""

    def __init__(self, policy: Policy, room: int) -> None:
        super().__init__(policy)
        self._cdata = ffi.new("char[]", room + SRTP_MAX_TRAILER_LEN)
        self._buffer = ffi.buffer(self._cdata)
