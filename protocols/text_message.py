"""The text of a MESSAGE (RFC 3428) as it may be passed on: nothing that drives a terminal or turns text round."""

import unicodedata

CONTENT_TYPE = "text/plain"
_UNSHOWN = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Categories of Unicode: controls, surrogates, and separators of lines."""
_TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls: they make text read as something else than it is."""


class TextError(ValueError):
    """A body is no text that could be passed on; the message says why."""


def charset(content_type: str) -> str:
    """The charset of a Content-Type value, lower case; UTF-8 when not stated (RFC 3428 section 8)."""
    for param in content_type.split(";")[1:]:
        name, _, value = param.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"


def clean(body: bytes) -> str:
    """The text without control characters (line breaks stay, tabs become spaces). Raises TextError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise TextError("not UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\t", " ")
    kept = [
        char for char in text if char == "\n" or (unicodedata.category(char) not in _UNSHOWN and char not in _TURNS)
    ]
    if not (whole := "".join(kept).strip()):
        raise TextError("nothing to read")
    return whole
