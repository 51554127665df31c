"""Full pictures asked for by SIP INFO (RFC 5168), from viewer to broadcaster, through a real relay."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import MediaPhone, broadcasting, until

from protocols.media_control import (
    CONTENT_TYPE,
    MAX_BYTES,
    PICTURE_FAST_UPDATE,
    MediaControlError,
    general_error,
    parse,
)

ONE_AT_ONCE = {"keyframe_interval_min": 0.02, "viewer_keyframe_interval": 0.02}


def asked(phone: MediaPhone) -> int:
    """How often a phone was asked for a picture by INFO."""
    return sum(request.method == "INFO" and parse(request.body) == "picture" for request, _ in phone.heard)


def test_a_viewers_wish_reaches_a_broadcaster_that_knows_only_info(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=ONE_AT_ONCE) as world:
            broadcaster, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            before = asked(broadcaster)
            answer = await call.send("INFO", body=PICTURE_FAST_UPDATE, content_type=CONTENT_TYPE)
            assert answer.status == 200
            await until(lambda: asked(broadcaster) > before)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [415, 501])
def test_a_broadcaster_that_takes_no_info_is_asked_once(tmp_path: Path, status: int) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=ONE_AT_ONCE) as world:
            broadcaster, _ = await world.broadcaster()
            broadcaster.answers["INFO"] = status
            _, call = await world.viewer("1002")
            await call.send("INFO", body=PICTURE_FAST_UPDATE, content_type=CONTENT_TYPE)
            await until(lambda: asked(broadcaster) == 1)
            await asyncio.sleep(0.1)
            await call.send("INFO", body=PICTURE_FAST_UPDATE, content_type=CONTENT_TYPE)
            await asyncio.sleep(0.1)
            assert asked(broadcaster) == 1

    asyncio.run(scenario())


def test_a_broadcaster_that_reports_an_error_is_not_asked_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, relay=ONE_AT_ONCE) as world:
            broadcaster, source = await world.broadcaster()
            said = await source.send("INFO", body=general_error("no encoder"), content_type=CONTENT_TYPE)
            assert said.status == 200
            before = asked(broadcaster)
            _, call = await world.viewer("1002")
            await call.send("INFO", body=PICTURE_FAST_UPDATE, content_type=CONTENT_TYPE)
            await asyncio.sleep(0.1)
            assert asked(broadcaster) == before

    asyncio.run(scenario())


def test_other_info_is_refused_with_what_is_understood(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            _, call = await world.viewer("1002")
            refused = await call.send("INFO", body=b"hello", content_type="application/json")
            assert refused.status == 415 and CONTENT_TYPE in (refused.headers.get("accept") or "")
            broken = await call.send("INFO", body=b"<media_control>", content_type=CONTENT_TYPE)
            assert broken.status == 400 and broken.content_type == CONTENT_TYPE and parse(broken.body) == "error"
            package = await call.send("INFO", headers=[("Info-Package", "foo")])
            assert (package.status, package.headers.get("recv-info")) == (469, "nil")
            assert (await call.send("INFO")).status == 200, "an empty one keeps the call alive"

    asyncio.run(scenario())


def test_only_such_a_document_is_read() -> None:
    assert parse(PICTURE_FAST_UPDATE) == "picture"
    assert parse(general_error("<&")) == "error"
    assert parse(b"<media_control><vc_primitive/></media_control>") == "other"
    assert parse(b"<media_control>picture_fast_update</media_control>") == "other"
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><media_control>&b;</media_control>'
    file = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><media_control>&a;</media_control>'
    for bad in (b"", b"x", b"\xff", b"<other/>", laughs, file, b"<media_control>" + b" " * MAX_BYTES):
        with pytest.raises(MediaControlError):
            parse(bad)
