"""Reading a header or the body from the text of a SIP message that pjsua2 already validated (RFC 3261 section 7.3)."""

import re


def header(message: str, name: str, compact: str = "") -> str:
    """The first value of the header, unfolded; empty where there is none."""
    names = f"{name}|{compact}" if compact else name
    found = re.search(rf"^(?:{names})[ \t]*:[ \t]*(.*(?:\r?\n[ \t].*)*)", _head(message), re.IGNORECASE | re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def body(message: str) -> str:
    """Everything after the empty line."""
    return message[len(_head(message)) :].lstrip("\r\n")


def _head(message: str) -> str:
    end = re.search(r"\r?\n\r?\n", message)
    return message[: end.start()] if end else message
