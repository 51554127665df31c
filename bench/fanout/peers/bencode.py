"""Bencoding, in which rtpengine's control protocol writes its dictionaries."""

from collections.abc import Mapping, Sequence

Value = int | str | Sequence["Value"] | Mapping[str, "Value"]


def encoded(value: Value) -> bytes:
    """A value as bytes."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        raw = value.encode()
        return b"%d:%s" % (len(raw), raw)
    if isinstance(value, Mapping):
        return b"d" + b"".join(encoded(key) + encoded(each) for key, each in value.items()) + b"e"
    return b"l" + b"".join(map(encoded, value)) + b"e"


def decoded(data: bytes) -> dict[str, str]:
    """The strings of a dictionary; whatever else is in it is left out. Raises ValueError for anything else."""
    value, _ = _value(data, 0)
    if not isinstance(value, list) or data[:1] != b"d":
        raise ValueError("no dictionary")
    pairs = zip(value[::2], value[1::2], strict=True)
    return {key: each for key, each in pairs if isinstance(key, str) and isinstance(each, str)}


def _value(data: bytes, at: int) -> tuple[object, int]:
    """What stands there, a dictionary as a list of keys and values in turn, and where the next thing is."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in {b"l", b"d"}:
        values, at = [], at + 1
        while data[at : at + 1] != b"e":
            value, at = _value(data, at)
            values.append(value)
        return values, at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end].decode(), end
