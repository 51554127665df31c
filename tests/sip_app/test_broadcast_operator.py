"""The operator's door: who may knock, what it tells, what it does, and what it makes of nonsense."""

import asyncio
import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from broadcast_world import BROADCASTER, BroadcastWorld, broadcasting, until

from provisioning.config import OPERATOR_SOCKET
from sip_app.broadcast import ending


async def tell(world: BroadcastWorld, *lines: bytes) -> list[dict[str, Any]]:
    """What the door answers to these lines, until it hangs up or we do."""
    reader, writer = await asyncio.open_unix_connection(world.config.data_path / OPERATOR_SOCKET)
    writer.writelines(lines)
    writer.write_eof()
    answers = await asyncio.wait_for(reader.read(), 4)
    writer.close()
    return [json.loads(line) for line in answers.splitlines()]


def command(**fields: str) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_the_door_is_open_to_its_owner_only_and_gone_with_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / OPERATOR_SOCKET
        async with broadcasting(tmp_path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not path.exists()

    asyncio.run(scenario())


def test_a_door_left_behind_by_a_killed_server_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / OPERATOR_SOCKET).touch()
        async with broadcasting(tmp_path) as world:
            assert await tell(world, command(command="list")) == [{"ok": True, "broadcasts": []}]

    asyncio.run(scenario())


def test_the_list_shows_who_is_live_and_who_watches(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await world.viewer("1003")
            await world.viewer("1002")
            (answer,) = await tell(world, command(command="list"))
            (row,) = answer["broadcasts"]
            assert (row["number"], row["state"], row["forwarded"]) == (BROADCASTER, "live", True)
            assert row["viewers"] == ["1002", "1003"]
            assert row["media"] == ["PCMU/8000", "H264/90000"]

    asyncio.run(scenario())


def test_the_list_tells_whether_any_media_of_the_broadcaster_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone(BROADCASTER)
            answered = await (await phone.dial("8888", body=phone.offer())).answered()
            (answer,) = await tell(world, command(command="list"))
            assert answer["broadcasts"][0]["unheard"] is True
            phone.connect(answered.body)
            phone.video.send()
            await until(lambda: not world.group.unheard)
            (answer,) = await tell(world, command(command="list"))
            assert answer["broadcasts"][0]["unheard"] is False

    asyncio.run(scenario())


def test_stopping_ends_every_call_with_the_operators_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, _ = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            stop = command(command="stop", number=BROADCASTER, reason='Hall "B"\r\nX-Evil: is closed')
            assert await tell(world, stop) == [{"ok": True, "number": BROADCASTER, "viewers": 1}]
            for told in (phone, viewer):
                assert told.ends == ['Q.850;cause=16;text="Hall BX-Evil: is closed"']
            assert await world.nothing_left()
            assert await tell(world, stop) == [{"ok": False, "error": "1001 is not live"}]

    asyncio.run(scenario())


def test_stopping_does_not_wait_for_a_dead_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "BYE_PATIENCE", 0.3)

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            viewer.dead = True
            began = time.monotonic()
            (answer,) = await tell(world, command(command="stop", number=BROADCASTER))
            assert answer["ok"] and time.monotonic() - began < 2
            assert viewer.ends == ['Q.850;cause=16;text="Stopped by the operator"']
            assert await world.nothing_left()

    asyncio.run(scenario())


def test_stopping_a_call_that_has_not_joined_yet_refuses_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, join_timeout=3) as world:
            phone = await world.phone(BROADCASTER)
            call = await phone.announce()
            await call.prack(await call.until(183))
            (answer,) = await tell(world, command(command="stop", number=BROADCASTER))
            assert answer["ok"] and (await call.final()).status == 480
            assert await world.nothing_left()

    asyncio.run(scenario())


NONSENSE = [b"\n", b"hello\n", b"\xff\xfe\n", b"[]\n", b'"list"\n', b"{}\n", b"null\n", b"[" * 4000 + b"\n"]
NONSENSE += [
    b'{"command": ["list"]}\n',
    b'{"command": "stop", "number": {"a": "\\ud800"}}\n',
    b'{"command": "reboot"}\n',
]


@pytest.mark.parametrize("hostile", [b"x" * 100_000, b"\0" * 5000 + b"\n"])
def test_nonsense_is_refused_and_the_door_stays_open(tmp_path: Path, hostile: bytes) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            answers = await tell(world, *NONSENSE)
            assert len(answers) == len(NONSENSE) and not any(answer["ok"] for answer in answers)
            assert await tell(world, hostile) == []
            assert await tell(world, command(command="list")) == [{"ok": True, "broadcasts": []}]

    failures: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: failures.append(context))
        runner.run(scenario())
    assert failures == []


def test_blocks_are_shown_and_lifted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            world.server.guard.block("203.0.113.9", 60, "wrong passwords")
            (shown, lifted, again, none) = await tell(
                world,
                command(command="blocks"),
                command(command="lift", who="203.0.113.9"),
                command(command="lift", who="203.0.113.9"),
                command(command="blocks"),
            )
            assert [(row["who"], row["why"]) for row in shown["blocks"]] == [("203.0.113.9", "wrong passwords")]
            assert lifted == {"ok": True, "who": "203.0.113.9"}
            assert again == {"ok": False, "error": "203.0.113.9 is not blocked"}
            assert none == {"ok": True, "count": 0, "blocks": []}

    asyncio.run(scenario())
