"""Whatever bytes a stranger sends, an event stays one line, and nothing in it speaks to the operator's terminal."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog
from ua import DOMAIN, running

from dialcast.logs import configure
from provisioning.config import LogConfig

ROOT = Path(__file__).parents[2]
FORGED = "12:00:00.000000 [info     ] operator.stop channel=1002"
EVIL = (
    b"\x1b[2J\x1b]0;owned\x07",
    b"\x9b31m",
    b"\x00\x08\x7f",
    "\u2028\u202e\u0085".encode(),
    b"\xff\xfe\xc0",
    b"\r\n " + FORGED.encode(),
)


def messages(host: str, port: int, nonce: str) -> list[bytes]:
    """Requests and rubbish with each evil string wherever a parser might let it through into the log."""
    found = []
    for number, evil in enumerate(EVIL):
        for place in ("method", "uri", "from", "to", "call-id", "user", "agent", "branch", "contact"):

            def put(name: str, place: str = place, evil: bytes = evil) -> bytes:
                return evil if name == place else b""

            lines = [
                b"REGISTER" + put("method") + f" sip:{DOMAIN}".encode() + put("uri") + b" SIP/2.0",
                f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{number}{place}".encode() + put("branch"),
                b'From: "A' + put("from") + f'" <sip:1001@{DOMAIN}>;tag=1'.encode(),
                b"To: <sip:1001" + put("to") + f"@{DOMAIN}>".encode(),
                b"Call-ID: " + put("call-id") + f"{number}{place}".encode(),
                b"CSeq: 1 REGISTER",
                b"User-Agent: x" + put("agent"),
                b"Contact: <sip:1001@127.0.0.1:9>;x=" + put("contact") + b"y",
                b'Authorization: Digest username="1001' + put("user")
                + f'", realm="{DOMAIN}", nonce="{nonce}", uri="sip:{DOMAIN}", response="{"0" * 32}"'.encode(),
            ]  # fmt: skip
            found.append(b"\r\n".join([*lines, b"Content-Length: 0", b"", b""]))
        found.append(b"SIP/2.0 200 " + evil + b"\r\n\r\n" + evil)
        found.append(evil * 20)
    return found


async def talk(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    async with running(folder) as world:
        wire, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=tuple(world.address))
        nonce = world.server._identity._nonces.issue(time.time(), "127.0.0.1")  # with another nobody would be judged
        for data in messages(*wire.get_extra_info("sockname")[:2], nonce):
            wire.sendto(data)
        for _ in range(200):  # a busy machine takes its time
            await asyncio.sleep(0.1)
            if world.server.endpoint.transactions >= 30:
                break
        await asyncio.sleep(0.3)
        wire.close()


@pytest.mark.parametrize("form", ["console", "json"])
def test_one_event_is_one_line_of_plain_text(tmp_path: Path, form: str) -> None:
    # In a process of its own: loggers, once made, keep the stream they were made for.
    whole = [sys.executable, __file__, form, str(tmp_path)]
    done = subprocess.run(
        whole, check=True, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    lines = done.stderr.decode().split("\n")[:-1]
    assert len(lines) > 20, "the messages were worth a line"
    for line in lines:
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["event"]
        else:
            assert re.match(r"\d\d:\d\d:\d\d\.\d{6} \[\w+ *\] \S", line)
            assert not line.startswith(FORGED)


def test_words_of_a_stranger_in_an_exception_cannot_pose_as_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        configure(LogConfig(format="console"), "test")
        try:
            raise ValueError(f"no such method: X\n{FORGED}\x1b[2J")
        except ValueError:
            structlog.get_logger().exception("server.failed")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    first, *block = capsys.readouterr().err.rstrip("\n").split("\n")
    assert "server.failed" in first and len(block) > 3
    assert all(line.startswith("  | ") and line.isprintable() for line in block)


if __name__ == "__main__":
    configure(LogConfig.model_validate({"format": sys.argv[1], "level": "debug"}), "test")
    asyncio.run(talk(Path(sys.argv[2])))
