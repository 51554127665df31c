"""Typed header values and the list of header lines."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address
from protocols.sip.errors import SipParseError
from protocols.sip.fields import Headers
from protocols.sip.headers import (
    AuthParams,
    CSeq,
    DiversionEntry,
    HistoryEntry,
    NameAddr,
    RAck,
    Reason,
    Via,
    parse_params,
    quote_string,
    split_list,
    unquote_string,
)

PARSERS: list[Callable[[str], object]] = [
    Via.parse,
    NameAddr.parse,
    CSeq.parse,
    RAck.parse,
    AuthParams.parse,
    HistoryEntry.parse,
    DiversionEntry.parse,
    Reason.parse,
]


def test_via_says_where_the_response_goes() -> None:
    via = Via.parse("SIP/2.0/UDP pc.example.com:5070;branch=z9hG4bKx;received=192.0.2.7;rport=4000")
    assert via.response_address == Address("192.0.2.7", 4000)
    assert via.branch == "z9hG4bKx"
    assert Via.parse("SIP/2.0/TLS host").response_address == Address("host", 5061)
    assert Via.parse("SIP/2.0/UDP [::1]:5;branch=b").response_address == Address("::1", 5)


def test_via_is_stamped_in_place() -> None:
    via = Via.parse("SIP/2.0/UDP h;rport;branch=b").with_param("rport", "9").with_param("received", "192.0.2.1")
    assert str(via) == "SIP/2.0/UDP h;rport=9;branch=b;received=192.0.2.1"
    assert str(Via("TCP", "::1", 5060)) == "SIP/2.0/TCP [::1]:5060"


@pytest.mark.parametrize("text", ["", "SIP/2.0/UDP", "UDP h", "SIP/2.0/UDP h:99999", "SIP/2.0/UDP h;;,;,,x, "])
def test_malformed_via_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        for value in split_list(text):
            Via.parse(value)


def test_name_addr_with_and_without_brackets() -> None:
    bare = NameAddr.parse("sip:a@h;tag=1;x")
    assert (str(bare.uri), bare.tag, bare.param("x")) == ("sip:a@h", "1", "")
    full = NameAddr.parse('"A \\"B\\" <c>" <sip:a@h;lr>;tag=1')
    assert (full.display, str(full.uri), full.tag) == ('A "B" <c>', "sip:a@h;lr", "1")
    assert NameAddr.parse(str(full)) == full
    assert str(NameAddr.parse("caller<sip:a@h>")) == "caller <sip:a@h>"


def test_contact_parameters() -> None:
    contact = NameAddr.parse('<sip:a@h>;q=0.7;expires=99999999999999999999999;+sip.instance="<urn:uuid:1>"')
    assert (contact.q, contact.expires) == (0.7, 2**32 - 1)
    assert contact.param("+sip.instance") == "<urn:uuid:1>"
    with pytest.raises(SipParseError):
        _ = NameAddr.parse("<sip:a@h>;q=2x").q


@pytest.mark.parametrize("text", ["", "<>", '"open <sip:a@h>', "<sip:a@h", "sip:a@h?Route=x", "<sip:a@h> tail"])
def test_malformed_name_addr_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        NameAddr.parse(text)


@pytest.mark.parametrize("text", ["", "1", "INVITE", "-1 INVITE", "2147483648 INVITE", "1_0 INVITE", "١ INVITE"])
def test_malformed_cseq_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        CSeq.parse(text)


def test_small_values_round_trip() -> None:
    assert CSeq.parse("0009   INVITE") == CSeq(9, "INVITE")
    assert RAck.parse("776656 1 INVITE") == RAck(776656, 1, "INVITE")
    ended = Reason("Q.850", 16, "Broadcast ended")
    assert str(ended) == 'Q.850;cause=16;text="Broadcast ended"'
    assert Reason.parse(str(ended)) == ended
    assert Reason.parse('SIP ; cause=200;text="a;b"') == Reason("SIP", 200, "a;b")


def test_history_and_diversion() -> None:
    entry = HistoryEntry.parse("<sip:8888@d;cause=302?Reason=SIP%3Bcause%3D302>;index=1.1;mp=1")
    assert (entry.index, entry.cause) == ("1.1", 302)
    assert HistoryEntry.parse(str(entry)) == entry
    with pytest.raises(SipParseError):
        HistoryEntry.parse("<sip:a@h>")
    diversion = DiversionEntry.parse("<sip:1001@d>;reason=unconditional;counter=2;privacy=off")
    assert (diversion.reason, diversion.counter) == ("unconditional", 2)
    assert DiversionEntry.parse(str(diversion)) == diversion


def test_credentials_are_read_whatever_their_spacing() -> None:
    auth = AuthParams.parse('Digest username="a,b" ,realm="r",nc=00000001, qop=auth,uri="sip:h"')
    assert [auth.get(name) for name in ("username", "realm", "nc", "qop", "missing")] == [
        "a,b", "r", "00000001", "auth", ""]  # fmt: skip
    with pytest.raises(SipParseError):
        AuthParams.parse('Digest username="a')


def test_lists_split_outside_quotes_and_brackets() -> None:
    assert split_list('"a,b" <sip:x,y@h>;p="1,2", <sip:c@h>') == ['"a,b" <sip:x,y@h>;p="1,2"', "<sip:c@h>"]
    for text in ("a,,b", "a,", '"a,b', "<a,b"):
        with pytest.raises(SipParseError):
            split_list(text)


@given(st.text())
def test_quoting_keeps_any_text(text: str) -> None:
    assert unquote_string(quote_string(text)) == text


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text())))
def test_quoted_parameters_survive(pairs: list[tuple[str, str]]) -> None:
    text = ";".join(f"{name}={quote_string(value)}" for name, value in pairs)
    assert [(name, unquote_string(value or "")) for name, value in parse_params(text)] == pairs


_NOISE = st.text(alphabet='SIP/2.0 UDPabc<>";,=:@?[]\\\r\n\t\x001٣*é')


@given(st.text() | _NOISE | st.builds("<sip:{}>;{}".format, _NOISE, _NOISE))
def test_every_parser_gives_a_value_or_the_one_error(text: str) -> None:
    for parse in PARSERS:
        try:
            value = parse(text)
        except SipParseError:
            continue
        assert parse(str(value)) is not None


def test_a_long_hostile_value_is_read_in_linear_time() -> None:
    for text in ('"' * 60000, "<" * 60000, '"\\' * 30000, "a," * 30000 + '"', ";" * 60000, "sip:" + ":" * 60000):
        for parse in PARSERS:
            with pytest.raises(SipParseError):
                parse(text)
                split_list(text)


class TestHeaders:
    LINES = (("Via", "SIP/2.0/UDP a"), ("v", "SIP/2.0/UDP b, SIP/2.0/UDP c"), ("To", "x"), ("X-Odd", "1"))

    def test_names_match_in_any_case_and_in_compact_form(self) -> None:
        headers = Headers(self.LINES)
        assert headers.all("VIA") == ("SIP/2.0/UDP a", "SIP/2.0/UDP b, SIP/2.0/UDP c")
        assert headers.get("t") == "x"
        assert headers.get("x-odd") == "1"
        assert headers.get("From") is None
        assert "to" in headers
        assert "from" not in headers

    def test_lists_are_split_over_lines(self) -> None:
        assert Headers(self.LINES).values("Via") == ["SIP/2.0/UDP a", "SIP/2.0/UDP b", "SIP/2.0/UDP c"]

    def test_changes_make_a_new_list(self) -> None:
        headers = Headers(self.LINES)
        assert list(headers.with_("To", "y")) == [*self.LINES[:2], ("To", "y"), self.LINES[3]]
        assert list(headers.without("v", "to")) == [("X-Odd", "1")]
        assert next(iter(headers.prepend("Via", "new"))) == ("Via", "new")
        assert list(headers.add(("A", "1"), ("B", "2")))[-2:] == [("A", "1"), ("B", "2")]
        assert list(headers) == list(self.LINES)

    def test_the_top_element_is_replaced_or_removed(self) -> None:
        headers = Headers(self.LINES).with_first("Via", None)
        assert headers.values("Via") == ["SIP/2.0/UDP b", "SIP/2.0/UDP c"]
        assert headers.with_first("Via", None).values("Via") == ["SIP/2.0/UDP c"]
        assert headers.with_first("Via", "z").values("Via") == ["z", "SIP/2.0/UDP c"]

    def test_a_line_break_in_a_value_forges_nothing(self) -> None:
        text = Headers([("Subject", "a\r\nEvil: yes"), ("To", "x")]).serialise(0)
        assert text == "Subject: a  Evil: yes\r\nTo: x\r\nContent-Length: 0\r\n\r\n"
