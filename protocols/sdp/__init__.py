"""Session descriptions (RFC 8866) and the offer/answer model (RFC 3264), as typed values.

`description` the values and how they are written, `parser` how they are read, `formats` what AMR and H.264
parameters mean, `negotiation` the rules by which an answer follows from an offer. Import from here.
"""

from protocols.sdp.description import (
    Candidate,
    Direction,
    Format,
    Media,
    Origin,
    SdpError,
    SessionDescription,
)
from protocols.sdp.formats import AmrFormat, H264Format, format_fmtp, parse_fmtp
from protocols.sdp.negotiation import (
    answer_amr,
    answer_direction,
    answer_h264,
    answer_media,
    matches,
    reject,
    select_format,
)
from protocols.sdp.parser import parse

__all__ = [
    "AmrFormat",
    "Candidate",
    "Direction",
    "Format",
    "H264Format",
    "Media",
    "Origin",
    "SdpError",
    "SessionDescription",
    "answer_amr",
    "answer_direction",
    "answer_h264",
    "answer_media",
    "format_fmtp",
    "matches",
    "parse",
    "parse_fmtp",
    "reject",
    "select_format",
]
