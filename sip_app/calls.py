"""Calls as the service logic sees them: an INVITE it may answer, the dialog that comes of it (RFC 3261 sections 12-15).

Everything here runs in the event loop's thread; nothing blocks. The wire is the endpoint's business.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.net import Address, Flow
from protocols.sip.dialog import DialogState
from protocols.sip.message import Request

HeaderList = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as authenticated: never taken from the From header field."""

    aor: str
    number: str
    authenticated: bool
    client_address: Address


class CallGone(Exception):
    """The caller hung up, or its transaction died, before the final answer."""


class Rejected(Exception):
    """The service refuses: the status, phrase and header fields of the answer."""

    def __init__(self, status: int, reason: str | None = None, headers: HeaderList = ()) -> None:
        super().__init__(f"{status} {reason or ''}".rstrip())
        self.status = status
        self.reason = reason
        self.headers = headers


class DialogHandler(Protocol):
    """What a service answers to events inside its dialog."""

    async def on_reinvite(self, offer: bytes) -> bytes:
        """The SDP answer to a re-INVITE or UPDATE (an empty offer asks for ours); raises `Rejected`."""
        ...

    async def on_info(self, request: Request) -> None:
        """An INFO request in the dialog; it is answered 200 unless this raises `Rejected`."""
        ...

    def on_ended(self, cause: str) -> None:
        """The dialog is over: "bye" (by the peer), "local" (by us), "ack-timeout", "session-expired", "lost"."""
        ...


class BroadcastService(Protocol):
    """The service behind the service number. Each call is answered or rejected by these before they return."""

    async def go_live(self, call: "IncomingCall") -> None:
        """The service number was dialled, not diverted: the caller wants to provide a stream."""
        ...

    async def watch(self, call: "IncomingCall", channel: str) -> None:
        """The call was diverted to the service number by `channel` (an address of record): the caller watches it."""
        ...

    def group_open(self, channel: str) -> int | None:
        """The epoch of the group that `channel` has open here, or None."""
        ...

    async def activate_overlay(self, channel: str) -> bool:
        """Put the broadcast's forwarding above the subscriber's own; durable on return. False: no open group."""
        ...

    async def deactivate_overlay(self, channel: str) -> None:
        """Withdraw that forwarding; durable on return."""
        ...


class Dialog:
    """A dialog in which we sent the 200: the service's handle on a running call."""

    id: str
    state: DialogState
    app: dict[str, str]
    acked: asyncio.Event
    ended: asyncio.Event
    end_cause: str
    handler: DialogHandler | None

    async def bye(self, reason: str | None = None) -> None:
        """End the call: BYE with this Reason header value; waits for its answer or timeout. Idempotent."""
        raise NotImplementedError

    async def probe(self, timeout: float) -> bool:
        """OPTIONS in the dialog; False when the peer no longer knows it or does not answer within `timeout` seconds."""
        raise NotImplementedError

    async def info(self, body: bytes, content_type: str) -> int:
        """INFO in the dialog; the final status (408 when nobody answers)."""
        raise NotImplementedError


class IncomingCall:
    """One INVITE for which we are the user agent server."""

    request: Request
    flow: Flow
    caller: Caller
    offer: bytes
    diverted_by: str | None
    ended: asyncio.Event

    @property
    def cancelled(self) -> bool:
        """True once the caller gave up or its transaction died before the final answer."""
        raise NotImplementedError

    async def progress(
        self,
        status: int,
        reason: str | None = None,
        *,
        body: bytes = b"",
        content_type: str = "application/sdp",
        contact: str | None = None,
        headers: HeaderList = (),
        reliable: bool = False,
    ) -> None:
        """Send a provisional answer; a reliable one returns after its PRACK. Raises `CallGone`."""
        raise NotImplementedError

    async def answer(
        self,
        *,
        body: bytes = b"",
        contact: str | None = None,
        headers: HeaderList = (),
        app: Mapping[str, str] | None = None,
    ) -> Dialog:
        """Accept: the dialog is durable before the 200 leaves; returns once it is sent. Raises `CallGone`."""
        raise NotImplementedError

    def reject(self, status: int, reason: str | None = None, headers: HeaderList = ()) -> None:
        """Refuse. Idempotent; without effect after a final answer."""
        raise NotImplementedError
