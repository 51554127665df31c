"""The timetable of transactions: each timer comes when it is due, in order, and what was set anew or stopped never."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address, Flow
from protocols.sip.events import Transaction
from protocols.sip.message import Headers, Request
from protocols.sip.transaction_timers import Timetable

FLOW = Flow("udp", Address("192.0.2.1", 5060), Address("192.0.2.2", 5060))
LENGTHS = (5.0, 32.0, 185.0)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["retry", "expire", "stop", "wait"]), st.integers(0, 4), st.integers(0, 2)), max_size=60
)


def transactions(count: int) -> list[Transaction]:
    return [Transaction("client", str(number), Request("OPTIONS", "sip:b", Headers()), FLOW) for number in range(count)]


@given(_STEPS)
def test_what_is_due_comes_in_order_and_only_once(steps: list[tuple[str, int, int]]) -> None:
    timetable, all_of_them, now = Timetable(), transactions(5), 1.0
    for what, which, length in steps:
        tx = all_of_them[which]
        if what == "retry":
            timetable.retry(tx, now + 1 + length)
        elif what == "expire":
            timetable.expire(tx, now, LENGTHS[length])
        elif what == "stop":
            tx.retry_at = tx.expire_at = 0.0
        else:
            end, last = now + 10 ** (length + 0.5), now
            while (due := timetable.due(end)) is not None:
                found, cause = due
                if cause == "retry":
                    assert last <= found.retry_at <= end
                    last, found.retry_at = found.retry_at, 0.0
            now = end
            assert all(not 0 < at <= now for tx in all_of_them for at in (tx.retry_at, tx.expire_at))
        pending = [at for tx in all_of_them for at in (tx.retry_at, tx.expire_at) if at]
        assert timetable.next() == min(pending, default=None)


def test_timers_that_are_over_are_swept_out() -> None:
    timetable, (waiting, busy) = Timetable(), transactions(2)
    timetable.expire(waiting, 0.0, 185.0)
    for number in range(5000):
        timetable.retry(busy, number + 1.0)
        timetable.expire(busy, float(number), 185.0)
    assert len(timetable) < 1000
    assert timetable.next() == 185.0
