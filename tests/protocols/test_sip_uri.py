"""SIP and tel URIs: reading, writing, comparing, and the key of a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.net import Address
from protocols.sip.errors import SipParseError
from protocols.sip.uri import OtherUri, SipUri, TelUri, escape_user, number_key, parse_uri, uri_equal


def sip(text: str) -> SipUri:
    uri = parse_uri(text)
    assert isinstance(uri, SipUri)
    return uri


@pytest.mark.parametrize(
    "text",
    [
        "sip:1001@dialcast.internal",
        "sips:alice:secret@example.com:5061;transport=tcp;lr?subject=x&to=y",
        "sip:[2001:db8::1]:5060;lr",
        "sip:*21*8888%23@10.0.0.1",
        "sip:user;par=u%40example.net@example.com",
        "tel:+49-89-1234;phone-context=example.com",
        "urn:service:sos",
    ],
)
def test_a_uri_goes_out_as_it_came_in(text: str) -> None:
    assert str(parse_uri(text)) == text


def test_parts_of_a_full_uri() -> None:
    uri = sip("SIPS:alice:pw@EXAMPLE.com:5061;Transport=TCP;lr?Subject=a%20b")
    assert (uri.scheme, uri.user, uri.password, uri.host, uri.port) == ("sips", "alice", "pw", "example.com", 5061)
    assert (uri.param("transport"), uri.param("lr"), uri.param("maddr")) == ("TCP", "", None)
    assert uri.headers == (("Subject", "a%20b"),)


def test_escaped_parameters_are_understood() -> None:
    uri = sip("sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31")
    assert uri.param("lr") == ""
    assert uri.param("name") == "value%41"
    assert uri.decoded_user == "caller"


@pytest.mark.parametrize(
    "text",
    ["", "sip:", "sip:@host", "sip:a@", "sip:a@b@c", "sip:a b@c", "sip:a@h:99999", "sip:[::g]", "<sip:a@b>",
     "sip:a@h\r\nX: y", "tel:", "tel:abc def", "1001", "sip:a@h;=x", "sip:[1.2.3"],
)  # fmt: skip
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        parse_uri(text)


def test_where_a_uri_points() -> None:
    assert sip("sip:a@192.0.2.1").address == Address("192.0.2.1", 5060)
    assert sip("sips:a@[::1]:7000").address == Address("::1", 7000)
    assert sip("sip:a@example.com;maddr=192.0.2.9").address == Address("192.0.2.9", 5060)
    assert sip("sip:a@example.com").address is None


def test_a_password_does_not_show_in_the_repr() -> None:
    assert "geheim" not in repr(sip("sip:a:geheim@h"))


def test_parameters_can_be_put_and_taken() -> None:
    uri = sip("sip:a@h;lr;ob")
    assert str(uri.with_param("transport", "tcp")) == "sip:a@h;lr;ob;transport=tcp"
    assert str(uri.with_param("lr", "on")) == "sip:a@h;lr=on;ob"
    assert str(uri.without_params("lr")) == "sip:a@h;ob"
    assert str(uri.without_params()) == "sip:a@h"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
        ("sip:a@b.com;method=REGISTER?to=sip:x%40y.com", "sip:a@b.com;method=REGISTER?to=sip:x%40y.com"),
        ("tel:+49-89-1234", "tel:+49891234"),
    ],
)
def test_equal_uris(one: str, other: str) -> None:
    assert uri_equal(parse_uri(one), parse_uri(other))
    assert uri_equal(parse_uri(other), parse_uri(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:a@b.com", "sips:a@b.com"),
        ("tel:1234", "sip:1234@b.com"),
    ],
)
def test_different_uris(one: str, other: str) -> None:
    assert not uri_equal(parse_uri(one), parse_uri(other))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sip:1001@10.0.0.1:5070", "1001@d"),
        ("sip:+491001@x;user=phone", "491001@d"),
        ("sip:+49-(89)-10.01@x;user=phone", "49891001@d"),
        ("sip:%31001@x", "1001@d"),
        ("sip:1001;phone-context=+49@x;user=phone", "1001@d"),
        ("tel:+49-89-1001", "49891001@d"),
        ("tel:1001;phone-context=d", "1001@d"),
        ("sip:*21*8888%23@x", "*21*8888#@d"),
        ("sip:*21*8888#@x", "*21*8888#@d"),
        ("sip:Anna-Lena@x", "Anna-Lena@d"),
        ("sip:a%40evil@x", "a%40evil@d"),
        ("sip:%00@x", "%00@d"),
    ],
)
def test_all_spellings_of_a_number_give_one_key(text: str, key: str) -> None:
    assert number_key(parse_uri(text), "d") == key


@pytest.mark.parametrize("text", ["sip:example.com", "urn:service:sos"])
def test_no_user_no_key(text: str) -> None:
    with pytest.raises(SipParseError):
        number_key(text, "d")


@given(st.text(min_size=1))
def test_any_text_can_be_a_user(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert sip(str(SipUri("h", escape_user(text)))).decoded_user == text


@given(st.text() | st.builds("sip:{}@{};{}?{}".format, st.text(), st.text(), st.text(), st.text()))
def test_parse_gives_a_uri_or_the_one_error(text: str) -> None:
    try:
        uri = parse_uri(text)
    except SipParseError:
        return
    again = parse_uri(str(uri))
    assert isinstance(again, SipUri | TelUri | OtherUri)
    assert str(again) == str(uri)
    assert "\n" not in str(uri)


def test_escapes_in_a_parameter_name_never_become_what_they_stand_for() -> None:
    uri = parse_uri("sip:a@h;x%0D%0AEvil:%20y;%4Cr")
    assert str(uri) == "sip:a@h;x%0d%0aevil:%20y;lr"
    assert parse_uri(str(uri)) == uri
