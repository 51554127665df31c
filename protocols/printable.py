"""Words of strangers as an operator's terminal or log may show them: inert, and without the secrets they hold."""

import re

_BRACKETS = re.compile(r"([<>\r\n]+)")
_BLANKS = re.compile(r"(\s+)")
_NUMBER_URI = re.compile(r"[\s,]*(?:sips?|tel):", re.IGNORECASE)
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*\Z")
_CREDENTIALS = re.compile(r"(authorization[\"']?\s{0,9}[:=])[^<>&\r\n]+", re.IGNORECASE)
_DIGEST = re.compile(r"\b(response|c?nonce)(\s{0,9}=\s{0,9})(?:\"[^\"]*\"?|[^\s,\"<>&]+)", re.IGNORECASE)
_LONGEST_SCHEME = 40


def printable(text: str) -> str:
    """The text in one line, with an escape (`\\n`, `\\x1b`) for what moves, colours, hides or turns words."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def discreet(text: str) -> str:
    """The text without what only its owner is to know: passwords in URIs (RFC 3261 section 19.1.1 and RFC 3986 section
    3.2.1 advise against them; some send them) and digest credentials.

    Where a malformed URI leaves open how far a password goes, too much is cut rather than too little. Takes time in
    proportion to the length, whatever the text is.
    """
    if ":" in text and "@" in text:
        text = "".join([_without_passwords(part) if "@" in part else part for part in _BRACKETS.split(text)])
    if "uthorization" in text.lower():
        text = _CREDENTIALS.sub(r"\1...", text)
    return _DIGEST.sub(r"\1\2...", text) if "=" in text else text


def _without_passwords(text: str) -> str:
    """What stands between brackets, or a line: a URI of a number as a whole, blanks and all, or words."""
    if _NUMBER_URI.match(text):
        return _without_password(text)
    return "".join([_without_password(word) if "@" in word else word for word in _BLANKS.split(text)])


def _without_password(word: str) -> str:
    """`scheme:user:password@rest` without `:password`, which goes to the last `@`; without a scheme the same."""
    kept: list[str] = []
    begin, end = 0, word.rfind("@")
    while (colon := word.find(":", begin, end)) >= 0:
        user_end = colon
        shown = max(begin, colon - _LONGEST_SCHEME)
        scheme = _SCHEME.search(word[shown:colon])
        if scheme is not None and (not kept or shown + scheme.start() > begin):  # what follows an @ at once is a host
            user_end = word.find(":", colon + 1, end)
            if user_end < 0:
                break
            if (host := word.find("@", colon, user_end)) >= 0:  # no password here, but perhaps in a URI behind it
                kept.append(word[begin : host + 1])
                begin = host + 1
                continue
        kept.append(word[begin:user_end])
        begin = end
    return "".join([*kept, word[begin:]])
