"""Dialogs as values, both ends of one call, and session timers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address, Flow
from protocols.sip.dialog import DialogState, incoming_id, uac_dialog, uas_dialog
from protocols.sip.errors import BadRequest, SipParseError
from protocols.sip.message import Headers, Request, Response, make_response
from protocols.sip.session_timer import SessionTimer, agree, deadline

FLOW = Flow("tcp", Address("192.0.2.2", 5060), Address("2001:db8::1", 40000), 7)
INVITE = Request(
    "INVITE",
    "sip:8888@d",
    Headers(
        [
            ("Via", "SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx"),
            ("Record-Route", "<sip:p2;lr>, <sip:p1;lr>"),
            ("From", '"Änn" <sip:1001@d>;tag=caller;x=y'),
            ("To", "sip:8888@d"),
            ("Call-ID", "c"),
            ("CSeq", "7 INVITE"),
            ("Contact", "<sip:1001@192.0.2.1>;expires=5"),
        ]
    ),
)
OK = make_response(INVITE, 200, to_tag="called", headers=[("Contact", "<sip:8888@192.0.2.2>;isfocus")])
UAS = uas_dialog(INVITE, "called", "<sip:8888@192.0.2.2>;isfocus", FLOW)
UAC = uac_dialog(INVITE, OK, FLOW)


def test_both_ends_see_one_dialog() -> None:
    assert UAS.id == ("c", "called", "caller")
    assert UAC.id == ("c", "caller", "called")
    assert (UAS.remote_target, UAC.remote_target) == ("sip:1001@192.0.2.1", "sip:8888@192.0.2.2")
    assert (UAS.route_set, UAC.route_set) == (("<sip:p2;lr>", "<sip:p1;lr>"), ("<sip:p1;lr>", "<sip:p2;lr>"))
    assert (UAS.local_cseq, UAS.remote_cseq, UAC.local_cseq, UAC.remote_cseq) == (0, 7, 7, None)
    assert UAS.next_hop == "sip:p2;lr"


def test_a_request_in_the_dialog_reaches_the_other_end() -> None:
    after, bye = UAS.request("BYE", headers=[("Reason", 'Q.850;cause=16;text="Broadcast ended"')])
    assert (bye.uri, str(bye.cseq), bye.headers.all("route")) == ("sip:1001@192.0.2.1", "1 BYE", UAS.route_set)
    assert bye.from_.uri == INVITE.to.uri
    assert (bye.from_.tag, bye.to.tag, bye.to.display) == ("called", "caller", "Änn")
    assert bye.headers.get("contact") is None
    assert incoming_id(bye) == UAC.id
    assert incoming_id(make_response(bye, 200)) == UAS.id
    assert after.request("BYE")[1].cseq.number == 2


def test_target_refreshing_requests_carry_our_contact() -> None:
    _, update = UAS.request("UPDATE", body=b"v=0", content_type="application/sdp")
    assert update.headers.get("contact") == UAS.local_target
    assert (update.content_type, update.body) == ("application/sdp", b"v=0")


def test_the_ack_repeats_the_number_of_its_invite() -> None:
    ack = UAC.ack(7)
    assert (ack.method, str(ack.cseq), ack.uri) == ("ACK", "7 ACK", "sip:8888@192.0.2.2")
    assert incoming_id(ack) == UAS.id


def test_a_strict_router_gets_the_request_uri() -> None:
    _, bye = replace(UAS, route_set=("<sip:old>", "<sip:p1;lr>")).request("BYE")
    assert bye.uri == "sip:old"
    assert bye.headers.all("route") == ("<sip:p1;lr>", "<sip:1001@192.0.2.1>")


def test_requests_must_come_in_order() -> None:
    state, update = UAC.request("UPDATE")
    assert UAS.accepts(update)
    after = UAS.received(update)
    assert after.remote_cseq == 8
    assert not after.accepts(update)
    assert after.accepts(UAC.ack(7))
    assert after.received(UAC.ack(7)) == after
    assert after.accepts(state.request("BYE")[1])


def test_a_target_refresh_moves_the_target_and_nothing_else() -> None:
    _, update = replace(UAC, local_target="<sip:1001@192.0.2.99>").request("UPDATE")
    after = UAS.received(update)
    assert after.remote_target == "sip:1001@192.0.2.99"
    assert after.route_set == UAS.route_set
    assert UAC.refreshed(make_response(update, 200)).remote_target == UAC.remote_target


def test_a_dialog_survives_as_json() -> None:
    state = UAS.with_app(group="1001@d", leg="5").on_flow(FLOW)
    again = DialogState.from_json(state.to_json())
    assert again == state
    assert again.flow.remote.host == "2001:db8::1"
    assert again.request("BYE")[1] == state.request("BYE")[1]


@given(st.text() | st.sampled_from(["{}", "[]", "1", '{"flow":{}}', '{"flow":{"local":[1],"remote":[]}}']))
def test_what_is_no_stored_dialog_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        DialogState.from_json(text)


def test_without_a_contact_there_is_no_dialog() -> None:
    with pytest.raises(SipParseError):
        uas_dialog(replace(INVITE, headers=INVITE.headers.without("contact")), "t", "<sip:x>", FLOW)
    for response in (make_response(INVITE, 200, to_tag="t"), Response(180, "", OK.headers.with_("To", "<sip:a>"))):
        with pytest.raises(SipParseError):
            uac_dialog(INVITE, response, FLOW)


def with_timer(**headers: str) -> Request:
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return replace(INVITE, headers=INVITE.headers.add(*lines))


@pytest.mark.parametrize(
    ("headers", "timer"),
    [
        ({}, SessionTimer(1800, "uas")),
        ({"Supported": "timer"}, SessionTimer(1800, "uac")),
        ({"Supported": "timer", "Session_Expires": "600"}, SessionTimer(600, "uac")),
        ({"Supported": "timer", "Session_Expires": "600;refresher=uas"}, SessionTimer(600, "uas")),
        ({"Supported": "timer", "x": "7200;refresher=uac"}, SessionTimer(1800, "uac")),
        ({"Supported": "timer", "Min_SE": "3600"}, SessionTimer(3600, "uac")),
        ({"Session_Expires": "10"}, SessionTimer(90, "uas")),
    ],
)
def test_the_session_timer_we_agree_to(headers: dict[str, str], timer: SessionTimer) -> None:
    assert agree(with_timer(**headers)) == timer


def test_too_small_an_interval_is_refused() -> None:
    with pytest.raises(BadRequest, match="422"):
        agree(with_timer(Supported="timer", Session_Expires="89"))


def test_the_answer_requires_timer_only_of_who_must_refresh() -> None:
    assert SessionTimer(1800, "uac").headers == (("Session-Expires", "1800;refresher=uac"), ("Require", "timer"))
    assert SessionTimer(1800, "uas").headers == (("Session-Expires", "1800;refresher=uas"),)


def test_we_refresh_halfway_and_hang_up_shortly_before_the_end() -> None:
    assert deadline(1800, True, 100) == 1000
    assert deadline(1800, False, 100) == 1868
    assert deadline(90, False, 0) == 60
