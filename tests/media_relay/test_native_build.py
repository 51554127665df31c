"""The engine in C is there where it can be built; where it cannot, dialcast installs and forwards all the same."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from fuzz.native import build
from media_relay.engine.choice import REMEDY, new_engine
from protocols.control import AddViewer, Event, Hello, LegInfo, LegSpec, MediaSpec, OpenGroup
from protocols.net import Address
from protocols.rtp.packet import RtpPacket
from provisioning.config import Config
from sip_app.broadcast.relay_link import RelayLink

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("dialcast", "sip_app", "media_relay", "terminal_client", "provisioning", "protocols")
HOST = "127.0.0.1"


def test_the_native_engine_was_built_for_every_python_from_3_11_on() -> None:
    try:
        import media_relay.engine._native as native
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip(REMEDY)
    assert native.__file__ is not None
    assert native.__file__.endswith(".abi3.so")
    new_engine("native").close()


def test_engine_under_calls_from_all_sides_while_packets_flow() -> None:
    """AddressSanitizer watches here; `python -m fuzz.native threads` does the same for data races."""
    try:
        program = build.threads("address")
    except build.NoCompiler as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    done = subprocess.run([program, "2"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dialcast as pip installs it where no C compiler works; what it needs is that of the environment we run in."""
    folder = tmp_path_factory.mktemp("install")
    source, site = folder / "source", folder / "site"
    source.mkdir()
    for name in INSTALLED:
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(site), str(source)]
    done = subprocess.run(
        command, env=os.environ | {"CC": "/bin/false"}, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return site


@contextmanager
def relay(site: Path, folder: Path, engine: str) -> Iterator[subprocess.Popen[str]]:
    """`dialcast relay` of that installation, seeing nothing of the sources here."""
    settings = {
        "relay": {"engine": engine, "control_port": 0},
        "operations": {"as_port": 0, "relay_port": 0},
        "data_dir": str(folder / "data"),
    }
    (folder / "dialcast.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "dialcast", "relay", "--log-format", "json", "-c", "dialcast.yaml"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_without_a_compiler_the_plain_engine_forwards(without_compiler: Path, tmp_path: Path) -> None:
    assert not list(without_compiler.rglob("*.so"))
    with relay(without_compiler, tmp_path, "auto") as process:
        said: list[str] = []
        assert process.stderr is not None and process.stdout is not None
        errors = process.stderr
        threading.Thread(target=lambda: said.extend(errors), daemon=True).start()
        ready = re.search(r"control=\S+:(\d+)", process.stdout.readline())
        assert ready is not None, said
        payload = asyncio.run(asyncio.wait_for(forwarded(int(ready[1])), 20))
    assert payload == b"one packet"
    told = {event["event"]: event for event in map(json.loads, said)}
    assert REMEDY in told["relay.plain_engine"]["reason"]
    assert told["relay.started"]["engine"] == "plain"


def test_whoever_insists_on_the_native_engine_is_told_what_to_install(without_compiler: Path, tmp_path: Path) -> None:
    with relay(without_compiler, tmp_path, "native") as process:
        output, errors = process.communicate(timeout=30)
    assert process.returncode
    assert REMEDY in re.sub(r"\s+", " ", output + errors)
    assert "Traceback" not in errors


class NobodyListens:
    """What a relay tells is of no interest here."""

    async def relay_up(self, link: RelayLink) -> None:
        """Nothing to reconcile."""

    def relay_down(self, link: RelayLink) -> None:
        """It is dialled again."""

    def relay_event(self, event: Event) -> None:
        """Not wanted."""


def sound(sock: socket.socket, *, source: bool) -> MediaSpec:
    """PCMU with the peer that this socket is."""
    here = Address(*sock.getsockname())
    return MediaSpec("audio", "PCMU", 0, 8000, not source, source, here, here, rtcp_mux=True)


async def forwarded(control: int) -> bytes:
    """What a viewer got of a broadcaster's packet, sent until it came: the payload."""
    loop = asyncio.get_running_loop()
    link = RelayLink(AsyncioSelectorReactor(loop), Address(HOST, control), Hello("as", 1, ""), Config().control)
    link.start(NobodyListens())
    with socket.socket(type=socket.SOCK_DGRAM) as source, socket.socket(type=socket.SOCK_DGRAM) as viewer:
        for sock in (source, viewer):
            sock.bind((HOST, 0))
            sock.setblocking(False)
        await link.settled.wait()
        opened = await link.call(OpenGroup("g", 1, LegSpec("s", "1", HOST, (sound(source, source=True),))), LegInfo)
        await link.call(AddViewer("g", 1, LegSpec("v", "2", HOST, (sound(viewer, source=False),))), LegInfo)
        to = tuple(opened.media[0].rtp)
        got = loop.sock_recv(viewer, 2048)
        waiting = asyncio.ensure_future(got)
        sequence = 0
        while not waiting.done():
            await loop.sock_sendto(source, RtpPacket(0, sequence, sequence * 160, 7, b"one packet").serialise(), to)
            sequence += 1
            await asyncio.wait([waiting], timeout=0.1)
    await link.stop()
    return bytes(RtpPacket.parse(waiting.result()).payload)


def test_a_descriptor_that_cannot_be_watched_is_named_by_the_kernel_s_own_error(tmp_path: Path) -> None:
    """The call fails on the engine's thread, whose errno is not ours."""
    native = pytest.importorskip("media_relay.engine._native")
    engine = native.Engine(threaded=True)
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        engine.watch(file.fileno())
    engine.close()
