"""G.711 sound (ITU-T G.711; RFC 3551 section 4.5.14): mu-law and A-law by table.

Linear samples are 16 bit. `ulaw_to_alaw` changes whole payloads from one law to the other.
"""

from collections.abc import Iterable

_BIAS = 0x84
_CLIP = 32635


def _ulaw_linear(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 0x07)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


def _alaw_linear(code: int) -> int:
    code ^= 0x55
    segment, mantissa = code >> 4 & 0x07, (code & 0x0F) << 4
    magnitude = mantissa + 8 if segment == 0 else mantissa + 0x108 << segment - 1
    return magnitude if code & 0x80 else -magnitude


def _ulaw_code(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    segment = magnitude.bit_length() - 8
    return ~(sign | segment << 4 | magnitude >> segment + 3 & 0x0F) & 0xFF


def _alaw_code(sample: int) -> int:
    sign = 0x80 if sample >= 0 else 0
    magnitude = min(sample if sample >= 0 else ~sample, 32767) >> 4
    segment = max(0, magnitude.bit_length() - 4)
    mantissa = magnitude & 0x0F if segment < 2 else magnitude >> segment - 1 & 0x0F
    return (sign | segment << 4 | mantissa) ^ 0x55


_ULAW_TO_ALAW = bytes(_alaw_code(_ulaw_linear(code)) for code in range(256))
_ULAW_LINEAR = tuple(map(_ulaw_linear, range(256)))
_ALAW_LINEAR = tuple(map(_alaw_linear, range(256)))


def ulaw_to_alaw(payload: bytes) -> bytes:
    """The same sound in A-law."""
    return payload.translate(_ULAW_TO_ALAW)


def from_ulaw(payload: bytes) -> list[int]:
    """16-bit samples of a mu-law payload."""
    return [_ULAW_LINEAR[code] for code in payload]


def from_alaw(payload: bytes) -> list[int]:
    """16-bit samples of an A-law payload."""
    return [_ALAW_LINEAR[code] for code in payload]


def to_ulaw(samples: Iterable[int]) -> bytes:
    """The mu-law payload of 16-bit samples."""
    return bytes(map(_ulaw_code, samples))
