"""Transactions as the user sees them, and the events a `TransactionLayer` hands up (RFC 3261 section 17)."""

from dataclasses import dataclass
from sys import intern

from protocols.net import Flow
from protocols.sip.message import Request, Response
from protocols.sip.transaction_table import Kind, State


class Transaction:
    """One transaction, by identity; `flow` is where the request went or came from."""

    __slots__ = ("_request", "expire_at", "flow", "interval", "key", "kind", "last", "method", "retry_at", "state")

    def __init__(self, kind: Kind, key: str, request: Request, flow: Flow) -> None:
        self.kind = kind
        self.key = key
        self.method = intern(request.method)
        self.flow = flow
        self.state: State = "new"
        self.last = b""
        """What a retransmission is answered with."""
        self.interval = 0.0
        self.retry_at = self.expire_at = 0.0
        self._request: Request | None = request

    @property
    def request(self) -> Request:
        """The request as sent or received. Raises LookupError once it was released."""
        if self._request is None:
            raise LookupError(f"{self} was released")
        return self._request

    def release(self) -> None:
        """Its user needs the request no more; call it when there is a final response. Of a message of a kilobyte the
        parsed form takes five, and thousands wait 32 s for retransmissions that need none of it."""
        self._request = None

    @property
    def terminated(self) -> bool:
        """True once the layer has forgotten it."""
        return self.state == "terminated"

    def __repr__(self) -> str:
        return f"<{self.kind} {self.method} {self.state}>"


class ServerTransaction(Transaction):
    """A request received, to be answered; `size` is what it came in, later what its answer is kept in, bytes."""

    __slots__ = ("size", "to_tag")

    def __init__(self, kind: Kind, key: str, request: Request, flow: Flow, size: int = 0) -> None:
        super().__init__(kind, key, request, flow)
        self.size = size
        self.to_tag = ""
        """For its user: what a late CANCEL is answered with (RFC 3261 section 9.2)."""

    @property
    def answered(self) -> bool:
        """True once it has had its final response, or is over without one."""
        return self.state not in ("new", "trying", "proceeding")


class ClientTransaction(Transaction):
    """A request sent, to be answered by the peer. `cancelled` once `cancel` was asked for."""

    __slots__ = ("cancel_headers", "cancelled", "quiet")

    def __init__(self, kind: Kind, key: str, request: Request, flow: Flow) -> None:
        super().__init__(kind, key, request, flow)
        self.cancelled = False
        self.cancel_headers: tuple[tuple[str, str], ...] = ()
        self.quiet = False

    @property
    def branch(self) -> str:
        """Of our Via."""
        return self.key.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A new request other than ACK and CANCEL, its top Via stamped with `received` and `rport`."""

    tx: ServerTransaction
    request: Request
    flow: Flow


@dataclass(frozen=True, slots=True)
class AckReceived:
    """An ACK for a 2xx; it has no transaction."""

    request: Request
    flow: Flow


@dataclass(frozen=True, slots=True)
class CancelReceived:
    """A CANCEL (`cancel_tx`, `request`) for the INVITE of `tx`. One that matches nothing is answered 481 here."""

    tx: ServerTransaction
    cancel_tx: ServerTransaction
    request: Request


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response to a request we sent; every 2xx to an INVITE comes up, retransmissions and forks included."""

    tx: ClientTransaction
    response: Response
    flow: Flow


@dataclass(frozen=True, slots=True)
class TransactionTimeout:
    """A client's: no final response in time (a 408). A server's: no ACK of a failure, or no answer by the user."""

    tx: Transaction


@dataclass(frozen=True, slots=True)
class TransactionTransportError:
    """The flow broke, or there is no room for another transaction (a client's 503)."""

    tx: Transaction


@dataclass(frozen=True, slots=True)
class TransactionTerminated:
    """The layer has forgotten this transaction."""

    tx: Transaction


Event = (
    RequestReceived
    | AckReceived
    | CancelReceived
    | ResponseReceived
    | TransactionTimeout
    | TransactionTransportError
    | TransactionTerminated
)
