"""The AMP box that carries control values; declarations only, and the one place in `protocols` that names Twisted.

One AMP command in each direction is enough: the typed values of `protocols.control` say what it means.
"""

from typing import ClassVar

from twisted.protocols import amp


class RefusedError(Exception):
    """Travels back as an AMP error; its text is `code: what was wrong` (see `ControlError`)."""


class ControlCall(amp.Command):
    """One value there, one value back."""

    commandName = b"c"  # noqa: N815 - the name AMP prescribes
    arguments: ClassVar = [(b"name", amp.Unicode()), (b"body", amp.String())]
    response: ClassVar = [(b"name", amp.Unicode()), (b"body", amp.String())]
    errors: ClassVar = {RefusedError: b"REFUSED"}
