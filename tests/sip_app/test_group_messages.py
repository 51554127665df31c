"""Text within a broadcast: viewers ask the broadcaster, the broadcaster answers all."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, MediaPhone, broadcasting, until
from ua import DOMAIN, Call
from watching import Watch, ask

from protocols.sip.message import Request, Response
from protocols.text_message import TextError, charset, clean

TEXT = "text/plain"


def texts(phone: MediaPhone) -> list[Request]:
    return [request for request, _ in phone.heard if request.method == "MESSAGE"]


async def say(phone: MediaPhone, number: str, text: str | bytes, content_type: str = TEXT) -> Response:
    """A MESSAGE outside dialogs."""
    body = text if isinstance(text, bytes) else text.encode()
    return await phone.request("MESSAGE", f"sip:{number}@{DOMAIN}", body=body, content_type=content_type)


async def say_in(call: Call, text: str | bytes, content_type: str = TEXT) -> Response:
    """A MESSAGE in the call."""
    body = text if isinstance(text, bytes) else text.encode()
    return await call.send("MESSAGE", body=body, content_type=content_type)


def test_a_question_reaches_the_broadcaster_from_whoever_asked_and_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            viewer, call = await world.viewer("1002")
            other, _ = await world.viewer("1003")
            assert (await say_in(call, "Where are you? 在哪里")).status == 202
            assert (await say(viewer, BROADCASTER, "second")).status == 202
            await until(lambda: len(texts(broadcaster)) == 2)
            for message, text in zip(texts(broadcaster), ("Where are you? 在哪里", "second"), strict=True):
                assert message.body.decode() == text and message.content_type == TEXT
                assert message.from_.sip_uri.user == "1002", "the phone shows who asks"
                assert "proxy-authorization" not in message.headers
            assert not texts(other) and not texts(viewer)

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["in the call", BROADCASTER, "8888"])
def test_the_broadcaster_answers_all_viewers_in_their_calls(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, call = await world.broadcaster()
            views = [await world.viewer(number) for number in ("1002", "1003")]
            said = await (say_in(call, "Hello all") if way == "in the call" else say(broadcaster, way, "Hello all"))
            assert said.status == 202
            for viewer, view in views:
                await until(lambda phone=viewer: bool(texts(phone)))
                [message] = texts(viewer)
                assert message.body == b"Hello all"
                assert view.dialog is not None and message.call_id == view.dialog.call_id
                assert message.from_.tag == view.dialog.remote_tag
            assert not texts(broadcaster)

    asyncio.run(scenario())


def test_answers_are_paced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"messages": {"rate": 10}}) as world:
            _, call = await world.broadcaster()
            views = [await world.viewer(number) for number in ("1002", "1003", "1004")]
            await say_in(call, "Hello")
            await until(lambda: all(texts(viewer) for viewer, _ in views))
            times = sorted(at for viewer, _ in views for request, at in viewer.heard if request.method == "MESSAGE")
            assert times[-1] - times[0] > 0.15

    asyncio.run(scenario())


def test_messages_outside_broadcasts_go_to_the_phones_as_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            stranger, friend = await world.phone("1004"), await world.phone("1005")
            assert (await say(stranger, "1005", "\x1b[2Jraw")).status == 200, "the phone itself answers"
            assert texts(friend)[0].body == b"\x1b[2Jraw", "what others say to each other is not ours to change"
            assert (await say(stranger, BROADCASTER, "hi")).status == 200
            assert texts(broadcaster)[0].body == b"hi"
            assert (await say(stranger, "8888", "hi")).status == 405

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"x" * 801, TEXT, 413),
        (b"hello", "message/cpim", 415),
        (b"hello", "text/html", 415),
        (b"hello", "text/plain;charset=utf-16", 415),
        (b"\xff\xfe", TEXT, 415),
        (b"\x07\x00", TEXT, 415),
        (b"", TEXT, 415),
    ],
)
def test_what_is_no_short_text_is_refused(tmp_path: Path, body: bytes, content_type: str, status: int) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            refused = await say_in(call, body, content_type)
            assert refused.status == status
            if status == 415:
                assert refused.headers.get("accept") == TEXT
            await asyncio.sleep(0.05)
            assert not texts(broadcaster)

    asyncio.run(scenario())


def test_nobody_can_drive_anothers_terminal_or_turn_its_text_round(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            await say_in(call, "\x1b]0;owned\x07a\u202eb\r\nc\td")
            await until(lambda: bool(texts(broadcaster)))
            assert texts(broadcaster)[0].body == b"]0;ownedab\nc d"

    asyncio.run(scenario())


def test_one_who_talks_too_much_is_told_when_to_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"messages": {"per_minute": 2}}) as world:
            await world.broadcaster()
            viewer, call = await world.viewer("1002")
            _, other = await world.viewer("1003")
            assert [(await say_in(call, "x")).status for _ in range(2)] == [202, 202]
            refused = await say(viewer, BROADCASTER, "x")
            assert refused.status == 480 and 25 <= int(refused.headers.get("retry-after") or "") <= 30
            assert (await say_in(other, "x")).status == 202

    asyncio.run(scenario())


def test_a_broadcaster_without_registration_gets_questions_in_its_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            await broadcaster.register(expires=0)
            await say_in(call, "still there?")
            await until(lambda: bool(texts(broadcaster)))
            assert texts(broadcaster)[0].to.tag, "in the dialog"

    asyncio.run(scenario())


def test_a_stranger_asks_as_nobody_whatever_name_it_claims(tmp_path: Path) -> None:
    """Its From was never checked: the broadcaster must not take it for 1005."""

    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"services": [{"number": "8888", "viewers": "everyone"}]}) as world:
            broadcaster, _ = await world.broadcaster()
            guest = MediaPhone(world.address, "1005", on_heard=lambda *_: None)
            await guest.open()
            world.phones.append(guest)
            call = Call(guest, guest.start(guest.build("INVITE", f"sip:{BROADCASTER}@{DOMAIN}", body=guest.offer())))
            call.responses = guest.waiting[call.tx]
            await call.answered()
            assert (await say_in(call, "it is me, 1005")).status == 202
            await until(lambda: bool(texts(broadcaster)))
            assert str(texts(broadcaster)[0].from_.uri) == "sip:anonymous@anonymous.invalid"
            request, response = await ask(broadcaster, BROADCASTER, "conference")
            roster = (await Watch(broadcaster, "conference", request, response).told()).body.decode()
            assert "<user-count>2</user-count>" in roster and "1005" not in roster and ">Guest<" in roster

    asyncio.run(scenario())


def test_text_is_read_strictly() -> None:
    assert charset("text/plain") == "utf-8"
    assert charset('text/plain; Charset="UTF-8"') == "utf-8"
    assert clean("👨‍👩‍👧 ok".encode()) == "👨‍👩‍👧 ok", "joined emoji stay joined"
    for bad in (b"", b" \r\n", b"\x00\x1b", b"\xc3"):
        with pytest.raises(TextError):
            clean(bad)
