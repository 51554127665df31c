"""A whole run at debug level, with its failures, and not one secret of anybody in the log."""

import asyncio
import re
import secrets
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import structlog
from broadcast_world import broadcasting
from ua import DOMAIN, Phone, running

from dialcast.logs import configure
from protocols.pin import hash_pin
from protocols.records import Channel
from protocols.sip.digest import ALGORITHMS, authorize, ha1
from provisioning.config import Config, LogConfig

PIN = "739146205"
WORD = "password-of-a-uri"
USERS = ("1002", "1001", "1001;phone-context=x", "1001?x", "%31001", "9" * 300)
URIS = (
    *(f"{scheme}:{user}:{WORD}@{DOMAIN}" for scheme in ("sip", "sips") for user in USERS),
    f"sip:1002:{WORD}:{WORD}@{DOMAIN};transport=tcp",
    f"sip:1002@{DOMAIN}?Proxy-Authorization=Digest%20{WORD}",
    f"http://1002:{WORD}@{DOMAIN}/",
    f"tel:+1002:{WORD}@{DOMAIN}",
    f"sip:1002:my {WORD}@{DOMAIN}",
)
METHODS = (
    *("REGISTER", "INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "NOTIFY", "INFO", "BYE", "UPDATE", "PRACK", "PUBLISH"),
    *("REFER", "ACK", "CANCEL", "WHATEVER"),
)


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_password_hash_key_ice_password_token_or_pin_is_logged(
    tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[bytes] = []
    random_bytes = secrets.token_bytes

    def noted(size: int | None = None) -> bytes:
        made = random_bytes(size)
        if len(made) >= 16:  # shorter ones are tags and branches, which everybody sees
            keys.append(made)
        return made

    async def scenario() -> list[str]:
        secret: list[str] = []
        async with broadcasting(tmp_path, config={"log": {"level": "debug"}}) as world:
            phone = await world.phone("1001")
            sent: list[bytes] = []
            keep = phone.send_raw
            phone.send_raw = lambda data: (sent.append(data), keep(data))[1]  # type: ignore[method-assign]  # a wiretap
            call = await phone.announce()
            progress = await call.until(183)
            phone.connect(progress.body, join=True)
            await call.prack(progress)
            await call.answered()
            channel = Channel(True, frozenset(), hash_pin(PIN, b"0" * 16))
            await world.forwarded()
            await world.viewer("1002")
            await world.store.channels.change(f"1001@{DOMAIN}", lambda _: channel)
            await (await (await world.phone("1004")).dial("1001")).next()
            stranger = Phone(world.address, "1003", password="guessed-wrong-word")
            await stranger.open()
            assert (await stranger.register()).status == 401
            garbage = b"\r\n".join(sent[-1].split(b"\r\n")[:-3]).replace(b"CSeq", b"CSoq")
            stranger.send_raw(garbage)
            uri = f"sip:1001:password-in-uri@{DOMAIN}"
            await stranger.ask(stranger.build("OPTIONS", uri, from_=f"<{uri}>", headers=(("Contact", f"<{uri}>"),)))
            stranger.close()
            for number in ("1001", "1002", "1003"):
                secret += [f"dialcast-{number}"]
                secret += [ha1(name, number, DOMAIN, f"dialcast-{number}") for name in ALGORITHMS]
            secret += [PIN, channel.pin, "guessed-wrong-word", "password-in-uri"]
            wire = b"".join([*sent, *phone.raw]).decode("utf-8", "replace")
            for pattern in (r"ice-pwd:(\S+)", r'response="(\w+)"', r'cnonce="(\w+)"', r'nonce="([^"]+)"'):
                found = re.findall(pattern, wire)
                assert found, pattern
                secret += found
        return secret

    monkeypatch.setattr(secrets, "token_bytes", noted)
    try:
        configure(LogConfig.model_validate({"format": form, "level": "debug"}), "test")
        structlog.configure(cache_logger_on_first_use=False)  # or other tests would write to this one's stderr
        secret = asyncio.run(scenario())
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    out, err = capfd.readouterr()
    told: str = out + err
    assert "sip.received" in told
    assert "identity.refused" in told
    assert keys
    everything: list[Any] = [*secret, *(key.hex() for key in keys), *(repr(key)[2:-1] for key in keys)]
    assert [value for value in everything if value and value in told] == []


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_no_password_of_a_uri_is_logged_at_any_level_in_any_method_wherever_it_stands(
    tmp_path: Path, form: str, level: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        plenty = dict.fromkeys(("registers_per_minute", "calls_per_minute", "messages_per_minute"), 10_000)
        wanted = {"log": {"level": level}, "security": plenty, "sip": {"port": 0, "requests_per_second": 5000}}
        async with running(tmp_path, config=Config.model_validate({"data_dir": tmp_path} | wanted)) as world:
            phone = await world.phone("1001")
            refused = {name: await phone.ask(phone.build(name, f"sip:{DOMAIN}")) for name in ("REGISTER", "MESSAGE")}
            count = 0
            for method in METHODS:
                [offered] = (
                    refused["REGISTER"].credentials("www-authenticate")
                    if method == "REGISTER"
                    else refused["MESSAGE"].credentials("proxy-authenticate")
                )
                given = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
                for uri, place in product(URIS, ("uri", "from_", "to", "Contact", "Reason")):
                    count += 1
                    target = uri if place == "uri" else f"sip:1002@{DOMAIN}"
                    proof = authorize(offered, method, target, "1001", "dialcast-1001", nc=count)
                    headers = [(given, str(proof))]
                    if place[0].isupper():
                        headers.append((place, f"<{uri}>, {uri}"))
                    named = {place: f"<{uri}>"} if place in ("from_", "to") else {}
                    request = phone.build(method, target, headers=headers, **named)
                    via = f"SIP/2.0/UDP {phone.flow.local};rport;branch=z9hG4bK{secrets.token_hex(8)}"
                    phone.send_raw(replace(request, headers=request.headers.prepend("Via", via)).serialise())
                    await asyncio.sleep(0.001)
            for place in ("from_", "to"):
                named = {"to": f"<sip:1001@{DOMAIN}>", place: f"<{URIS[0]}>"}
                assert (await phone.request("REGISTER", f"sip:{DOMAIN}", **named)).status == 403
            assert (await phone.request("MESSAGE", f"sip:1002@{DOMAIN}", from_=f"<{URIS[0]}>")).status == 403

    try:
        configure(LogConfig.model_validate({"format": form, "level": level}), "test")
        structlog.configure(cache_logger_on_first_use=False)  # or other tests would write to this one's stderr
        asyncio.run(scenario())
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    out, err = capfd.readouterr()
    told: str = out + err
    assert ("identity.mismatch" in told) == (level != "error")
    assert ("sip.received" in told) == (level == "debug")
    assert WORD not in told


def test_a_password_in_what_an_event_or_exception_says_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"no way to <sip:1002:{WORD}@{DOMAIN}>"
    try:
        configure(LogConfig(format="json"), "test")
        structlog.configure(cache_logger_on_first_use=False)
        try:
            raise ValueError(said)
        except ValueError:
            structlog.get_logger().exception("server.failed", error=said, within=[{"uri": said}])
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    told = capsys.readouterr().err
    assert told.count(f"no way to <sip:1002@{DOMAIN}>") == 3 and WORD not in told
