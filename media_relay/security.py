"""A medium's packets that do not pass the engine: RTCP, prompts, and what comes before the engine knows the address.

RTCP is rare, and its index and keys are apart from those of RTP (RFC 3711 sections 3.4, 4.3), so it is encrypted
here and the engines need no way out for it. RTP of one SSRC and key is sent either here or by the engine, never by
both: a leg that is announced to gets another SSRC when it becomes a viewer.
"""

from media_relay.engine import MAX_OTHER_BYTES
from media_relay.engine.security import Protection, Unprotection
from protocols.srtp import Srtp


class MediumSecurity:
    """Both directions of one medium; without keys packets are passed as they are."""

    def __init__(self) -> None:
        self._protection: Protection | None = None
        self._unprotection: Unprotection | None = None

    def protect(self, keys: Srtp | None, ssrc: int, number: int, packet: bytes) -> bytes | None:
        """An RTP packet with this endless sequence number; None when it must not go out."""
        return packet if keys is None else self._out(keys, ssrc).apply(number, packet)

    def protect_rtcp(self, keys: Srtp | None, ssrc: int, packet: bytes) -> bytes | None:
        """A compound RTCP packet of ours; None when it is too long."""
        return packet if keys is None else self._out(keys, ssrc).apply_rtcp(packet)

    def unprotect(self, keys: Srtp | None, packet: bytes) -> bytes | None:
        """An RTP packet of the peer's; None when it is not protected with its key, or a replay."""
        return packet if keys is None else self._in(keys).apply(packet)

    def unprotect_rtcp(self, keys: Srtp | None, packet: bytes) -> bytes | None:
        """The same for RTCP."""
        return packet if keys is None else self._in(keys).apply_rtcp(packet)

    def _out(self, keys: Srtp, ssrc: int) -> Protection:
        known = self._protection
        if known is None or not known.is_for(keys, ssrc):
            known = self._protection = Protection(keys, ssrc, MAX_OTHER_BYTES)
        return known

    def _in(self, keys: Srtp) -> Unprotection:
        known = self._unprotection
        if known is None or known.keys != keys:
            known = self._unprotection = Unprotection(keys, MAX_OTHER_BYTES)
        return known
