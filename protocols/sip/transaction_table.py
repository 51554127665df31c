"""The four transaction state machines as tables (RFC 3261 section 17 with the Accepted state of RFC 6026).

`TABLE` maps (machine, state, what happened) to (next state, what to do). What it does not name is ignored: that is how
retransmissions are absorbed. What "send" sent, and "ack" acknowledged with, "resend" repeats. `ENTRY` gives the timers
a state starts on entry; entering a state again starts nothing.

Happenings: "1xx", "2xx", "failure" received from the peer; "send 1xx", "send 2xx", "send failure" asked by the user;
"send once" a challenge;
"request" a retransmitted request; "ack"; "retry" timers A, E, G (and the 200 ms to a 100); "expire" timers B, C, D, F,
H, I, J, K, L, M; "error" the flow broke.
"""

from typing import Literal, NamedTuple

Kind = Literal["invite client", "client", "invite server", "server"]
State = Literal["new", "calling", "trying", "proceeding", "accepted", "completed", "confirmed", "terminated"]
Cause = Literal[
    "1xx", "2xx", "failure", "send 1xx", "send 2xx", "send failure", "send once", "request", "ack", "retry", "expire",
    "error",
]  # fmt: skip
Action = Literal[
    "send", "send only", "resend", "trying", "pass", "ack", "cancel", "give up", "extend", "timeout", "fail"
]  # fmt: skip


class Entry(NamedTuple):
    """Timers a state starts: names of `Timers` fields, "" for none."""

    retry: str = ""
    """First interval of retransmission; only over UDP, save for "trying"."""
    expire: str = ""
    keep_expire: bool = False
    """The timer that ends the former state runs on (timer F)."""
    at_once_if_reliable: bool = False
    """The state only absorbs retransmissions, so over a reliable transport it ends as it begins."""


ENTRY: dict[tuple[Kind, State], Entry] = {
    ("invite client", "calling"): Entry("t1", "timeout"),  # A, B
    ("invite client", "proceeding"): Entry(expire="c"),  # C
    ("invite client", "accepted"): Entry(expire="timeout"),  # M
    ("invite client", "completed"): Entry(expire="timeout", at_once_if_reliable=True),  # D
    ("client", "trying"): Entry("t1", "timeout"),  # E, F
    ("client", "proceeding"): Entry("t2", keep_expire=True),  # E, F
    ("client", "completed"): Entry(expire="t4", at_once_if_reliable=True),  # K
    ("invite server", "proceeding"): Entry("trying"),
    ("invite server", "accepted"): Entry(expire="timeout"),  # L
    ("invite server", "completed"): Entry("t1", "timeout"),  # G, H
    ("invite server", "confirmed"): Entry(expire="t4", at_once_if_reliable=True),  # I
    ("server", "trying"): Entry(expire="timeout"),  # the peer's F: an answer after that is of no use to it
    ("server", "proceeding"): Entry(keep_expire=True),
    ("server", "completed"): Entry(expire="timeout", at_once_if_reliable=True),  # J
}

TABLE: dict[tuple[Kind, State, Cause], tuple[State, tuple[Action, ...]]] = {
    ("invite client", "calling", "1xx"): ("proceeding", ("pass", "cancel")),
    ("invite client", "calling", "2xx"): ("accepted", ("pass",)),
    ("invite client", "calling", "failure"): ("completed", ("ack", "pass")),
    ("invite client", "calling", "retry"): ("calling", ("resend",)),
    ("invite client", "calling", "expire"): ("terminated", ("timeout",)),
    ("invite client", "calling", "error"): ("terminated", ("fail",)),
    ("invite client", "proceeding", "1xx"): ("proceeding", ("extend", "pass")),
    ("invite client", "proceeding", "2xx"): ("accepted", ("pass",)),
    ("invite client", "proceeding", "failure"): ("completed", ("ack", "pass")),
    ("invite client", "proceeding", "expire"): ("terminated", ("give up", "timeout")),
    ("invite client", "proceeding", "error"): ("terminated", ("fail",)),
    ("invite client", "accepted", "2xx"): ("accepted", ("pass",)),
    ("invite client", "accepted", "expire"): ("terminated", ()),
    ("invite client", "completed", "failure"): ("completed", ("resend",)),
    ("invite client", "completed", "expire"): ("terminated", ()),
    ("client", "trying", "1xx"): ("proceeding", ("pass",)),
    ("client", "trying", "2xx"): ("completed", ("pass",)),
    ("client", "trying", "failure"): ("completed", ("pass",)),
    ("client", "trying", "retry"): ("trying", ("resend",)),
    ("client", "trying", "expire"): ("terminated", ("timeout",)),
    ("client", "trying", "error"): ("terminated", ("fail",)),
    ("client", "proceeding", "1xx"): ("proceeding", ("pass",)),
    ("client", "proceeding", "2xx"): ("completed", ("pass",)),
    ("client", "proceeding", "failure"): ("completed", ("pass",)),
    ("client", "proceeding", "retry"): ("proceeding", ("resend",)),
    ("client", "proceeding", "expire"): ("terminated", ("timeout",)),
    ("client", "proceeding", "error"): ("terminated", ("fail",)),
    ("client", "completed", "expire"): ("terminated", ()),
    ("invite server", "proceeding", "request"): ("proceeding", ("resend",)),
    ("invite server", "proceeding", "retry"): ("proceeding", ("trying",)),
    ("invite server", "proceeding", "send 1xx"): ("proceeding", ("send",)),
    ("invite server", "proceeding", "send 2xx"): ("accepted", ("send only",)),
    ("invite server", "proceeding", "send failure"): ("completed", ("send",)),
    ("invite server", "proceeding", "send once"): ("terminated", ("send",)),
    ("invite server", "proceeding", "error"): ("terminated", ("fail",)),
    ("invite server", "accepted", "send 2xx"): ("accepted", ("send only",)),
    ("invite server", "accepted", "expire"): ("terminated", ()),
    ("invite server", "completed", "request"): ("completed", ("resend",)),
    ("invite server", "completed", "retry"): ("completed", ("resend",)),
    ("invite server", "completed", "ack"): ("confirmed", ()),
    ("invite server", "completed", "expire"): ("terminated", ("timeout",)),
    ("invite server", "completed", "error"): ("terminated", ("fail",)),
    ("invite server", "confirmed", "expire"): ("terminated", ()),
    ("server", "trying", "send 1xx"): ("proceeding", ("send",)),
    ("server", "trying", "send 2xx"): ("completed", ("send",)),
    ("server", "trying", "send failure"): ("completed", ("send",)),
    ("server", "trying", "expire"): ("terminated", ("timeout",)),
    ("server", "trying", "error"): ("terminated", ("fail",)),
    ("server", "proceeding", "request"): ("proceeding", ("resend",)),
    ("server", "proceeding", "send 1xx"): ("proceeding", ("send",)),
    ("server", "proceeding", "send 2xx"): ("completed", ("send",)),
    ("server", "proceeding", "send failure"): ("completed", ("send",)),
    ("server", "proceeding", "expire"): ("terminated", ("timeout",)),
    ("server", "proceeding", "error"): ("terminated", ("fail",)),
    ("server", "completed", "request"): ("completed", ("resend",)),
    ("server", "completed", "expire"): ("terminated", ()),
}
