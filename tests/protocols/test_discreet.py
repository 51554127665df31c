"""What may be shown of a text: no password of a URI and no credentials, however written, and found in bounded time."""

import time

import pytest

from protocols.printable import discreet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sip:1002:secret@h", "sip:1002@h"),
        ("SIPS:1002:secret@h:5061;transport=tls", "SIPS:1002@h:5061;transport=tls"),
        ("sip:1001;phone-context=x:secret@h", "sip:1001;phone-context=x@h"),
        ("sip:1001?x:secret@h", "sip:1001?x@h"),
        (f"sip:{'9' * 300}:secret@h", f"sip:{'9' * 300}@h"),
        (f"sip:1001:{'secret' * 300}@h", "sip:1001@h"),
        ("sip:1001:a:secret@h", "sip:1001@h"),
        ("sip:1001:se@secret@h", "sip:1001@h"),
        ("sip:10@01:secret@h", "sip:10@01@h"),
        ("<sip:1001:my secret@h>;expires=3", "<sip:1001@h>;expires=3"),
        ('"A" <sip:1:secret@h>, <sip:2@h>', '"A" <sip:1@h>, <sip:2@h>'),
        ("<sip:1@h>, sip:2:my secret@h", "<sip:1@h>, sip:2@h"),
        ("sip:1@h,sip:2:secret@h", "sip:1@h,sip:2@h"),
        ('SIP;text="to sip:1:secret@h"', 'SIP;text="to sip:1@h"'),
        ("1001:secret@h", "1001@h"),
        ("tel:+1:secret@h", "tel:+1@h"),
        ("http://user:secret@h/path", "http://user@h/path"),
        ("postgresql://user:secret@h/base", "postgresql://user@h/base"),
        ("sip:1@h?Proxy-Authorization=Digest%20secret&x=1", "sip:1@h?Proxy-Authorization=...&x=1"),
        ('Authorization: Digest username="1", response="secret"', "Authorization:..."),
        ("{'Proxy-Authorization': 'Basic secret'}", "{'Proxy-Authorization':..."),
        ('nonce="secret", cnonce=secret, response = "secret"', "nonce=..., cnonce=..., response = ..."),
    ],
)
def test_passwords_and_credentials_are_cut(text: str, shown: str) -> None:
    assert discreet(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "1001@h went live",
        "udp:127.0.0.1:5060 and 1001@h",
        "sip:[::1]:5060;transport=tcp",
        "<sip:1001@[::1]:5060;ob>, <sip:1002@h:5060>",
        "<sip:10.0.0.1:5060;transport=tcp>, <sip:1002@h>",
        "sip:1@h, sip:2@h",
        "b1c2@fe80::1",
        "12:00:00 x",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert discreet(text) == text


@pytest.mark.parametrize(
    "piece", ["sip:", "sip:@", "a", ":", "@", "a:@", "a:b@", "a: b@", "sip:a:", "<", "<sip:", " ", "nonce=", 'nonce="']
)
@pytest.mark.parametrize("end", ["@h", ":@", ":a:@", "authorization "])
def test_the_longest_message_takes_no_longer_than_its_length_deserves(piece: str, end: str) -> None:
    text = piece * (65_536 // len(piece)) + end
    begin = time.process_time()
    discreet(text)
    assert time.process_time() - begin < 0.5
