"""The offer of a call that came without one (RFC 3261 section 13.2.1, RFC 3264 section 5).

It is what we would answer a peer who could do all we prefer and had no address yet; the ACK brings the real answer. It
names one format a medium, as the relay is to know what it will carry: the one most phones have.
"""

from collections.abc import Mapping, Sequence

from protocols.control import MediaKind
from protocols.sdp import Format, Media, SessionDescription

NOWHERE = "0.0.0.0"
"""An address nothing is sent to: for names (never looked up for a stranger) and the old way of holding a call."""
_STATIC = {"PCMU": 0, "PCMA": 8}
_DYNAMIC: dict[MediaKind, int] = {"audio": 96, "video": 97}
_DISCARD_PORT = 9
_CONSTRAINED_BASELINE = "profile-level-id=42e01f"


def willing_peer(preferences: Mapping[MediaKind, Sequence[str]], feedback: tuple[str, ...]) -> SessionDescription:
    """The offer of that peer; `preferences` are written as in the configuration, `feedback` is for video."""
    lines = []
    for kind, names in preferences.items():
        if names:
            common = next((name for name in names if name.partition("/")[0] in _STATIC), names[0])
            format_ = _format(kind, common, feedback if kind == "video" else ())
            lines.append(Media(kind, _DISCARD_PORT, formats=(format_,), connection=NOWHERE))
    return SessionDescription(media=tuple(lines))


def _format(kind: MediaKind, preference: str, feedback: tuple[str, ...]) -> Format:
    codec, _, fmtp = preference.partition(";")
    name, _, rate = codec.partition("/")
    if name == "H264":
        fmtp = f"{_CONSTRAINED_BASELINE};{fmtp}" if fmtp else _CONSTRAINED_BASELINE
    return Format(_STATIC.get(name, _DYNAMIC[kind]), name, int(rate) if rate else 90_000, 1, fmtp, feedback)
