"""The called side of an INVITE: 183 until PRACK, 200 until ACK, on a clock the test moves."""

from dataclasses import replace

from protocols.net import Address, Flow
from protocols.sip.dialog import DialogState, uac_dialog
from protocols.sip.invite import (
    Acknowledged,
    AckTimeout,
    ProvisionalAcknowledged,
    ProvisionalTimeout,
    UasInvite,
    prack,
)
from protocols.sip.message import Headers, Request, Response

FLOW = Flow("udp", Address("192.0.2.1", 5060), Address("192.0.2.2", 5060))
INVITE = Request(
    "INVITE",
    "sip:8888@d",
    Headers(
        [
            ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"),
            ("From", "<sip:1001@d>;tag=f"),
            ("To", "<sip:8888@d>"),
            ("Call-ID", "c"),
            ("CSeq", "1 INVITE"),
            ("Contact", "<sip:1001@192.0.2.1>"),
            ("Supported", "100rel"),
        ]
    ),
)
CONTACT = [("Contact", "<sip:8888@192.0.2.2>")]


def progress(invite: UasInvite, body: bytes = b"v=0") -> Response:
    return invite.provisional(0, 183, reliable=True, headers=CONTACT, body=body, content_type="application/sdp")


def caller(response: Response) -> DialogState:
    return uac_dialog(INVITE, response, FLOW)


def sent_until(invite: UasInvite, end: float) -> list[tuple[float, int]]:
    sent = [(0.0, response.status) for response in invite.to_send()]
    while (at := invite.next_timer()) is not None and at <= end:
        invite.handle_timer(at)
        sent += [(at, response.status) for response in invite.to_send()]
    return sent


def test_an_unreliable_ringing_is_sent_once() -> None:
    invite = UasInvite(INVITE, "t")
    invite.provisional(0, 180)
    assert sent_until(invite, 100) == [(0, 180)]


def test_a_reliable_183_is_repeated_until_it_is_given_up() -> None:
    invite = UasInvite(INVITE, "t", rseq=5)
    response = progress(invite)
    assert (response.rseq, sorted(response.required), response.to.tag) == (5, ["100rel"], "t")
    assert sent_until(invite, 100) == [(at, 183) for at in (0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)]
    assert invite.next_event() == ProvisionalTimeout(response)
    assert invite.next_timer() is None


def test_a_prack_stops_it() -> None:
    invite = UasInvite(INVITE, "t")
    response = progress(invite)
    _, acknowledgement = prack(caller(response), response)
    assert invite.receive_prack(acknowledgement, 0.1)
    assert invite.next_event() == ProvisionalAcknowledged(response, acknowledgement)
    assert not invite.receive_prack(acknowledgement, 0.2)
    assert sent_until(invite, 100) == [(0, 183)]


def test_a_prack_for_something_else_stops_nothing() -> None:
    invite = UasInvite(INVITE, "t", rseq=5)
    _, acknowledgement = prack(caller(response := progress(invite)), response)
    for rack in ("6 1 INVITE", "5 2 INVITE", "5 1 UPDATE"):
        wrong = replace(acknowledgement, headers=acknowledgement.headers.with_("RAck", rack))
        assert not invite.receive_prack(wrong, 0)
    assert invite.next_timer() is not None


def test_a_second_reliable_response_waits_for_the_first() -> None:
    invite = UasInvite(INVITE, "t")
    first, second = progress(invite), progress(invite)
    assert second.rseq == (first.rseq or 0) + 1
    assert len(invite.to_send()) == 1
    invite.receive_prack(prack(caller(first), first)[1], 1)
    assert invite.to_send() == [second]


def test_the_200_waits_for_the_prack_of_a_body() -> None:
    invite = UasInvite(INVITE, "t")
    response = progress(invite)
    invite.accept(1, headers=CONTACT)
    assert [sent.status for sent in invite.to_send()] == [183]
    assert not invite.receive_ack(caller(response).ack(1))
    invite.receive_prack(prack(caller(response), response)[1], 1)
    assert [sent.status for sent in invite.to_send()] == [200]


def test_the_200_does_not_wait_for_a_bare_ringing() -> None:
    invite = UasInvite(INVITE, "t")
    invite.provisional(0, 180, reliable=True)
    invite.accept(0)
    assert [sent.status for sent in invite.to_send()] == [180, 200]
    invite.handle_timer(0.5)
    assert [sent.status for sent in invite.to_send()] == [200]


def test_a_200_is_repeated_until_its_ack() -> None:
    invite = UasInvite(INVITE, "t")
    ok = invite.accept(0, headers=CONTACT, body=b"v=0", content_type="application/sdp")
    assert sent_until(invite, 8) == [(0, 200), (0.5, 200), (1.5, 200), (3.5, 200), (7.5, 200)]
    ack = caller(ok).ack(1)
    assert not invite.receive_ack(caller(ok).ack(2))
    assert invite.receive_ack(ack)
    assert not invite.receive_ack(ack)
    assert invite.next_event() == Acknowledged(ack)
    assert invite.next_event() is None
    assert sent_until(invite, 100) == []


def test_a_200_nobody_acknowledges_ends_with_a_timeout() -> None:
    invite = UasInvite(INVITE, "t")
    invite.accept(0)
    assert len(sent_until(invite, 100)) == 11
    assert invite.next_event() == AckTimeout()
    assert not invite.receive_ack(INVITE)


def test_a_refusal_drops_all_that_waited() -> None:
    invite = UasInvite(INVITE, "t")
    progress(invite)
    progress(invite)
    invite.accept(0)
    invite.reject(504, headers=[("Reason", "SIP;cause=504")])
    assert [sent.status for sent in invite.to_send()] == [183, 504]
    assert invite.next_timer() is None


def test_who_can_and_who_must_have_it_reliable() -> None:
    plain = replace(INVITE, headers=INVITE.headers.without("supported"))
    required = replace(plain, headers=plain.headers.add(("Require", "100rel")))
    assert [UasInvite(request, "t").can_be_reliable for request in (INVITE, plain, required)] == [True, False, True]
    assert [UasInvite(request, "t").must_be_reliable for request in (INVITE, plain, required)] == [False, False, True]
