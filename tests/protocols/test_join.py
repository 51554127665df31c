"""The join: a terminal's checks against the relay's answers, aioice as the second opinion, and attackers."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from aioice import stun
from aioice.ice import CandidatePair, Connection
from hypothesis import given
from hypothesis import strategies as st

from protocols.join import (
    Checker,
    CheckResult,
    ConsentLost,
    IceCredentials,
    IceLiteResponder,
    Joined,
    JoinFailed,
    check_username,
    new_credentials,
)
from protocols.net import Address

RELAY, TERMINAL = Address("192.0.2.1", 20_000), Address("198.51.100.7", 40_000)
RELAY_SECRET, TERMINAL_SECRET = IceCredentials("relayfrag", "r" * 22), IceCredentials("phonefrag", "p" * 22)


def random_bytes(seed: int = 1) -> Callable[[int], bytes]:
    return Random(seed).randbytes


def a_checker(remote: IceCredentials = RELAY_SECRET) -> Checker:
    return Checker(TERMINAL_SECRET, remote, RELAY, random_bytes())


def a_check(*attributes: str, password: str = RELAY_SECRET.password, username: str = "relayfrag:phonefrag") -> bytes:
    values = {"PRIORITY": 1, "USE-CANDIDATE": None, "ICE-CONTROLLING": 7, "ICE-CONTROLLED": 7}
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": username})
    request.attributes.update({name: values[name] for name in attributes})
    request.add_message_integrity(password.encode())
    return bytes(request)


def error_of(result: CheckResult) -> int | None:
    assert result.reply is not None
    return stun.parse_message(result.reply).error_code


def run(checker: Checker, until: float, answer: Callable[[bytes, float], bytes | None]) -> list[object]:
    """Let time pass from timer to timer, each datagram answered at once; returns the events with their times."""
    now = 0.0
    events: list[object] = []
    while True:
        for datagram, destination in checker.to_send():
            assert destination == RELAY
            reply = answer(datagram, now)
            if reply is not None:
                checker.receive(reply, RELAY, now)
        while event := checker.next_event():
            events.append((round(now, 3), event))
        due = checker.next_timer()
        if due is None or due > until:
            return events
        now = due
        checker.handle_timer(now)


def test_the_terminal_joins_at_once_and_keeps_its_consent() -> None:
    responder, checker = IceLiteResponder(RELAY_SECRET, "phonefrag"), a_checker()
    checks: list[float] = []

    def relay(datagram: bytes, now: float) -> bytes | None:
        checks.append(now)
        result = responder.receive(datagram, TERMINAL, now)
        assert (result.authenticated, result.nominated) == (True, True)
        return result.reply

    checker.start(0.0)
    assert run(checker, 120.0, relay) == [(0.0, Joined(TERMINAL))]
    assert responder.has_consent(120.0)
    assert not responder.has_consent(151.0)
    gaps = [later - earlier for earlier, later in pairwise(checks)]
    assert min(gaps) >= 4.0
    assert max(gaps) <= 6.0


def test_a_lost_check_is_repeated_after_a_tenth_of_a_second() -> None:
    responder, checker = IceLiteResponder(RELAY_SECRET), a_checker()
    heard: list[bytes] = []

    def relay(datagram: bytes, now: float) -> bytes | None:
        heard.append(datagram)
        return responder.receive(datagram, TERMINAL, now).reply if len(heard) == 3 else None

    checker.start(0.0)
    assert run(checker, 1.0, relay) == [(0.3, Joined(TERMINAL))]
    assert len(set(heard)) == 1, "retransmissions keep their transaction"


def test_silence_fails_the_join_in_time_for_the_call() -> None:
    checker = a_checker()
    checker.start(0.0)
    events = run(checker, 60.0, lambda datagram, now: None)
    assert events == [(4.7, JoinFailed("no answer from the relay at 192.0.2.1:20000"))]


def test_consent_is_lost_thirty_seconds_after_the_last_answer() -> None:
    responder, checker = IceLiteResponder(RELAY_SECRET), a_checker()
    checker.start(0.0)
    events = run(
        checker,
        300.0,
        lambda datagram, now: responder.receive(datagram, TERMINAL, now).reply if now < 20 else None,
    )
    (_, joined), (lost_at, lost) = events
    assert (joined, lost) == (Joined(TERMINAL), ConsentLost())
    assert 45 < lost_at < 50


def test_a_wrong_password_is_refused_and_named_in_the_failure() -> None:
    responder = IceLiteResponder(RELAY_SECRET)
    checker = a_checker(IceCredentials("relayfrag", "wrong" * 5))
    checker.start(0.0)
    events = run(checker, 60.0, lambda datagram, now: responder.receive(datagram, TERMINAL, now).reply)
    assert events == [(4.7, JoinFailed("no answer from the relay at 192.0.2.1:20000, refused with 401"))]
    assert responder.last_check is None


def test_a_signed_refusal_fails_the_join_at_once() -> None:
    checker = a_checker()
    checker.start(0.0)

    def relay(datagram: bytes, now: float) -> bytes:
        request = stun.parse_message(datagram)
        answer = stun.Message(stun.Method.BINDING, stun.Class.ERROR, request.transaction_id)
        answer.attributes["ERROR-CODE"] = (487, "Role Conflict")
        answer.add_message_integrity(RELAY_SECRET.password.encode())
        return bytes(answer)

    assert run(checker, 60.0, relay) == [(0.0, JoinFailed("the relay at 192.0.2.1:20000 refused the join with 487"))]


def test_forged_answers_join_nothing() -> None:
    checker = a_checker()
    checker.start(0.0)
    ((check, _),) = checker.to_send()
    genuine = IceLiteResponder(RELAY_SECRET).receive(check, TERMINAL, 0.0).reply
    forged = IceLiteResponder(IceCredentials("relayfrag", "x" * 22)).receive(check, TERMINAL, 0.0).reply
    assert genuine is not None
    assert forged is not None
    assert not checker.receive(genuine, Address("203.0.113.9", 20_000), 0.0), "from elsewhere"
    assert not checker.receive(forged, RELAY, 0.0), "signed by another"
    assert not checker.receive(check, RELAY, 0.0), "reflected"
    assert checker.next_event() is None
    assert checker.receive(genuine, RELAY, 0.0)
    assert checker.next_event() == Joined(TERMINAL)


def test_a_failed_join_can_be_begun_anew_and_a_stopped_one_is_silent() -> None:
    responder, checker = IceLiteResponder(RELAY_SECRET), a_checker()
    checker.start(0.0)
    run(checker, 60.0, lambda datagram, now: None)
    checker.start(60.0)
    assert run(checker, 61.0, lambda datagram, now: responder.receive(datagram, TERMINAL, now).reply) == [
        (0.0, Joined(TERMINAL))
    ]
    checker.stop()
    assert (checker.next_timer(), checker.to_send()) == (None, [])


@pytest.mark.parametrize("nominate", [True, False])
def test_aioices_own_checks_are_answered_to_aioices_satisfaction(nominate: bool) -> None:
    agent = Connection(ice_controlling=True)
    agent.remote_username, agent.remote_password = RELAY_SECRET.ufrag, RELAY_SECRET.password

    class OnlyComponent:
        component = 1

    class Pair(CandidatePair):
        def __init__(self) -> None:
            """A pair without sockets."""

        local_candidate = OnlyComponent()

    request = agent.build_request(Pair(), nominate)
    request.add_message_integrity(RELAY_SECRET.password.encode())
    result = IceLiteResponder(RELAY_SECRET).receive(bytes(request), TERMINAL, 1.0)
    assert (result.authenticated, result.nominated) == (True, nominate)
    assert result.reply is not None
    answer = stun.parse_message(result.reply)
    assert answer.transaction_id == request.transaction_id
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == TERMINAL
    assert "FINGERPRINT" in answer.attributes
    assert answer.check_message_integrity(RELAY_SECRET.password.encode())
    assert check_username(bytes(request)) == (RELAY_SECRET.ufrag, agent.local_username)


def test_ipv6_sources_are_mapped() -> None:
    source = Address("2001:db8::7", 40_000)
    result = IceLiteResponder(RELAY_SECRET).receive(a_check("ICE-CONTROLLING"), source, 0.0)
    assert result.reply is not None
    assert stun.parse_message(result.reply).attributes["XOR-MAPPED-ADDRESS"] == source


@pytest.mark.parametrize(
    "check",
    [
        a_check(username="other:phonefrag"),
        a_check(username="relayfrag:other"),
        a_check(username=""),
        b"\x80\x61" + bytes(20),
        bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)),
        bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION)),
        bytes(stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST, attributes={"USERNAME": "relayfrag:phonefrag"})),
    ],
)
def test_what_is_not_for_this_leg_meets_silence(check: bytes) -> None:
    responder = IceLiteResponder(RELAY_SECRET, "phonefrag")
    assert responder.receive(check, TERMINAL, 0.0) == CheckResult()
    assert responder.last_check is None


def test_nobody_latches_without_the_password() -> None:
    responder = IceLiteResponder(RELAY_SECRET)
    unsigned = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": "relayfrag:x"})
    for check, code in ((bytes(unsigned), 400), (a_check("USE-CANDIDATE", password="guess"), 401)):
        result = responder.receive(check, TERMINAL, 0.0)
        assert (result.authenticated, result.nominated, error_of(result)) == (False, False, code)
        assert result.reply is not None
        assert len(result.reply) <= len(check) + 20, "no amplifier"
    assert not responder.has_consent(0.0)


def test_a_controlled_peer_is_told_to_take_the_lead() -> None:
    result = IceLiteResponder(RELAY_SECRET).receive(a_check("ICE-CONTROLLED"), TERMINAL, 0.0)
    assert (result.authenticated, result.nominated, error_of(result)) == (True, False, 487)


@given(st.data())
def test_one_flipped_bit_is_never_authenticated(data: st.DataObject) -> None:
    """Anywhere but in the FINGERPRINT at the end, which signs nothing."""
    check = bytearray(a_check("PRIORITY", "USE-CANDIDATE", "ICE-CONTROLLING"))
    bit = data.draw(st.integers(0, 8 * (len(check) - stun.FINGERPRINT_LENGTH) - 1))
    check[bit // 8] ^= 1 << bit % 8
    assert not IceLiteResponder(RELAY_SECRET).receive(bytes(check), TERMINAL, 0.0).authenticated


attributes = st.lists(
    st.tuples(
        st.sampled_from([0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x0025, 0x8028, 0x802A, 0x7777]),
        st.binary(max_size=24),
    )
).map(
    lambda pairs: b"".join(
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for kind, value in pairs
    )
)
kinds = st.sampled_from([b"\x00\x01", b"\x01\x01", b"\x01\x11", b"\x00\x11", b"\x3e\xef"])
crafted = st.builds(
    lambda kind, body: kind + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + body, kinds, attributes
)


@given(st.binary(max_size=60) | crafted)
def test_garbage_is_never_authenticated_and_never_raises(datagram: bytes) -> None:
    assert not IceLiteResponder(RELAY_SECRET).receive(datagram, TERMINAL, 0.0).authenticated
    checker = a_checker()
    checker.start(0.0)
    assert not checker.receive(datagram, RELAY, 0.0)
    check_username(datagram)


def test_credentials_are_long_enough_and_kept_out_of_reprs() -> None:
    fresh = new_credentials(random_bytes())
    assert (len(fresh.ufrag), len(fresh.password)) == (8, 24)
    assert fresh != new_credentials(random_bytes(2))
    assert fresh.password not in repr(fresh)
