"""What a datagram on a media port is, told by its first octets (RFC 7983 section 7, RFC 5761 section 4)."""

from typing import Literal

Kind = Literal["stun", "dtls", "rtp", "rtcp", "unknown"]

_STUN_HEADER_BYTES = 20
_STUN_COOKIE = b"\x21\x12\xa4\x42"
_RTCP_TYPES = range(192, 224)
_DTLS_HEADER_BYTES = 13


def classify(datagram: bytes | bytearray | memoryview) -> Kind:
    """The protocol of a datagram; "rtp" and "rtcp" promise a whole fixed header, "stun" the magic cookie."""
    size = len(datagram)
    if size < 2:
        return "unknown"
    first = datagram[0]
    if 128 <= first <= 191:
        if datagram[1] in _RTCP_TYPES:
            return "rtcp" if size >= 8 else "unknown"
        return "rtp" if size >= 12 else "unknown"
    if first <= 3:
        return "stun" if size >= _STUN_HEADER_BYTES and datagram[4:8] == _STUN_COOKIE else "unknown"
    if 20 <= first <= 63 and size >= _DTLS_HEADER_BYTES:
        return "dtls"
    return "unknown"
