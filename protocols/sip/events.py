"""Transactions as the user sees them, and the events a `TransactionLayer` hands up (RFC 3261 section 17)."""

from dataclasses import dataclass

from protocols.net import Flow
from protocols.sip.message import Request, Response
from protocols.sip.transaction_table import Kind, State


class Transaction:
    """One transaction, by identity. `request` is the request as sent or received, `flow` where it went or came from."""

    __slots__ = ("expire_at", "flow", "interval", "key", "kind", "last", "request", "retry_at", "state")

    def __init__(self, kind: Kind, key: tuple[str, ...], request: Request, flow: Flow) -> None:
        self.kind = kind
        self.key = key
        self.request = request
        self.flow = flow
        self.state: State = "new"
        self.last = b""
        self.interval = 0.0
        self.retry_at = self.expire_at = 0.0

    @property
    def terminated(self) -> bool:
        """True once the layer has forgotten it."""
        return self.state == "terminated"

    def __repr__(self) -> str:
        return f"<{self.kind} {self.request.method} {self.state}>"


class ServerTransaction(Transaction):
    """A request received, to be answered; `size` is what it came in, bytes."""

    __slots__ = ("size",)

    def __init__(self, kind: Kind, key: tuple[str, ...], request: Request, flow: Flow, size: int = 0) -> None:
        super().__init__(kind, key, request, flow)
        self.size = size


class ClientTransaction(Transaction):
    """A request sent, to be answered by the peer. `cancelled` once `cancel` was asked for."""

    __slots__ = ("cancel_headers", "cancelled", "quiet")

    def __init__(self, kind: Kind, key: tuple[str, ...], request: Request, flow: Flow) -> None:
        super().__init__(kind, key, request, flow)
        self.cancelled = False
        self.cancel_headers: tuple[tuple[str, str], ...] = ()
        self.quiet = False


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
