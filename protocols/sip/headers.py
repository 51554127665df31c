"""Typed header values (RFC 3261 section 20 and the RFC named at each), each with `parse(text)` and `str()`.

Parameter names are kept in lower case, values as written, quotes included; the accessors unquote. Everything malformed
raises SipParseError.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from protocols.net import Address, bracketed
from protocols.sip.errors import SipParseError
from protocols.sip.uri import Params, SipUri, Uri, find_param, format_params, parse_uri, put_param

MAX_SECONDS = 2**32 - 1
"""Delta-seconds above this count as this (RFC 3261 section 20.19)."""
MAX_CSEQ = 2**31 - 1
TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")

_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_LIST_ITEM = re.compile(rf'(?:[^",<]++|{_QUOTED}|<[^>]*+>)++', re.DOTALL)
_PARAM = re.compile(rf'(?:[^";]++|{_QUOTED})++', re.DOTALL)
_NAME_ADDR = re.compile(rf"\s*(?:({_QUOTED})|([^\"<]*))\s*<([^>]*)>\s*(?:;(.*))?", re.DOTALL)
_HOP = re.compile(
    r"\s*SIP\s*/\s*[0-9.]{1,5}\s*/\s*([A-Za-z0-9\-.!%*_+`'~]+)\s+"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)\s*(?::\s*([0-9]{1,5})\s*)?",
    re.IGNORECASE,
)
_CSEQ = re.compile(r"\s*([0-9]{1,20})\s+([A-Za-z0-9\-.!%*_+`'~]+)\s*")
_RACK = re.compile(r"\s*([0-9]{1,20})\s+([0-9]{1,20})\s+([A-Za-z0-9\-.!%*_+`'~]+)\s*")
_AUTH_PARAM = re.compile(rf"\s*([A-Za-z0-9\-.!%*_+`'~]+)\s*=\s*({_QUOTED}|[^\s,\"]*)\s*(?:,|$)", re.DOTALL)
_INDEX = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,20}")
_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_DEFAULT_PORTS = {"TLS": 5061, "WS": 80, "WSS": 443}
_CACHED = 4096
"""Values kept parsed, of each kind: every message of a call and every refresh of a phone brings the same ones."""
_CACHED_LENGTH = 200
"""Only values up to this length are, which bounds the caches in bytes. A REGISTER is checked in 16 us instead of 30."""


def number(text: str, limit: int, *, clamp: bool = False) -> int:
    """A decimal number of ASCII digits up to `limit`; beyond it an error, or the limit if `clamp`."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise SipParseError("not a number")
    if len(digits) > 20:
        digits = digits.lstrip("0") or "0"
    value = int(digits) if len(digits) <= 20 else limit + 1
    if value <= limit:
        return value
    if not clamp:
        raise SipParseError("number out of range")
    return limit


def split_list(text: str) -> list[str]:
    """The elements of a comma-separated header; commas in quotes and angle brackets do not count."""
    if "," not in text:
        return [text.strip()]
    if '"' not in text and "<" not in text:
        parts = [part.strip() for part in text.split(",")]
    else:
        parts, position = [], 0
        while True:
            match = _LIST_ITEM.match(text, position)
            position = match.end() if match else position
            parts.append(match[0].strip() if match else "")
            if position == len(text):
                break
            if text[position] != ",":
                raise SipParseError("unbalanced quote or bracket")
            position += 1
    if not all(parts):
        raise SipParseError("empty list element")
    return parts


def first_element(text: str) -> str:
    """The first element of a comma-separated header, whatever may be wrong with those behind it."""
    if "," not in text:
        return text.strip()
    match = _LIST_ITEM.match(text)
    return match[0].strip() if match else ""


def parse_params(text: str) -> Params:
    """Header parameters from what stands behind the first `;`. Empty ones are passed over."""
    if '"' in text:
        parts, position = [], 0
        while position < len(text):
            match = _PARAM.match(text, position)
            if match:
                parts.append(match[0])
                position = match.end()
            if position < len(text) and text[position] != ";":
                raise SipParseError("unbalanced quote in a parameter")
            position += 1
    else:
        parts = text.split(";")
    found: list[tuple[str, str | None]] = []
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if name:
            found.append((name, value.strip() if equals else None))
        elif equals:
            raise SipParseError("parameter without a name")
    return tuple(found)


def unquote_string(text: str) -> str:
    """The content of a quoted-string; other text unchanged."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return _BACKSLASHED.sub(r"\1", text[1:-1]) if "\\" in text else text[1:-1]


def quote_string(text: str) -> str:
    """Text as a quoted-string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of the way back (RFC 3261 section 20.42): who sent it, over what; `host` without brackets."""

    transport: str
    host: str
    port: int | None = None
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "Via":
        """Read one Via value."""
        hop, _, params = text.partition(";")
        transport, host, port = _hop_cached(hop) if len(hop) <= _CACHED_LENGTH else _hop(hop)
        return cls(transport, host, port, parse_params(params) if params else ())

    @property
    def branch(self) -> str:
        """The transaction's identifier; "" when there is none (RFC 2543)."""
        return find_param(self.params, "branch") or ""

    @property
    def sent_by(self) -> tuple[str, int]:
        """Host (lower case) and port, the transport's default filled in."""
        return self.host.lower(), self.port or _DEFAULT_PORTS.get(self.transport, 5060)

    @property
    def response_address(self) -> Address:
        """Where a response goes (RFC 3261 18.2.2, RFC 3581). The host may be a name if nobody stamped `received`."""
        host, port = self.sent_by
        rport = find_param(self.params, "rport")
        received = find_param(self.params, "received")
        return Address((received or host).strip("[]"), number(rport, 65535) if rport else port)

    def param(self, name: str) -> str | None:
        """The value of a parameter; "" for a flag such as an empty `rport`, None when absent."""
        value = find_param(self.params, name)
        return unquote_string(value) if value else value

    def with_param(self, name: str, value: str | None = None) -> "Via":
        """The same Via with this parameter added or rewritten; None makes it a flag."""
        return replace(self, params=put_param(self.params, name, value))

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {bracketed(self.host)}{port}{format_params(self.params)}"


def _hop(text: str) -> tuple[str, str, int | None]:
    """What stands before the parameters of a Via: transport, host and port."""
    match = _HOP.fullmatch(text)
    if match is None:
        raise SipParseError("malformed Via")
    transport, host, port = match.groups()
    if port is not None and int(port) > 65535:
        raise SipParseError("port out of range")
    return transport.upper(), host[1:-1] if host[0] == "[" else host, None if port is None else int(port)


_hop_cached = lru_cache(_CACHED)(_hop)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A display name, a URI and header parameters: From, To, Contact, Route and their kin."""

    uri: Uri
    display: str = ""
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "NameAddr":
        """Read one value, with or without angle brackets; without them the parameters belong to the header."""
        return _name_addr_cached(text) if len(text) <= _CACHED_LENGTH else _name_addr(text)

    @property
    def tag(self) -> str:
        """The tag of a From or To; "" when there is none."""
        return find_param(self.params, "tag") or ""

    @property
    def expires(self) -> int | None:
        """A Contact's own lifetime in seconds, or None."""
        value = find_param(self.params, "expires")
        return None if value is None else number(unquote_string(value), MAX_SECONDS, clamp=True)

    @property
    def q(self) -> float:
        """A Contact's preference, 0.0 to 1.0 (the default)."""
        value = find_param(self.params, "q")
        if value is None:
            return 1.0
        if not re.fullmatch(r"[01](?:\.[0-9]{0,9})?", value):
            raise SipParseError("malformed q value")
        return min(float(value), 1.0)

    @property
    def sip_uri(self) -> SipUri:
        """The URI, if it is a SIP one; SipParseError otherwise."""
        if isinstance(self.uri, SipUri):
            return self.uri
        raise SipParseError("not a SIP URI")

    def param(self, name: str) -> str | None:
        """The unquoted value of a header parameter; "" for a flag, None when absent."""
        value = find_param(self.params, name)
        return unquote_string(value) if value else value

    def with_param(self, name: str, value: str | None = None) -> "NameAddr":
        """The same value with this header parameter added or rewritten; None makes it a flag."""
        return replace(self, params=put_param(self.params, name, value))

    def __str__(self) -> str:
        display = ""
        if self.display:
            plain = TOKEN.fullmatch(self.display) is not None
            display = f"{self.display} " if plain else f"{quote_string(self.display)} "
        return f"{display}<{self.uri}>{format_params(self.params)}"


def _name_addr(text: str) -> NameAddr:
    if "<" in text:
        match = _NAME_ADDR.fullmatch(text)
        if match is None:
            raise SipParseError("malformed name-addr")
        quoted, plain, uri, params = match.groups()
        display = unquote_string(quoted) if quoted else plain.rstrip()
        return NameAddr(parse_uri(uri.strip()), display, parse_params(params) if params else ())
    uri, semicolon, params = text.partition(";")
    if "?" in uri:
        raise SipParseError("a URI with headers must stand in angle brackets")
    return NameAddr(parse_uri(uri.strip()), "", parse_params(params) if semicolon else ())


_name_addr_cached = lru_cache(_CACHED)(_name_addr)


@dataclass(frozen=True, slots=True)
class CSeq:
    """The order of a request in its dialog, and its method (RFC 3261 section 20.16)."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> "CSeq":
        """Read a CSeq value; the number must be below 2**31."""
        return _cseq_cached(text) if len(text) <= _CACHED_LENGTH else _cseq(text)

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def _cseq(text: str) -> CSeq:
    match = _CSEQ.fullmatch(text)
    if match is None:
        raise SipParseError("malformed CSeq")
    return CSeq(number(match[1], MAX_CSEQ), match[2])


_cseq_cached = lru_cache(_CACHED)(_cseq)


@dataclass(frozen=True, slots=True)
class RAck:
    """Which reliable provisional response a PRACK acknowledges (RFC 3262 section 7.2)."""

    rseq: int
    cseq: int
    method: str

    @classmethod
    def parse(cls, text: str) -> "RAck":
        """Read an RAck value."""
        match = _RACK.fullmatch(text)
        if match is None:
            raise SipParseError("malformed RAck")
        return cls(number(match[1], MAX_SECONDS), number(match[2], MAX_CSEQ), match[3])

    def __str__(self) -> str:
        return f"{self.rseq} {self.cseq} {self.method}"


@dataclass(frozen=True, slots=True)
class AuthParams:
    """A challenge or credentials: a scheme and its parameters (RFC 3261 sections 20.7, 20.27, 20.28, 20.44)."""

    scheme: str
    params: Params

    @classmethod
    def parse(cls, text: str) -> "AuthParams":
        """Read one challenge or one set of credentials, whatever its scheme."""
        scheme, _, rest = text.strip().partition(" ")
        if not TOKEN.fullmatch(scheme):
            raise SipParseError("malformed authentication scheme")
        found: list[tuple[str, str | None]] = []
        position = 0
        while position < len(rest):
            match = _AUTH_PARAM.match(rest, position)
            if match is None:
                raise SipParseError("malformed authentication parameter")
            found.append((match[1].lower(), match[2]))
            position = match.end()
        return cls(scheme, tuple(found))

    def get(self, name: str) -> str:
        """The unquoted value of a parameter; "" when absent."""
        for key, value in self.params:
            if key == name:
                return unquote_string(value) if value else ""
        return ""

    def __str__(self) -> str:
        return f"{self.scheme} {', '.join([f'{name}={value}' for name, value in self.params])}"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One History-Info entry (RFC 7044): a target the call went to, where in the tree, and why (RFC 4458 cause)."""

    uri: Uri
    index: str
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "HistoryEntry":
        """Read one entry; the index is mandatory."""
        entry = NameAddr.parse(text)
        index = entry.param("index") or ""
        if not _INDEX.fullmatch(index):
            raise SipParseError("malformed History-Info index")
        return cls(entry.uri, index, tuple(item for item in entry.params if item[0] != "index"))

    @property
    def cause(self) -> int | None:
        """The `cause` parameter of the entry's URI (302 for unconditional forwarding), or None."""
        value = self.uri.param("cause") if isinstance(self.uri, SipUri) else None
        return number(value, 999) if value else None

    def __str__(self) -> str:
        return f"<{self.uri}>;index={self.index}{format_params(self.params)}"


@dataclass(frozen=True, slots=True)
class DiversionEntry:
    """One Diversion entry (RFC 5806): who diverted the call, and why; the most recent stands first."""

    uri: Uri
    reason: str = "unknown"
    counter: int = 1
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "DiversionEntry":
        """Read one entry."""
        entry = NameAddr.parse(text)
        rest = tuple(item for item in entry.params if item[0] not in ("reason", "counter"))
        counter = number(entry.param("counter") or "1", 100, clamp=True)
        return cls(entry.uri, entry.param("reason") or "unknown", counter, rest)

    def __str__(self) -> str:
        return f"<{self.uri}>;reason={self.reason};counter={self.counter}{format_params(self.params)}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request or response was sent (RFC 3326): `SIP` or `Q.850`, a cause and a text."""

    protocol: str
    cause: int | None = None
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reason":
        """Read one Reason value."""
        protocol, _, rest = text.partition(";")
        protocol = protocol.strip()
        if not TOKEN.fullmatch(protocol):
            raise SipParseError("malformed Reason")
        params = parse_params(rest)
        cause = find_param(params, "cause")
        return cls(protocol, number(cause, 999) if cause else None, unquote_string(find_param(params, "text") or ""))

    def __str__(self) -> str:
        cause = "" if self.cause is None else f";cause={self.cause}"
        return f"{self.protocol}{cause}" + (f";text={quote_string(self.text)}" if self.text else "")
