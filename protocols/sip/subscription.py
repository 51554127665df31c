"""The header fields of event notification (RFC 6665): Event, Accept, Subscription-State."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from protocols.sip.errors import SipParseError
from protocols.sip.headers import TOKEN

Reason = Literal["deactivated", "rejected", "timeout", "noresource"]
"""Why a subscription ends (section 4.1.3)."""
_PARAM = re.compile(r"\s*;\s*([^\s;=]+)\s*(?:=\s*([^\s;\"]+|\"[^\"]*\")\s*)?")


@dataclass(frozen=True, slots=True)
class Event:
    """What is subscribed to: the package (with templates), and the `id` that tells two of one dialog apart."""

    package: str
    id: str = ""

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read an Event value. Raises SipParseError."""
        package, semicolon, rest = value.partition(";")
        package = package.strip().lower()
        if not TOKEN.fullmatch(package):
            raise SipParseError("malformed event")
        params = semicolon + rest
        found = ""
        at = 0
        while at < len(params):
            match = _PARAM.match(params, at)
            if match is None:
                raise SipParseError("malformed event parameter")
            if match[1].lower() == "id":
                found = match[2] or ""
            at = match.end()
        if len(found) > 128:
            raise SipParseError("event id too long")
        return cls(package, found)

    def __str__(self) -> str:
        return f"{self.package};id={self.id}" if self.id else self.package


def accepts(values: list[str], content_type: str) -> bool:
    """Whether Accept values allow a media type; none at all allow the package's own (section 7.2 of RFC 6665)."""
    if not values:
        return True
    ranges = {value.partition(";")[0].strip().lower() for value in values}
    return not ranges.isdisjoint((content_type, f"{content_type.partition('/')[0]}/*", "*/*"))


def active(seconds: int) -> str:
    """The Subscription-State of one that goes on for this long."""
    return f"active;expires={seconds}"


def terminated(reason: Reason) -> str:
    """The Subscription-State of the last NOTIFY."""
    return f"terminated;reason={reason}"
