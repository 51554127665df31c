"""Twisted's AMP on an asyncio stream: the few transport methods AMP uses, so that the relay needs no reactor."""

import asyncio
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.protocols import amp
from twisted.python.failure import Failure

MAX_BUFFERED = 4 * 1024 * 1024
"""Bytes a peer may leave unread before the link is given up; it reconciles when it is back."""


class Gate(Protocol):
    """Decides how much may come in."""

    def received(self, size: int) -> bool:
        """False ends the connection."""
        ...


class AmpStream(asyncio.Protocol):
    """One connection: bytes between an asyncio transport and an AMP protocol."""

    def __init__(self, wire: amp.AMP, gate: Gate) -> None:
        self._wire: Any = wire  # AMP is untyped
        self._gate = gate
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._wire.makeConnection(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._gate.received(len(data)):
            self.abortConnection()
            return
        try:
            self._wire.dataReceived(data)
        except (amp.AmpError, ValueError, KeyError):
            # Boxes that make no sense; AMP itself has no better answer than to hang up.
            self.abortConnection()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._wire.connectionLost(Failure(ConnectionLost() if exc else ConnectionDone()))

    def write(self, data: bytes) -> None:
        """Transport: send, or give up a peer that does not read."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_BUFFERED:
            self._transport.abort()

    def loseConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Transport: close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Transport: close at once."""
        if self._transport is not None:
            self._transport.abort()

    def getPeer(self) -> object:  # noqa: N802 - Twisted's name
        """Transport: the remote address, for logs."""
        return self._transport.get_extra_info("peername") if self._transport is not None else None

    def getHost(self) -> object:  # noqa: N802 - Twisted's name
        """Transport: the local address, for logs."""
        return self._transport.get_extra_info("sockname") if self._transport is not None else None
