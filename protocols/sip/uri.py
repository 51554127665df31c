"""SIP and tel URIs (RFC 3261 section 19.1, RFC 3966), their comparison, and the key under which a number is kept.

Parts are held as written (%-escapes and all), so that a URI goes out as it came in; `param` and `number_key` decode.
Only what is case-insensitive (scheme, host, parameter names) is made lower case.
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import quote, unquote

from protocols.net import Address, bracketed, is_numeric
from protocols.sip.errors import SipParseError

Params = tuple[tuple[str, str | None], ...]

_SIP = re.compile(
    r"(sips?):"
    r"(?:([^@:\s<>\"\x00-\x20\x7f]+)(?::([^@\s<>\"\x00-\x20\x7f]*))?@)?"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?"
    r"((?:;[^;?@\s<>\"\x00-\x20\x7f]*)*)"
    r"(?:\?([^\s<>\"\x00-\x20\x7f]*))?",
    re.IGNORECASE,
)
_TEL = re.compile(r"tel:(\+?[0-9A-Fa-f*#().-]+)((?:;[^;?\s<>\"\x00-\x20\x7f]*)*)", re.IGNORECASE)
_OTHER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):([^\s<>\"\x00-\x20\x7f]+)")
_NUMBER = re.compile(r"\+?[0-9*#+]+")
_SEPARATORS = str.maketrans("", "", "-.() ")
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()")
_USER_SAFE = "-_.!~*'()&=+$,;?/"
_MUST_MATCH = frozenset(("user", "ttl", "method", "maddr", "transport"))
"""Parameters that make two URIs differ even when only one has them (RFC 3261 section 19.1.4)."""
_CACHED_LENGTH = 200
"""Only URIs up to this length are cached, which bounds the cache in bytes."""


def find_param(params: Params, name: str) -> str | None:
    """The value of the parameter `name` (lower case, as all names are kept); "" for a flag, None when absent."""
    for key, value in params:
        if key == name:
            return value or ""
    return None


def put_param(params: Params, name: str, value: str | None) -> Params:
    """The parameters with `name` set, at its old place if it had one."""
    found = False
    kept: list[tuple[str, str | None]] = []
    for key, old in params:
        if key != name:
            kept.append((key, old))
        elif not found:
            found = True
            kept.append((name, value))
    if not found:
        kept.append((name, value))
    return tuple(kept)


def format_params(params: Params) -> str:
    """`;name=value;flag`, as a URI or a header ends."""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params])


def _params(text: str) -> Params:
    found: list[tuple[str, str | None]] = []
    for part in text.split(";"):
        if part:
            name, equals, value = part.partition("=")
            if not name:
                raise SipParseError("URI parameter without a name")
            found.append(((_normal(name) or "").lower(), value if equals else None))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SipUri:
    """A sip: or sips: URI. `host` is lower case and without brackets; `port` is None when not written."""

    host: str
    user: str | None = None
    port: int | None = None
    params: Params = ()
    scheme: str = "sip"
    password: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = ()

    def param(self, name: str) -> str | None:
        """The decoded value of a parameter; "" for a flag such as `lr`, None when absent."""
        value = find_param(self.params, name) if self.params else None
        return unquote(value) if value and "%" in value else value

    def with_param(self, name: str, value: str | None = None) -> "SipUri":
        """The same URI with this parameter added or rewritten; None makes it a flag."""
        return replace(self, params=put_param(self.params, name, value))

    def without_params(self, *names: str) -> "SipUri":
        """The same URI without these parameters; without any parameter or header if none is named."""
        if not names:
            return replace(self, params=(), headers=())
        return replace(self, params=tuple(item for item in self.params if item[0] not in names))

    @property
    def decoded_user(self) -> str:
        """The user part with its %-escapes resolved; "" when there is none."""
        return unquote(self.user or "")

    @property
    def address(self) -> Address | None:
        """Where the URI points (maddr first, RFC 3261 19.1.1), or None when that is a name to be looked up."""
        host = self.param("maddr") or self.host
        default = 5061 if self.scheme == "sips" or self.param("transport") == "tls" else 5060
        return Address(host.strip("[]"), self.port or default) if is_numeric(host) else None

    def __str__(self) -> str:
        userinfo = ""
        if self.user is not None:
            userinfo = f"{self.user}@" if self.password is None else f"{self.user}:{self.password}@"
        port = "" if self.port is None else f":{self.port}"
        headers = "?" + "&".join([f"{name}={value}" for name, value in self.headers]) if self.headers else ""
        return f"{self.scheme}:{userinfo}{bracketed(self.host)}{port}{format_params(self.params)}{headers}"


@dataclass(frozen=True, slots=True)
class TelUri:
    """A tel: URI: a global (`+`) or local telephone number with its parameters."""

    number: str
    params: Params = ()

    def param(self, name: str) -> str | None:
        """The value of a parameter such as `phone-context`; "" for a flag, None when absent."""
        return find_param(self.params, name)

    def __str__(self) -> str:
        return f"tel:{self.number}{format_params(self.params)}"


@dataclass(frozen=True, slots=True)
class OtherUri:
    """A URI of a scheme this stack does not act on, kept as it is."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


Uri = SipUri | TelUri | OtherUri


def parse_uri(text: str) -> Uri:
    """Read one URI, without angle brackets. Raises SipParseError."""
    return _parse_cached(text) if len(text) <= _CACHED_LENGTH else _parse(text)


def _parse(text: str) -> Uri:
    match = _SIP.fullmatch(text)
    if match is not None:
        scheme, user, password, host, port, params, headers = match.groups()
        if port is not None and int(port) > 65535:
            raise SipParseError("port out of range")
        if host[0] == "[":
            host = host[1:-1]
            if not is_numeric(host):
                raise SipParseError("not an IPv6 address in brackets")
        return SipUri(
            host.lower(),
            user,
            None if port is None else int(port),
            _params(params) if params else (),
            scheme.lower(),
            password,
            _headers(headers) if headers else (),
        )
    scheme, colon, _ = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme == "tel" and (match := _TEL.fullmatch(text)):
        return TelUri(match[1], _params(match[2]))
    if scheme not in ("sip", "sips", "tel") and (match := _OTHER.fullmatch(text)):
        return OtherUri(scheme, match[2])
    raise SipParseError("not a URI")


_parse_cached = lru_cache(maxsize=4096)(_parse)


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    parts = [part.partition("=") for part in text.split("&") if part]
    return tuple([(name, value) for name, _, value in parts])


def escape_user(text: str) -> str:
    """Text as the user part of a SIP URI: `#`, `@`, blanks and the like %-escaped."""
    return quote(text, safe=_USER_SAFE)


def _normal(text: str | None) -> str | None:
    """Escapes of unreserved characters resolved and the others upper case, so that equal parts become equal text.

    A lone % becomes an escape itself: with what follows it might otherwise turn into one.
    """
    if text is None or "%" not in text:
        return text

    def resolve(match: re.Match[str]) -> str:
        if match[1] is None:
            return "%25"
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(resolve, text)


def uri_equal(one: Uri, other: Uri) -> bool:
    """Equality as RFC 3261 section 19.1.4 defines it; a port written out differs from a port left out."""
    if isinstance(one, TelUri) and isinstance(other, TelUri):
        return _same_number(one, other)
    if not (isinstance(one, SipUri) and isinstance(other, SipUri)):
        return one == other
    if (one.scheme, one.host, one.port) != (other.scheme, other.host, other.port):
        return False
    if _normal(one.user) != _normal(other.user) or _normal(one.password) != _normal(other.password):
        return False
    left, right = _folded(one.params), _folded(other.params)
    if any((left.get(name) != right.get(name)) for name in _MUST_MATCH | (left.keys() & right.keys())):
        return False
    return sorted(_folded(one.headers).items()) == sorted(_folded(other.headers).items())


def _folded(params: Params | tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {name.lower(): (_normal(value) or "").lower() for name, value in params}


def _same_number(one: TelUri, other: TelUri) -> bool:
    left, right = (uri.number.translate(_SEPARATORS).lower() for uri in (one, other))
    return left == right and _folded(one.params) == _folded(other.params)


def number_key(uri: Uri | str, domain: str) -> str:
    """The key `number@domain` of whoever the URI names, for a URI the caller knows to be of that domain.

    sip:, sips: and tel: forms of one number give one key: %-escapes, a leading `+`, visual separators, parameters in
    the user part and `user=phone` make no difference. A user that is no number keeps its letters and their case.
    Raises SipParseError for a URI without a user.
    """
    if isinstance(uri, str):
        uri = parse_uri(uri)
    if isinstance(uri, TelUri):
        written: str | None = uri.number
    else:
        written = uri.user if isinstance(uri, SipUri) else None
    if not written:
        raise SipParseError("the URI names no user")
    plain = written if written.isdigit() else unquote(written).partition(";")[0].translate(_SEPARATORS)
    if _NUMBER.fullmatch(plain):
        plain = plain.lstrip("+")
        if plain:
            return f"{plain}@{domain}"
    return f"{_normal(written)}@{domain}"
