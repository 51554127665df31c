"""Which requests are being served or passed on, by a name, until their transactions are forgotten.

Kept is the name's hash, which nobody outside can foresee: a Call-ID, a tag and a URI of each would be held for 32 s.
"""

from protocols.sip.events import ServerTransaction

Name = tuple[str | int, ...]


class Passing:
    """One table for all names; those of one kind have a length of their own."""

    def __init__(self) -> None:
        self._by_name: dict[int, ServerTransaction] = {}
        self._names: dict[ServerTransaction, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: Name) -> ServerTransaction | None:
        """The transaction listed by this name."""
        return self._by_name.get(hash(name))

    def add(self, tx: ServerTransaction, name: Name) -> None:
        """List a transaction by one name more."""
        key = hash(name)
        self._by_name[key] = tx
        self._names[tx] = (*self._names.get(tx, ()), key)

    def end(self, tx: ServerTransaction) -> None:
        """It is forgotten."""
        for key in self._names.pop(tx, ()):
            self._by_name.pop(key, None)
