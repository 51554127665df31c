"""The typed views of a message's headers: each is parsed once, when first asked for, and then kept.

A view raises SipParseError if its header is missing or malformed; optional headers give None, "" or an empty tuple.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

from protocols.sip.errors import SipParseError
from protocols.sip.fields import Headers
from protocols.sip.headers import (
    MAX_SECONDS,
    AuthParams,
    CSeq,
    DiversionEntry,
    HistoryEntry,
    NameAddr,
    RAck,
    Reason,
    Via,
    first_element,
    number,
)

_CALL_ID = re.compile(r"\S+")

T = TypeVar("T")


class View(Generic[T]):
    """A typed view of a message: read from its headers once, then kept in the message's own dictionary."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._name = read.__name__
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, message: None, owner: type) -> "View[T]": ...
    @overload
    def __get__(self, message: object, owner: type) -> T: ...
    def __get__(self, message: object | None, owner: type) -> "View[T] | T":
        if message is None:
            return self
        value: T = self._read(message)
        message.__dict__[self._name] = value
        return value


def _tokens(headers: Headers, name: str) -> frozenset[str]:
    return frozenset([value.lower() for value in headers.values(name)])


class Message:
    """What requests and responses share: headers, a body, and the typed views of the headers."""

    headers: Headers
    body: bytes

    def with_top_via(self, via: Via) -> Self:
        """The same message with its top Via rewritten; every other view read so far is kept."""
        message = object.__new__(type(self))
        message.__dict__.update(self.__dict__)
        message.__dict__.update(headers=self.headers.with_first("via", str(via)), top_via=via)
        message.__dict__.pop("vias", None)
        return message

    def _need(self, name: str) -> str:
        value = self.headers.get(name)
        if value is None:
            raise SipParseError(f"no {name}")
        return value

    def _addresses(self, name: str) -> tuple[NameAddr, ...]:
        return tuple([NameAddr.parse(value) for value in self.headers.values(name)])

    def _seconds(self, name: str) -> int | None:
        value = self.headers.get(name)
        return None if value is None else number(value.partition(";")[0], MAX_SECONDS, clamp=True)

    @View
    def vias(self) -> tuple[Via, ...]:
        """All Via values, the last hop first."""
        return tuple([Via.parse(value) for value in self.headers.values("via")])

    @View
    def top_via(self) -> Via:
        """The Via of the last hop."""
        all_read: tuple[Via, ...] | None = self.__dict__.get("vias")
        if all_read:
            return all_read[0]
        return Via.parse(first_element(self._need("via")))

    @View
    def from_(self) -> NameAddr:
        """Who sent the request of this transaction, as they say."""
        return NameAddr.parse(self._need("from"))

    @View
    def to(self) -> NameAddr:
        """Whom the request of this transaction is meant for."""
        return NameAddr.parse(self._need("to"))

    @View
    def call_id(self) -> str:
        """The Call-ID."""
        value = self._need("call-id")
        if not _CALL_ID.fullmatch(value):
            raise SipParseError("malformed call-id")
        return value

    @View
    def cseq(self) -> CSeq:
        """The CSeq."""
        return CSeq.parse(self._need("cseq"))

    @View
    def wildcard_contact(self) -> bool:
        """True for `Contact: *` (RFC 3261 section 10.2.2)."""
        return self.headers.all("contact") == ("*",)

    @View
    def contacts(self) -> tuple[NameAddr, ...]:
        """All Contact values; none for `Contact: *`."""
        return () if self.wildcard_contact else self._addresses("contact")

    @View
    def routes(self) -> tuple[NameAddr, ...]:
        """The Route set, next hop first."""
        return self._addresses("route")

    @View
    def record_routes(self) -> tuple[NameAddr, ...]:
        """The Record-Route set, topmost first."""
        return self._addresses("record-route")

    @View
    def paths(self) -> tuple[NameAddr, ...]:
        """The Path vector of a REGISTER (RFC 3327)."""
        return self._addresses("path")

    @View
    def max_forwards(self) -> int | None:
        """Hops left, 0 to 255, or None when not stated."""
        value = self.headers.get("max-forwards")
        return None if value is None else number(value, 255)

    @View
    def expires(self) -> int | None:
        """The Expires header in seconds, or None."""
        return self._seconds("expires")

    @View
    def supported(self) -> frozenset[str]:
        """Option tags the sender supports, lower case."""
        return _tokens(self.headers, "supported")

    @View
    def required(self) -> frozenset[str]:
        """Option tags the sender requires, lower case."""
        return _tokens(self.headers, "require")

    @View
    def allowed(self) -> frozenset[str]:
        """Methods in Allow, as written (methods are case-sensitive)."""
        return frozenset(self.headers.values("allow"))

    @View
    def content_type(self) -> str:
        """The body's media type, lower case and without parameters; "" when not stated."""
        return (self.headers.get("content-type") or "").partition(";")[0].strip().lower()

    @View
    def content_length(self) -> int | None:
        """The Content-Length the sender stated, or None."""
        value = self.headers.get("content-length")
        return None if value is None else number(value, MAX_SECONDS)

    @View
    def rack(self) -> RAck:
        """Which reliable response this PRACK acknowledges."""
        return RAck.parse(self._need("rack"))

    @View
    def rseq(self) -> int | None:
        """The number of a reliable provisional response (RFC 3262), or None for an unreliable one."""
        value = self.headers.get("rseq")
        return None if value is None else number(value, MAX_SECONDS)

    @View
    def session_expires(self) -> int | None:
        """The session interval in seconds (RFC 4028), or None."""
        return self._seconds("session-expires")

    @View
    def refresher(self) -> str:
        """Who refreshes the session: "uac", "uas" or ""."""
        header = self.headers.get("session-expires") or ""
        return next((p.strip()[10:].strip() for p in header.lower().split(";") if "refresher=" in p), "")

    @View
    def min_se(self) -> int | None:
        """The smallest session interval the sender accepts, in seconds, or None."""
        return self._seconds("min-se")

    @View
    def reasons(self) -> tuple[Reason, ...]:
        """Reason values (RFC 3326)."""
        return tuple([Reason.parse(value) for value in self.headers.values("reason")])

    @View
    def history(self) -> tuple[HistoryEntry, ...]:
        """History-Info entries (RFC 7044), oldest first."""
        return tuple([HistoryEntry.parse(value) for value in self.headers.values("history-info")])

    @View
    def diversions(self) -> tuple[DiversionEntry, ...]:
        """Diversion entries (RFC 5806), most recent first."""
        return tuple([DiversionEntry.parse(value) for value in self.headers.values("diversion")])

    def credentials(self, name: str = "Authorization") -> list[AuthParams]:
        """All credentials or challenges in the header `name`, one a line."""
        return [AuthParams.parse(value) for value in self.headers.all(name)]
