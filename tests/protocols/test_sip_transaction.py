"""Transactions: two layers talk over a wire that may lose what the test wants lost, on a clock the test moves."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address, Flow
from protocols.sip.message import Headers, Request, Response, make_response, parse_message
from protocols.sip.transaction import (
    AckReceived,
    CancelReceived,
    ClientTransaction,
    Event,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    TransactionLayer,
    TransactionTerminated,
    TransactionTimeout,
    TransactionTransportError,
)
from protocols.sip.transaction_table import ENTRY, TABLE

ALICE, BOB = Address("192.0.2.1", 5060), Address("192.0.2.2", 5060)


def request(method: str, number: int = 1) -> Request:
    headers = [
        ("From", "<sip:alice@a>;tag=f"),
        ("To", "<sip:bob@b>"),
        ("Call-ID", "call"),
        ("CSeq", f"{number} {method}"),
        ("Max-Forwards", "70"),
        ("Route", "<sip:192.0.2.2;lr>"),
    ]
    return Request(method, "sip:bob@b", Headers(headers))


class Wire:
    """Alice's and Bob's layers, what each has been told, and everything that was put on the wire."""

    def __init__(self, transport: str = "udp") -> None:
        self.now = 0.0
        self.flow = Flow("tcp" if transport == "tcp" else "udp", ALICE, BOB)
        self.back = Flow(self.flow.transport, BOB, ALICE)
        self.alice, self.bob = TransactionLayer(), TransactionLayer()
        self.sent: list[str] = []
        self.seen: dict[TransactionLayer, list[Event]] = {self.alice: [], self.bob: []}
        self.lose: Callable[[str], bool] = lambda line: False

    def run(self, seconds: float = 0.0) -> None:
        end = self.now + seconds
        while True:
            self.pump()
            due = [at for layer in self.seen if (at := layer.next_timer()) is not None and at <= end]
            if not due:
                break
            self.now = max(self.now, min(due))
            for layer in self.seen:
                layer.handle_timer(self.now)
        self.now = end

    def pump(self) -> None:
        moved = True
        while moved:
            moved = False
            for layer, peer, flow in ((self.alice, self.bob, self.back), (self.bob, self.alice, self.flow)):
                for data, _ in layer.to_send():
                    line = data.split(b"\r\n")[0].decode()
                    self.sent.append(line)
                    if not self.lose(line):
                        peer.receive(parse_message(data), flow, self.now)
                        moved = True
        for layer, events in self.seen.items():
            while (event := layer.next_event()) is not None:
                events.append(event)

    def send(self, method: str) -> ClientTransaction:
        tx = self.alice.send_request(request(method), self.flow, self.now)
        self.pump()
        return tx

    def answer(self, status: int) -> None:
        tx = self.server_tx()
        self.bob.send_response(tx, make_response(tx.request, status, to_tag="t"), self.now)
        self.pump()

    def server_tx(self) -> ServerTransaction:
        return next(event.tx for event in self.seen[self.bob] if isinstance(event, RequestReceived))

    def statuses(self) -> list[int]:
        return [event.response.status for event in self.seen[self.alice] if isinstance(event, ResponseReceived)]

    def count(self, layer: TransactionLayer, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.seen[layer])

    def count_sent(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.sent)


@pytest.fixture(params=["udp", "tcp"])
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(request.param)


def test_a_request_is_answered_and_both_sides_forget_it(wire: Wire) -> None:
    wire.send("OPTIONS")
    wire.answer(200)
    assert wire.statuses() == [200]
    wire.run(40)
    assert (len(wire.alice), len(wire.bob)) == (0, 0)
    assert wire.count(wire.alice, TransactionTerminated) == wire.count(wire.bob, TransactionTerminated) == 1
    assert wire.alice.next_timer() is None


def test_the_server_sees_where_a_request_really_came_from() -> None:
    wire = Wire()
    wire.alice = TransactionLayer(sent_by=lambda flow: Address("10.0.0.9", 5999))
    wire.seen = {wire.alice: [], wire.bob: []}
    wire.send("OPTIONS")
    via = wire.server_tx().request.top_via
    assert (via.host, via.response_address) == ("10.0.0.9", ALICE)
    wire.answer(200)
    assert wire.statuses() == [200]


def test_a_forged_received_is_overwritten() -> None:
    layer = TransactionLayer()
    via = ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;received=203.0.113.9")
    layer.receive(Request("OPTIONS", "sip:b", request("OPTIONS").headers.prepend(*via)), Flow("udp", BOB, ALICE), 0)
    event = layer.next_event()
    assert isinstance(event, RequestReceived)
    assert event.request.top_via.param("received") == "192.0.2.1"


def test_without_rport_the_answer_goes_to_the_port_in_the_via() -> None:
    layer = TransactionLayer()
    via = ("Via", "SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKa")
    flow = Flow("udp", BOB, Address("192.0.2.1", 40000))
    layer.receive(Request("OPTIONS", "sip:b", request("OPTIONS").headers.prepend(*via)), flow, 0)
    event = layer.next_event()
    assert isinstance(event, RequestReceived)
    layer.send_response(event.tx, make_response(event.request, 200, to_tag="t"), 0)
    assert layer.to_send()[0][1].remote == Address("192.0.2.1", 5070)


def test_a_lost_request_is_repeated_and_reaches_the_user_once() -> None:
    wire = Wire()
    wire.lose = lambda line: wire.count_sent("OPTIONS") < 3 and line.startswith("OPTIONS")
    wire.send("OPTIONS")
    wire.run(2)
    wire.answer(200)
    assert wire.count(wire.bob, RequestReceived) == 1
    assert wire.statuses() == [200]


def test_a_lost_answer_is_given_again_without_asking_the_user() -> None:
    wire = Wire()
    wire.lose = lambda line: wire.count_sent("SIP/2.0 200") == 1 and line.startswith("SIP/2.0 200")
    wire.send("OPTIONS")
    wire.answer(200)
    wire.run(1)
    assert wire.statuses() == [200]
    assert wire.count(wire.bob, RequestReceived) == 1


def test_repeats_follow_timer_e_and_end_with_timer_f() -> None:
    wire = Wire()
    wire.lose = lambda line: True
    wire.send("OPTIONS")
    wire.run(31.9)
    assert wire.count_sent("OPTIONS") == 11  # at 0, .5, 1.5, 3.5, 7.5, 11.5 ... 31.5
    assert wire.count(wire.alice, TransactionTimeout) == 0
    wire.run(0.2)
    assert wire.count(wire.alice, TransactionTimeout) == 1
    assert len(wire.alice) == 0


def test_repeats_of_an_invite_follow_timer_a_and_end_with_timer_b() -> None:
    wire = Wire()
    wire.lose = lambda line: True
    wire.send("INVITE")
    wire.run(40)
    assert wire.count_sent("INVITE") == 7  # at 0, .5, 1.5, 3.5, 7.5, 15.5, 31.5
    assert wire.count(wire.alice, TransactionTimeout) == 1


def test_nothing_is_repeated_over_a_reliable_transport() -> None:
    wire = Wire("tcp")
    wire.lose = lambda line: True
    wire.send("INVITE")
    wire.run(40)
    assert wire.count_sent("INVITE") == 1
    assert wire.count(wire.alice, TransactionTimeout) == 1


def test_a_slow_user_lets_100_go_out_first(wire: Wire) -> None:
    wire.send("INVITE")
    wire.run(0.1)
    assert wire.statuses() == []
    wire.run(1)
    assert wire.statuses() == [100]
    assert wire.count_sent("INVITE") == 1


def test_a_refused_invite_is_acknowledged_by_the_layer(wire: Wire) -> None:
    wire.send("INVITE")
    wire.answer(180)
    wire.answer(486)
    assert wire.statuses() == [180, 486]
    assert wire.count_sent("ACK") == 1
    assert wire.count(wire.bob, AckReceived) == 0
    wire.run(40)
    assert wire.count(wire.bob, TransactionTimeout) == 0
    assert (len(wire.alice), len(wire.bob)) == (0, 0)


def test_a_lost_ack_of_a_refusal_is_given_again() -> None:
    wire = Wire()
    wire.lose = lambda line: wire.count_sent("ACK") == 1 and line.startswith("ACK")
    wire.send("INVITE")
    wire.answer(486)
    wire.run(1)
    assert wire.count_sent("SIP/2.0 486") == 2
    assert wire.statuses() == [486]
    wire.run(40)
    assert wire.count(wire.bob, TransactionTimeout) == 0


def test_a_refusal_nobody_acknowledges_times_out(wire: Wire) -> None:
    wire.lose = lambda line: line.startswith("ACK")
    wire.send("INVITE")
    wire.answer(486)
    wire.run(40)
    assert wire.count(wire.bob, TransactionTimeout) == 1


def test_of_an_answered_request_only_the_bytes_of_its_answer_are_kept() -> None:
    wire = Wire()
    wire.lose = lambda line: line.startswith("SIP/2.0 404") and wire.count_sent("SIP/2.0 404") < 3
    wire.send("OPTIONS")
    wire.answer(404)
    tx = wire.server_tx()
    tx.release()
    with pytest.raises(LookupError):
        _ = tx.request
    wire.run(5)
    assert wire.statuses() == [404]
    assert wire.count_sent("SIP/2.0 404") == 3
    assert (tx.last[:11], tx.size) == (b"SIP/2.0 404", len(tx.last))
    wire.run(40)
    assert len(wire.bob) == 0


def test_of_an_invite_that_was_taken_nothing_is_kept_and_its_user_repeats_the_200() -> None:
    wire = Wire()
    tx = wire.send("INVITE")
    wire.answer(180)
    ok = make_response(wire.server_tx().request, 200, to_tag="t")
    for side in (wire.server_tx(), tx):
        wire.bob.send_response(wire.server_tx(), ok, wire.now)
        wire.pump()
        side.release()
    assert wire.statuses() == [180, 200, 200]
    assert (wire.server_tx().last, tx.last) == (b"", b"")


def test_a_refusal_that_comes_again_is_acknowledged_again_without_the_request() -> None:
    wire = Wire()
    wire.lose = lambda line: line.startswith("ACK") and wire.count_sent("ACK") < 3
    tx = wire.send("INVITE")
    wire.answer(486)
    tx.release()
    wire.run(5)
    assert wire.count_sent("ACK") == 3
    assert wire.server_tx().state == "confirmed"


def test_every_2xx_comes_up_and_every_ack_comes_up(wire: Wire) -> None:
    tx = wire.send("INVITE")
    wire.answer(200)
    wire.answer(200)
    assert wire.statuses() == [200, 200]
    ack = Request("ACK", "sip:bob@b", tx.request.headers.without("via").with_("CSeq", "1 ACK"))
    wire.alice.send_stateless(ack, wire.flow)
    wire.alice.send_stateless(ack, wire.flow)
    wire.pump()
    assert wire.count(wire.bob, AckReceived) == 2
    wire.run(40)
    assert (len(wire.alice), len(wire.bob)) == (0, 0)


def test_a_repeated_invite_after_the_2xx_is_absorbed() -> None:
    wire = Wire()
    wire.lose = lambda line: line.startswith("SIP/2.0 200")
    wire.send("INVITE")
    wire.answer(200)
    wire.run(5)
    assert wire.count_sent("INVITE") > 2
    assert wire.count(wire.bob, RequestReceived) == 1


class TestCancel:
    def test_before_any_answer_it_waits_for_the_first(self, wire: Wire) -> None:
        tx = wire.send("INVITE")
        wire.alice.cancel(tx, wire.now)
        wire.pump()
        assert wire.count_sent("CANCEL") == 0
        wire.answer(180)
        assert wire.count_sent("CANCEL") == 1

    def test_while_it_rings_it_goes_at_once_and_names_the_reason(self, wire: Wire) -> None:
        tx = wire.send("INVITE")
        wire.answer(180)
        wire.alice.cancel(tx, wire.now, [("Reason", "SIP;cause=200")])
        wire.alice.cancel(tx, wire.now)
        wire.pump()
        cancel = next(event for event in wire.seen[wire.bob] if isinstance(event, CancelReceived))
        assert cancel.tx is wire.server_tx()
        assert str(cancel.request.cseq) == "1 CANCEL"
        assert cancel.request.reasons[0].cause == 200
        assert cancel.request.routes
        wire.bob.send_response(cancel.cancel_tx, make_response(cancel.request, 200, to_tag="t"), wire.now)
        wire.answer(487)
        assert wire.statuses() == [180, 487]
        assert wire.count_sent("CANCEL") == 1
        wire.run(40)
        assert (len(wire.alice), len(wire.bob)) == (0, 0)

    def test_a_peer_that_ignores_it_does_not_hold_us(self, wire: Wire) -> None:
        tx = wire.send("INVITE")
        wire.answer(180)
        wire.lose = lambda line: True
        wire.alice.cancel(tx, wire.now)
        wire.run(33)
        assert wire.count(wire.alice, TransactionTimeout) == 1
        assert len(wire.alice) == 0

    def test_one_that_matches_nothing_is_answered_481(self) -> None:
        layer = TransactionLayer()
        headers = request("CANCEL").headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
        layer.receive(Request("CANCEL", "sip:b", headers), Flow("udp", BOB, ALICE), 0)
        assert [data[:11] for data, _ in layer.to_send()] == [b"SIP/2.0 481"]
        assert layer.next_event() is None


def test_an_invite_that_rings_forever_is_given_up() -> None:
    wire = Wire()
    wire.send("INVITE")
    wire.answer(180)
    wire.run(100)
    wire.answer(180)
    wire.run(100)
    assert wire.count(wire.alice, TransactionTimeout) == 0
    wire.run(100)
    assert wire.count(wire.alice, TransactionTimeout) == 1
    assert wire.count_sent("CANCEL") >= 1


def test_a_broken_connection_fails_what_was_on_it(wire: Wire) -> None:
    tx = wire.send("INVITE")
    wire.alice.transport_failed(Flow(wire.flow.transport, ALICE, Address("192.0.2.77", 1)), wire.now)
    assert not tx.terminated
    wire.alice.transport_failed(wire.flow, wire.now)
    wire.pump()
    assert wire.count(wire.alice, TransactionTransportError) == 1
    assert tx.terminated


def test_responses_to_nothing_are_dropped() -> None:
    layer = TransactionLayer()
    for data in (
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
    ):
        layer.receive(parse_message(data), Flow("udp", BOB, ALICE), 0)
    assert (layer.dropped, layer.next_event()) == (2, None)


class TestLimit:
    def layer(self, requests: int, transport: str = "udp") -> TransactionLayer:
        layer = TransactionLayer(max_transactions=10)
        self.flow = Flow("tcp" if transport == "tcp" else "udp", BOB, ALICE)
        for index in range(requests):
            self.receive(layer, index)
        return layer

    def receive(self, layer: TransactionLayer, index: int) -> None:
        via = ("Via", f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{index}")
        layer.receive(Request("OPTIONS", "sip:b", request("OPTIONS").headers.prepend(*via)), self.flow, 0)

    def test_more_is_answered_503_without_a_transaction(self) -> None:
        layer = self.layer(12)
        assert len(layer) == 10
        assert [data[:11] for data, _ in layer.to_send()] == [b"SIP/2.0 503"] * 2

    def test_answered_ones_make_room(self) -> None:
        layer = self.layer(10)
        event = layer.next_event()
        assert isinstance(event, RequestReceived)
        layer.send_response(event.tx, make_response(event.request, 200, to_tag="t"), 0)
        self.receive(layer, 99)
        assert event.tx.terminated
        assert [data[:11] for data, _ in layer.to_send()] == [b"SIP/2.0 200"]

    def test_our_own_request_fails_at_once(self) -> None:
        layer = self.layer(10)
        tx = layer.send_request(request("OPTIONS"), self.flow, 0)
        events = []
        while (event := layer.next_event()) is not None:
            events.append(event)
        assert events[-1] == TransactionTransportError(tx)
        assert layer.to_send() == []


@pytest.mark.parametrize("branch", [";branch=z9hG4bK", ";branch=1", ""])
def test_branches_of_old_are_told_apart_by_the_rest(branch: str) -> None:
    layer = TransactionLayer()
    flow = Flow("udp", BOB, ALICE)
    for number in (1, 2, 2):
        headers = request("OPTIONS", number).headers.prepend("Via", f"SIP/2.0/UDP 192.0.2.1{branch}")
        layer.receive(Request("OPTIONS", "sip:b", headers), flow, 0)
    assert len(layer) == 2


def test_the_timetable_does_not_grow_with_what_is_long_over() -> None:
    wire = Wire("tcp")
    for number in range(3000):
        wire.alice.send_request(request("OPTIONS", number), wire.flow, wire.now)
        wire.pump()
        event = wire.seen[wire.bob].pop()
        assert isinstance(event, RequestReceived)
        wire.bob.send_response(event.tx, make_response(event.request, 200, to_tag="t"), wire.now)
        wire.pump()
        wire.seen[wire.bob].clear()
    assert len(wire.alice._timetable) < 1100


_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["INVITE", "OPTIONS", "ACK", "CANCEL", "answer", "response", "send", "wait", "break"]),
        st.integers(0, 3),
        st.sampled_from([100, 183, 200, 202, 302, 486, 699]),
    ),
    max_size=40,
)


@given(_MOVES, st.booleans())
def test_whatever_comes_in_whatever_order_it_ends_with_nothing_left(
    moves: list[tuple[str, int, int]], reliable: bool
) -> None:
    layer, now = TransactionLayer(max_transactions=6), 0.0
    flow = Flow("tcp" if reliable else "udp", BOB, ALICE)
    servers: list[ServerTransaction] = []
    clients: list[ClientTransaction] = []
    for move, index, status in moves:
        if move in ("INVITE", "OPTIONS", "ACK", "CANCEL"):
            via = ("Via", f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{index}")
            layer.receive(Request(move, "sip:b", request(move).headers.prepend(*via)), flow, now)
        elif move == "answer" and servers:
            tx = servers[index % len(servers)]
            layer.send_response(tx, make_response(tx.request, status, to_tag="t"), now)
        elif move == "response" and clients:
            layer.receive(make_response(clients[index % len(clients)].request, status, to_tag="t"), flow, now)
        elif move == "send":
            clients.append(layer.send_request(request("INVITE" if index % 2 else "OPTIONS"), flow, now))
            layer.cancel(clients[0], now)
        elif move == "wait":
            now += 10**index / 10
            layer.handle_timer(now)
        elif move == "break":
            layer.transport_failed(flow, now)
        while (event := layer.next_event()) is not None:
            if isinstance(event, RequestReceived):
                servers.append(event.tx)
        assert len(layer) <= 6 + len(clients)  # a CANCEL of ours may exceed the limit
    for tx in servers:
        layer.send_response(tx, make_response(tx.request, 500, to_tag="t"), now)
    layer.handle_timer(now + 1000)
    layer.handle_timer(now + 2000)
    assert len(layer) == 0
    assert layer.next_timer() is None


def test_every_state_the_table_leads_to_has_its_timers_named() -> None:
    for (kind, state, _), (following, _) in TABLE.items():
        assert (kind, state) in ENTRY
        assert following == "terminated" or (kind, following) in ENTRY


def test_a_request_its_user_forgets_is_forgotten_too(wire: Wire) -> None:
    wire.send("OPTIONS")
    wire.run(33)
    assert wire.count(wire.bob, TransactionTimeout) == 1
    assert len(wire.bob) == 0


def test_responses_are_typed() -> None:
    wire = Wire()
    wire.send("OPTIONS")
    wire.answer(404)
    event = next(event for event in wire.seen[wire.alice] if isinstance(event, ResponseReceived))
    assert isinstance(event.response, Response)
    assert event.response.to.tag == "t"
