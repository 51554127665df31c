"""Keys in SIP INFO, as phones send them that know no telephone events: `application/dtmf-relay` and `application/dtmf`.

No RFC defines these; Cisco's `Signal=5` and `Duration=160` is what the field sends. Read leniently.
"""

import re

from protocols.rtp.telephone_event import DIGITS

CONTENT_TYPES = ("application/dtmf-relay", "application/dtmf")
_SIGNAL = re.compile(r"(?im)^[ \t]*signal[ \t]*=[ \t]*([0-9]{1,2}|[*#A-Da-d])[ \t]*\r?$")
_MAX_BYTES = 512


def key_of(content_type: str, body: bytes) -> str:
    """The key an INFO tells, 0-9, *, #, A-D; "" where it tells none. Event numbers 10 to 15 are keys too."""
    text = body[:_MAX_BYTES].decode("ascii", "replace")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == CONTENT_TYPES[0]:
        match = _SIGNAL.search(text)
        signal = match[1].upper() if match else ""
    else:
        signal = text.strip().upper() if kind == CONTENT_TYPES[1] else ""
    if signal.isascii() and signal.isdigit():
        return DIGITS[int(signal)] if int(signal) < len(DIGITS) else ""
    return signal if len(signal) == 1 and signal in DIGITS else ""
