"""A whole run at debug level, with its failures, and not one secret of anybody in the log."""

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import structlog
from broadcast_world import broadcasting
from ua import DOMAIN, Phone

from dialcast.logs import configure
from protocols.pin import hash_pin
from protocols.records import Channel
from protocols.sip.digest import ALGORITHMS, ha1
from provisioning.config import LogConfig

PIN = "739146205"


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
