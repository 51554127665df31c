"""Harnesses of what lies above the wire formats: control messages, service codes, the configuration, XML bodies."""

import tempfile
from contextlib import suppress
from pathlib import Path

from fuzz.target import ROOT, Target, must_equal
from protocols import media_control
from protocols.control import ControlError, Hello, RemoveLeg
from protocols.control_json import decode, encode
from protocols.dtmf_relay import key_of
from protocols.prompts import LANGUAGES, language_of
from protocols.sip.errors import SipParseError
from protocols.sip.subscription import Event
from protocols.text_message import TextError, charset, clean
from provisioning.loader import ConfigError, load_config
from sip_app.calls.incoming import Rejected
from sip_app.diversion.codes import parse_code


def read_control(data: bytes) -> None:
    """A box of the control link: name, line break, body."""
    name, _, body = data.partition(b"\n")
    try:
        value = decode(name.decode("utf-8", "replace"), body)
    except ControlError as error:
        must_equal(len(str(error)) < 500, True)
        return
    with suppress(ControlError):
        must_equal(decode(*encode(value)), value)


def read_code(data: bytes) -> None:
    """What somebody dialled."""
    try:
        parse_code(data.decode("utf-8", "replace"))
    except Rejected as refusal:
        must_equal(refusal.status, 484)


def read_config(data: bytes) -> None:
    """A configuration file."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        with suppress(ConfigError):
            load_config(Path(file.name), {})


def read_media_control(data: bytes) -> None:
    """An INFO body (RFC 5168)."""
    with suppress(media_control.MediaControlError):
        media_control.parse(data)


def read_event(data: bytes) -> None:
    """An Event header value."""
    with suppress(SipParseError):
        event = Event.parse(data.decode("utf-8", "replace"))
        must_equal(Event.parse(str(event)), event)


def read_text(data: bytes) -> None:
    """The text of a MESSAGE: once clean, clean for good."""
    with suppress(TextError):
        text = clean(data)
        must_equal(clean(text.encode()), text)


def read_key(data: bytes) -> None:
    """A key press in INFO: its type, a line break, its body."""
    kind, _, body = data.partition(b"\n")
    content_type = kind.decode("utf-8", "replace")
    charset(content_type)
    must_equal(len(key_of(content_type, body)) <= 1, True)


def read_language(data: bytes) -> None:
    """An Accept-Language value: the default counts only where nothing we speak is asked for."""
    text = data.decode("utf-8", "replace")
    chosen = tuple(language_of(text, default) for default in LANGUAGES)
    must_equal(chosen == LANGUAGES or len({*chosen}) == 1, True)


def _control() -> list[bytes]:
    boxes = []
    for value in (Hello("as", 1, "t"), RemoveLeg("g", 1, "l")):
        name, body = encode(value)
        boxes.append(name.encode() + b"\n" + body)
    return boxes


_BOMB = b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><media_control>&d;</media_control>'

TARGETS = (
    Target("control", read_control, _control, 8192),
    Target("service-code", read_code, lambda: [b"*21*8888#", b"**61*1002*11*20#", b"*%2321%23", b"##002#"], 512),
    Target("config", read_config, lambda: [(ROOT / "provisioning" / "sample.yaml").read_bytes()], 8192),
    Target("event", read_event, lambda: [b"presence;id=7", b"dialog;sla;ma", b'a;b="c"'], 256),
    Target("text", read_text, lambda: ["\x1b[2Jhé\u202e\r\n".encode()], 1024),
    Target("dtmf-relay", read_key, lambda: [b"application/dtmf-relay\nSignal=5\r\n", b"application/dtmf\n5"], 512),
    Target(
        "accept-language", read_language, lambda: [b"zh-CN, zh;q=0.9, en;q=0.8", b"fr;q=1,*;q=nan", b"en; q = 0"], 512
    ),
    Target("media-control", read_media_control, lambda: [media_control.PICTURE_FAST_UPDATE, _BOMB], 4096),
)
