"""The header fields of a message: ordered, case-insensitive, compact names known (RFC 3261 section 7.3), immutable."""

from collections.abc import Iterable, Iterator, Mapping

from protocols.sip.errors import SipParseError
from protocols.sip.headers import TOKEN, split_list

_COMPACT = {
    "a": "accept-contact", "b": "referred-by", "c": "content-type", "d": "request-disposition",
    "e": "content-encoding", "f": "from", "i": "call-id", "j": "reject-contact", "k": "supported",
    "l": "content-length", "m": "contact", "n": "identity-info", "o": "event", "r": "refer-to", "s": "subject",
    "t": "to", "u": "allow-events", "v": "via", "x": "session-expires", "y": "identity",
}  # fmt: skip
_COMMON = (
    "Via", "From", "To", "Call-ID", "CSeq", "Contact", "Max-Forwards", "Content-Length", "Content-Type", "Route",
    "Record-Route", "User-Agent", "Server", "Allow", "Supported", "Require", "Expires", "Authorization",
    "Proxy-Authorization", "WWW-Authenticate", "Proxy-Authenticate", "RSeq", "RAck", "Session-Expires", "Min-SE",
    "Reason", "History-Info", "Diversion", "Accept", "Subject", "Allow-Events", "Path", "Date", "Timestamp",
)  # fmt: skip
_KEYS = _COMPACT | {name: name.lower() for name in _COMMON} | {name.lower(): name.lower() for name in _COMMON}
"""From a name as usually written to its key; any other name is looked up the slow way."""

_Line = tuple[str, str, str]


def header_key(name: str) -> str:
    """The lower-case long form of a header name. Raises SipParseError for what is no name."""
    key = _KEYS.get(name)
    if key is None:
        if not TOKEN.fullmatch(name):
            raise SipParseError("malformed header name")
        key = name.lower()
        key = _COMPACT.get(key, key)
    return key


class Headers:
    """An immutable list of header lines. Methods that change something return a new list; names go in any spelling.

    `get`, `all` and `in` see whole lines; `values` splits comma-separated lines into elements.
    """

    __slots__ = ("_index", "_lines")

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self._lines: tuple[_Line, ...] = tuple([(header_key(name), name, value) for name, value in lines])
        self._index: dict[str, list[str]] | None = None

    @classmethod
    def _of(cls, lines: Iterable[_Line]) -> "Headers":
        headers = cls.__new__(cls)
        headers._lines = tuple(lines)
        headers._index = None
        return headers

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Headers":
        """Read unfolded header lines. Raises SipParseError."""
        found: list[_Line] = []
        keys = _KEYS
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise SipParseError("header line without a colon")
            key = keys.get(name)
            if key is None:
                name = name.rstrip(" \t")
                key = header_key(name)
            found.append((key, name, value.strip(" \t")))
        return cls._of(found)

    def by_key(self) -> Mapping[str, list[str]]:
        """The lines' values by name in lower-case long form, for who asks for many; not to be changed."""
        index = self._index
        if index is None:
            index = self._index = {}
            for key, _, value in self._lines:
                if key in index:
                    index[key].append(value)
                else:
                    index[key] = [value]
        return index

    def get(self, name: str) -> str | None:
        """The first line's value, or None."""
        lines = (self._index or self.by_key()).get(_KEYS.get(name) or header_key(name))
        return lines[0] if lines else None

    def all(self, name: str) -> tuple[str, ...]:
        """Every line's value, in order."""
        return tuple(self.by_key().get(_KEYS.get(name) or header_key(name), ()))

    def values(self, name: str) -> list[str]:
        """Every element of a comma-separated header, over all its lines. Empty lines are passed over."""
        lines = (self._index or self.by_key()).get(_KEYS.get(name) or header_key(name), ())
        return [element for line in lines if line for element in split_list(line)]

    def repeated(self, *names: str) -> str | None:
        """The first of these header names that has more than one line, or None."""
        index = self.by_key()
        return next((name for name in names if len(index.get(header_key(name), ())) > 1), None)

    def with_(self, name: str, *values: str) -> "Headers":
        """The header set to these lines, where its first line stood, or at the end."""
        key = header_key(name)
        new = [(key, name, value) for value in values]
        lines: list[_Line] = []
        for line in self._lines:
            if line[0] != key:
                lines.append(line)
            else:
                lines += new
                new = []
        return Headers._of(lines + new)

    def without(self, *names: str) -> "Headers":
        """All but these headers."""
        keys = {header_key(name) for name in names}
        return Headers._of([line for line in self._lines if line[0] not in keys])

    def only(self, *names: str) -> "Headers":
        """These headers alone, in message order."""
        keys = {header_key(name) for name in names}
        return Headers._of([line for line in self._lines if line[0] in keys])

    def answering(self, keys: frozenset[str], to_tag: str | None, more: Iterable[tuple[str, str]]) -> "Headers":
        """A response's headers: of these, given as to `has_any`, what is here, To with the tag added; then `more`."""
        lines = [line for line in self._lines if line[0] in keys]
        if to_tag:
            lines = [
                (key, name, f"{text};tag={to_tag}") if key == "to" else (key, name, text) for key, name, text in lines
            ]
        lines += [(_KEYS.get(name) or header_key(name), name, value) for name, value in more]
        return Headers._of(lines)

    def prepend(self, name: str, value: str) -> "Headers":
        """A line in front of all others: a Via, Route or Record-Route pushed on top."""
        return Headers._of(((header_key(name), name, value), *self._lines))

    def add(self, *lines: tuple[str, str]) -> "Headers":
        """Further lines at the end."""
        return Headers._of([*self._lines, *((header_key(name), name, value) for name, value in lines)])

    def with_first(self, name: str, value: str | None) -> "Headers":
        """The first element of a comma-separated header replaced, or removed if None; unchanged if there is none."""
        key = _KEYS.get(name) or header_key(name)
        lines = list(self._lines)
        for position, (line_key, written, line) in enumerate(lines):
            if line_key == key:
                rest = split_list(line)[1:] if "," in line else []
                kept = ", ".join([value, *rest] if value is not None else rest)
                lines[position : position + 1] = [(key, written, kept)] if kept else []
                break
        return Headers._of(lines)

    def has_any(self, keys: frozenset[str]) -> bool:
        """Whether any of these headers, given in lower-case long form, is there."""
        return not keys.isdisjoint(self.by_key())

    def __contains__(self, name: str) -> bool:
        return (_KEYS.get(name) or header_key(name)) in (self._index or self.by_key())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(name, value) for _, name, value in self._lines])

    def __len__(self) -> int:
        return len(self._lines)

    def _content(self) -> tuple[tuple[str, str], ...]:
        return tuple([(key, value) for key, _, value in self._lines])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __repr__(self) -> str:
        return f"Headers({sorted({key for key, _, _ in self._lines})})"

    def serialise(self, body_length: int) -> str:
        """The header lines as they go out, Content-Length last and always ours, with the empty line.

        A line break inside a value would forge header lines: it goes out as a blank.
        """
        lines = [f"{name}: {value}\r\n" for key, name, value in self._lines if key != "content-length"]
        text = "".join(lines)
        if text.count("\n") != len(lines) or text.count("\r") != len(lines):
            text = "".join([line[:-2].replace("\r", " ").replace("\n", " ") + "\r\n" for line in lines])
        return f"{text}Content-Length: {body_length}\r\n\r\n"
