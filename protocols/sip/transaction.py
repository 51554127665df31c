"""Transactions (RFC 3261 section 17, RFC 6026, RFC 3581): retransmission, absorption and timeouts, without a socket.

`TransactionLayer` takes parsed messages and the time; what it wants sent and what the user must know come out of
`to_send()` and `next_event()`. The state machines are two tables in `transaction_table`; `transaction_keys` tells which
message belongs to which.

The user's duties: answer every `RequestReceived` once and for all with `send_response`; answer `CancelReceived` (200 to
the CANCEL, 487 to the INVITE); acknowledge 2xx with `send_stateless(ack)`; repeat a UAS's 2xx (`invite.UasInvite`
does); find merged requests. A `ResponseReceived` still carries our Via on top: a proxy takes it off with
`headers.with_first("Via", None)`. Who needs a transaction's request no more says so (`Transaction.release`): left
for 32 s is then what retransmissions need (section 17.2). Responses that belong to no transaction are dropped (RFC 6026
section 7.2).
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from protocols.net import Address, Flow
from protocols.sip.errors import SipParseError
from protocols.sip.events import (
    AckReceived,
    CancelReceived,
    ClientTransaction,
    Event,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    Transaction,
    TransactionTerminated,
    TransactionTimeout,
    TransactionTransportError,
)
from protocols.sip.headers import Via
from protocols.sip.message import Request, Response, make_response
from protocols.sip.transaction_keys import MAGIC_COOKIE, client_key, companion, response_flow, server_key, stamped
from protocols.sip.transaction_table import ENTRY, TABLE, Action, Cause, State
from protocols.sip.transaction_timers import Timetable

__all__ = ["AckReceived", "CancelReceived", "ClientTransaction", "Event", "RequestReceived", "ResponseReceived"]
__all__ += ["ServerTransaction", "Timers", "Transaction", "TransactionLayer", "TransactionTerminated"]
__all__ += ["TransactionTimeout", "TransactionTransportError"]

MAX_TRANSACTIONS = 20_000
MAX_BYTES = 32_000_000


@dataclass(frozen=True, slots=True)
class Timers:
    """Base timers in seconds (RFC 3261 table 4): T1 round trip, T2 and T4 caps, C the longest wait while it rings."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    c: float = 185.0
    trying: float = 0.2
    """An INVITE without any answer for this long gets a 100 (section 17.2.1)."""

    @property
    def timeout(self) -> float:
        """64*T1: timers B, D, F, H, J, L and M."""
        return 64 * self.t1


Full = Literal["number", "bytes"]
"""Which limit leaves no room for one more transaction: how many there are, or the bytes of their requests (once
answered: of what is kept of the answer)."""
_Do = Callable[[Transaction, Response | None, Flow, float], None]


def _received(status: int) -> Cause:
    return "1xx" if status < 200 else "2xx" if status < 300 else "failure"


def _answered(status: int) -> Cause:
    return "send 1xx" if status < 200 else "send 2xx" if status < 300 else "send failure"


class TransactionLayer:
    """All transactions of one SIP element. `sent_by` says, per flow, the host and port our Via shows.

    `no_room` hears of each request, of others or ours, that had no room.
    """

    def __init__(
        self,
        timers: Timers | None = None,
        max_transactions: int = MAX_TRANSACTIONS,
        sent_by: Callable[[Flow], Address] = lambda flow: flow.local,
        max_bytes: int = MAX_BYTES,
        no_room: Callable[[Full], object] = lambda full: None,
    ) -> None:
        self.dropped = 0
        """Responses and ACKs that matched nothing or could not be read."""
        self._timers = timers or Timers()
        self._limit = max_transactions
        self._max_bytes = max_bytes
        self._held = 0
        self._no_room = no_room
        self._sent_by = sent_by
        self._servers: dict[str, ServerTransaction] = {}
        self._clients: dict[str, ClientTransaction] = {}
        self._by_connection: dict[Flow, set[Transaction]] = {}
        self._completed: deque[Transaction] = deque()
        self._timetable = Timetable()
        self._out: list[tuple[bytes, Flow]] = []
        self._events: deque[Event] = deque()
        self._actions: dict[Action, _Do] = {
            "send": self._send,
            "send only": self._send_only,
            "resend": self._resend,
            "trying": self._send_trying,
            "pass": self._pass,
            "ack": self._ack,
            "cancel": self._cancel_if_wanted,
            "give up": self._give_up,
            "extend": self._extend,
            "timeout": self._timeout,
            "fail": self._fail,
        }

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients)

    # What comes in

    def receive(self, message: Request | Response, flow: Flow, now: float, size: int = 0) -> None:
        """Take one parsed message, which came in `size` bytes. Requests should have passed `check_request`; unreadable
        ones are dropped."""
        try:
            if isinstance(message, Response):
                self._receive_response(message, flow, now)
            else:
                self._receive_request(message, flow, now, size)
        except SipParseError:
            self.dropped += 1

    def _receive_request(self, request: Request, flow: Flow, now: float, size: int) -> None:
        method = request.method
        key = server_key(request, "INVITE" if method == "ACK" else method)
        known = self._servers.get(key)
        if method == "ACK":
            if known is None or known.state == "accepted":
                self._events.append(AckReceived(stamped(request, flow), flow))
            else:
                self._feed(known, "ack", now)
            return
        if known is not None:
            self._feed(known, "request", now)
            return
        request = stamped(request, flow)
        if not self._has_room(size):
            busy = make_response(request, 503, to_tag=secrets.token_hex(4), headers=(("Retry-After", "5"),))
            self._out.append((busy.serialise(), response_flow(request, flow)))
            return
        tx = ServerTransaction(
            "invite server" if method == "INVITE" else "server", key, request, response_flow(request, flow), size
        )
        self._servers[key] = tx
        self._held += size
        self._begin(tx, "proceeding" if method == "INVITE" else "trying", now)
        if method != "CANCEL":
            self._events.append(RequestReceived(tx, request, flow))
        elif (invite := self._servers.get(server_key(request, "INVITE"))) is not None:
            self._events.append(CancelReceived(invite, tx, request))
        else:
            self.send_response(tx, make_response(request, 481, to_tag=secrets.token_hex(4)), now)
            tx.release()

    def _receive_response(self, response: Response, flow: Flow, now: float) -> None:
        tx = self._clients.get(client_key(response.top_via.branch, response.cseq.method))
        if tx is None:
            self.dropped += 1
        else:
            self._feed(tx, _received(response.status), now, response, flow)

    # What goes out

    def send_request(self, request: Request, flow: Flow, now: float) -> ClientTransaction:
        """Send a request (neither ACK nor CANCEL) with our Via on top. If full: a TransactionTransportError follows."""
        branch = MAGIC_COOKIE + secrets.token_hex(8)
        request = self._with_via(request, flow, branch)
        key = client_key(branch, request.method)
        tx = ClientTransaction("invite client" if request.method == "INVITE" else "client", key, request, flow)
        if not self._has_room():
            tx.state = "terminated"
            self._events.append(TransactionTransportError(tx))
            return tx
        self._start_client(tx, now)
        return tx

    def send_response(self, tx: ServerTransaction, response: Response, now: float) -> None:
        """Answer a request. After the final response only a 2xx to an INVITE goes out again; others are ignored."""
        self._feed(tx, _answered(response.status), now, response)

    def challenge(self, tx: ServerTransaction, response: Response, now: float) -> None:
        """Ask for credentials. An INVITE is forgotten with that: whoever missed the question asks again, and whoever
        never asked, as his address was forged, is not sent it eleven times (RFC 3261 section 26.3.2.4)."""
        self._feed(tx, "send once" if tx.kind == "invite server" else "send failure", now, response)

    def send_stateless(self, message: Request | Response | bytes, flow: Flow) -> None:
        """Send without a transaction: an ACK (it gets a Via of ours), or a response, as it is or made before."""
        if isinstance(message, Request):
            message = self._with_via(message, flow, MAGIC_COOKIE + secrets.token_hex(8))
        self._out.append((message if isinstance(message, bytes) else message.serialise(), flow))

    def cancel(self, tx: ClientTransaction, now: float, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Cancel an INVITE we sent (RFC 3261 section 9.1): at once if it rings, at its first 1xx if not yet.

        `headers` (a Reason, say) go into the CANCEL. The INVITE's own end still comes as a response or timeout.
        """
        if tx.kind == "invite client" and not tx.cancelled and tx.state in ("calling", "proceeding"):
            tx.cancelled = True
            tx.cancel_headers = tuple(headers)
            if tx.state == "proceeding":
                self._send_cancel(tx, now)

    def transport_failed(self, flow: Flow, now: float) -> None:
        """The connection, or the way to this UDP peer, is gone: every transaction on it fails."""
        if flow.reliable:
            affected: list[Transaction] = list(self._by_connection.get(flow, ()))
        else:
            affected = [tx for tx in (*self._servers.values(), *self._clients.values()) if tx.flow == flow]
        for tx in affected:
            self._feed(tx, "error", now)

    def to_send(self) -> list[tuple[bytes, Flow]]:
        """Take what is to be sent."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> Event | None:
        """Take the next event, or None."""
        return self._events.popleft() if self._events else None

    # Time

    def next_timer(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        return self._timetable.next()

    def handle_timer(self, now: float) -> None:
        """Do all that is due at `now`."""
        while (due := self._timetable.due(now)) is not None:
            tx, cause = due
            if cause == "retry":
                if tx.kind == "invite server" and tx.state == "proceeding":
                    tx.retry_at = 0.0
                else:
                    tx.interval *= 2
                    if tx.kind != "invite client":
                        tx.interval = min(tx.interval, self._timers.t2)
                    self._timetable.retry(tx, now + tx.interval)
            self._feed(tx, cause, now)

    # The machine: what the tables say, done

    def _feed(
        self, tx: Transaction, cause: Cause, now: float, response: Response | None = None, flow: Flow | None = None
    ) -> None:
        rule = TABLE.get((tx.kind, tx.state, cause))
        if rule is None:
            return
        state, actions = rule
        for action in actions:
            self._actions[action](tx, response, flow or tx.flow, now)
        if state != tx.state:
            self._enter(tx, state, now)

    def _begin(self, tx: Transaction, state: State, now: float) -> None:
        if tx.flow.reliable:
            self._by_connection.setdefault(tx.flow, set()).add(tx)
        self._enter(tx, state, now)

    def _enter(self, tx: Transaction, state: State, now: float) -> None:
        if state == "terminated":
            self._terminate(tx)
            return
        tx.state = state
        entry = ENTRY[tx.kind, state]
        reliable = tx.flow.reliable
        if entry.at_once_if_reliable and reliable:
            self._terminate(tx)
            return
        if entry.retry and (entry.retry == "trying" or not reliable):
            tx.interval = getattr(self._timers, entry.retry)
            self._timetable.retry(tx, now + tx.interval)
        else:
            tx.retry_at = 0.0
        if entry.expire:
            self._timetable.expire(tx, now, getattr(self._timers, entry.expire))
        elif not entry.keep_expire:
            tx.expire_at = 0.0
        if state in ("accepted", "completed", "confirmed"):
            self._settle(tx)

    def _settle(self, tx: Transaction) -> None:
        """From now on only retransmissions come: nothing is kept but what answers them."""
        if isinstance(tx, ServerTransaction):
            if tx.state != "completed":
                tx.last = b""
            elif tx.kind == "server":
                self._completed.append(tx)
            self._held += len(tx.last) - tx.size
            tx.size = len(tx.last)
        else:
            if tx.kind == "client" or tx.state == "accepted":
                tx.last = b""
            if isinstance(tx, ClientTransaction) and tx.quiet:
                tx.release()

    def _terminate(self, tx: Transaction) -> None:
        tx.state = "terminated"
        tx.retry_at = tx.expire_at = 0.0
        if isinstance(tx, ServerTransaction):
            self._held -= tx.size if self._servers.pop(tx.key, None) is not None else 0
        else:
            self._clients.pop(tx.key, None)
        if tx.flow.reliable and (mates := self._by_connection.get(tx.flow)):
            mates.discard(tx)
            if not mates:
                del self._by_connection[tx.flow]
        while self._completed and self._completed[0].state == "terminated":
            self._completed.popleft()
        self._events.append(TransactionTerminated(tx))

    def _has_room(self, size: int = 0) -> bool:
        """True if one more can be held; if need be in the place of the oldest answered requests, whose only use left is
        to absorb retransmissions."""
        while (full := self._full(size)) is not None:
            if not self._completed:
                self._no_room(full)
                return False
            self._terminate(self._completed[0])
        return True

    def _full(self, size: int) -> Full | None:
        if len(self) >= self._limit:
            return "number"
        return "bytes" if self._held + size > self._max_bytes else None

    def _send(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if response is not None:
            tx.last = response.serialise()
        tx.retry_at = 0.0
        self._resend(tx, response, flow, now)

    def _send_only(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        """A 2xx to an INVITE, which its user repeats himself (RFC 6026 section 7.1)."""
        if response is not None:
            self._out.append((response.serialise(), tx.flow))

    def _resend(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if tx.last:
            self._out.append((tx.last, tx.flow))

    def _send_trying(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        self._send(tx, make_response(tx.request, 100), flow, now)

    def _pass(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if isinstance(tx, ClientTransaction) and response is not None and not tx.quiet:
            self._events.append(ResponseReceived(tx, response, flow))

    def _ack(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if response is not None:
            tx.last = companion(tx.request, "ACK", response.headers.get("to")).serialise()
            self._out.append((tx.last, tx.flow))

    def _cancel_if_wanted(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if isinstance(tx, ClientTransaction) and tx.cancelled:
            self._send_cancel(tx, now)

    def _give_up(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if isinstance(tx, ClientTransaction) and not tx.cancelled:
            self._send_cancel(tx, now)

    def _extend(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if isinstance(tx, ClientTransaction) and not tx.cancelled:
            self._timetable.expire(tx, now, self._timers.c)

    def _timeout(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if not (isinstance(tx, ClientTransaction) and tx.quiet):
            self._events.append(TransactionTimeout(tx))

    def _fail(self, tx: Transaction, response: Response | None, flow: Flow, now: float) -> None:
        if not (isinstance(tx, ClientTransaction) and tx.quiet):
            self._events.append(TransactionTransportError(tx))

    def _start_client(self, tx: ClientTransaction, now: float) -> None:
        self._clients[tx.key] = tx
        tx.last = tx.request.serialise()
        self._out.append((tx.last, tx.flow))
        self._begin(tx, "calling" if tx.kind == "invite client" else "trying", now)

    def _send_cancel(self, tx: ClientTransaction, now: float) -> None:
        request = companion(tx.request, "CANCEL", tx.request.headers.get("to"), tx.cancel_headers)
        cancel = ClientTransaction("client", client_key(tx.branch, "CANCEL"), request, tx.flow)
        cancel.quiet = True
        self._start_client(cancel, now)
        self._timetable.expire(tx, now, self._timers.timeout)

    def _with_via(self, request: Request, flow: Flow, branch: str) -> Request:
        host, port = self._sent_by(flow)
        via = Via(flow.transport.upper(), host, port, (("branch", branch), ("rport", None)))
        return Request(request.method, request.uri, request.headers.prepend("Via", str(via)), request.body)
