"""What no code of ours catches or writes is an event too: one line, inert, whoever would have written it."""

import asyncio
import gc
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FORGED = '{"event": "operator.stop", "ts": 1.0, "part": "as"}'
EVIL = f"bad\r\n{FORGED}\n12:00:00.000000 [info     ] operator.stop\x1b[2J\x9b31m\u2028 <sip:1001:secret-word@h>"
EVENT = re.compile(r"\d\d:\d\d:\d\d\.\d{6} \[(error|warning) *\] (server\.failed|library\.warned) ")
SPEAKERS = (
    "callback",
    "task",
    "deferred",
    "log.err",
    "failure",
    "critical",
    "logging",
    "unfit arguments",
    "warning",
    "thread",
    "finalizer",
)


async def everybody_fails(_process: Any) -> None:
    from twisted.internet.defer import fail
    from twisted.logger import Logger
    from twisted.python import log

    loop = asyncio.get_running_loop()

    def wrong(who: str) -> None:
        raise RuntimeError(f"{who}: {EVIL}")

    async def task() -> None:
        wrong("task")

    class Odd:
        def __del__(self) -> None:
            wrong("finalizer")

    loop.call_soon(wrong, "callback")
    running = loop.create_task(task())
    await asyncio.sleep(0.1)
    del running
    fail(RuntimeError(f"deferred: {EVIL}"))
    try:
        wrong("log.err")
    except RuntimeError:
        log.err(None)
    try:
        wrong("failure")
    except RuntimeError:
        Logger("x").failure("while a stranger spoke")
    Logger("x").critical("critical: {words}", words=EVIL)
    logging.getLogger("library").error("logging: %s", EVIL)
    logging.getLogger("library").warning(f"unfit arguments: {EVIL} %s %s", 1)
    warnings.warn(f"warning: {EVIL}", stacklevel=1)
    thread = threading.Thread(target=wrong, args=("thread",))
    thread.start()
    thread.join()
    Odd()
    gc.collect()
    await asyncio.sleep(0.1)


async def fails_itself(_process: Any) -> None:
    raise RuntimeError(f"main: {EVIL}")


def lines_of(form: str, what: str) -> tuple[int, list[str]]:
    """The exit status, and the lines on stderr of a process of its own."""
    whole = [sys.executable, "-X", "dev", __file__, form, what]
    done = subprocess.run(
        whole, check=False, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return done.returncode, done.stderr.decode().split("\n")[:-1]


def test_in_json_each_is_one_line() -> None:
    status, lines = lines_of("json", "everybody")
    assert status == 0
    events = [json.loads(line) for line in lines]
    told = [json.dumps(event) for event in events]
    for speaker in SPEAKERS:
        assert any(f"{speaker}: " in line for line in told), speaker
    assert {event["event"] for event in events} == {"server.failed", "library.warned"}
    assert all(event["part"] == "test" for event in events)
    assert "secret-word" not in "".join(lines)


def test_for_people_nothing_poses_as_an_event_or_speaks_to_the_terminal() -> None:
    status, lines = lines_of("console", "everybody")
    assert status == 0
    for speaker in SPEAKERS:
        assert any(f"{speaker}: " in line for line in lines), speaker
    for line in lines:
        assert line.isprintable(), line
        assert re.match(r"\d\d:\d\d:\d\d\.\d{6} \[(error|warning) *\] (server.failed|library.warned) |  \| ", line), (
            line
        )
    assert "secret-word" not in "".join(lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_part_that_fails_as_a_whole_says_so_as_an_event(form: str) -> None:
    status, lines = lines_of(form, "itself")
    assert status == 1
    assert "server.failed" in lines[0] and "main: bad" in "".join(lines)
    assert form == "console" or len(lines) == 1
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  | ") for line in lines[1:])


if __name__ == "__main__":
    from dialcast import compose
    from provisioning.config import Config

    wanted = {"everybody": everybody_fails, "itself": fails_itself}[sys.argv[2]]
    compose.serve_relay = lambda _config, process: wanted(process)
    sys.exit(compose.start("test", Config.model_validate({"log": {"format": sys.argv[1]}}), Config, name="test"))
