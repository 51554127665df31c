"""Numbers that wrap: 16-bit sequence numbers and 32-bit timestamps on an endless line (RFC 3550 A.1)."""

SEQUENCE_BITS = 16
TIMESTAMP_BITS = 32


def difference(a: int, b: int, bits: int = SEQUENCE_BITS) -> int:
    """a - b over the shorter way round the circle: positive when `a` is the newer."""
    half = 1 << (bits - 1)
    return ((a - b + half) & ((1 << bits) - 1)) - half


def extend(value: int, near: int, bits: int = SEQUENCE_BITS) -> int:
    """The number congruent to `value` that lies nearest to the extended number `near` (may be negative)."""
    return near + difference(value, near, bits)


class Unwrapper:
    """Turns wrapped numbers into extended ones, nearest to the highest seen; the first is itself."""

    __slots__ = ("_bits", "highest")

    def __init__(self, bits: int = SEQUENCE_BITS) -> None:
        self._bits = bits
        self.highest: int | None = None

    def unwrap(self, value: int) -> int:
        """The extended number; a late packet gets its own, below `highest`."""
        if self.highest is None:
            self.highest = value
            return value
        extended = extend(value, self.highest, self._bits)
        self.highest = max(extended, self.highest)
        return extended
