"""Reading a header or the body from the text of a SIP message that pjsua2 already validated (RFC 3261 section 7.3).

`printable` makes what was read fit to be shown.
"""

import re


def header(message: str, name: str, compact: str = "") -> str:
    """The first value of the header, unfolded; empty where there is none."""
    names = f"{name}|{compact}" if compact else name
    found = re.search(rf"^(?:{names})[ \t]*:[ \t]*(.*(?:\r?\n[ \t].*)*)", _head(message), re.IGNORECASE | re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def printable(text: str) -> str:
    """A stranger's text as it may be shown on a terminal: nothing that moves the cursor or starts a new line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def number_of(sender: str) -> str:
    """The number in a From header's value."""
    found = re.search(r"sips?:([^@;>]+)", sender)
    return found[1] if found else sender


def body(message: str) -> str:
    """Everything after the empty line."""
    return message[len(_head(message)) :].lstrip("\r\n")


def _head(message: str) -> str:
    end = re.search(r"\r?\n\r?\n", message)
    return message[: end.start()] if end else message
