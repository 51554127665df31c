"""Ctrl-C at any moment of any command: status 130, and nobody sees the inside of a library."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DIALCAST = (sys.executable, "-m", "dialcast")


def loaded(process: subprocess.Popen[bytes], library: str) -> None:
    """Wait until it has this library: it is then in the midst of loading others."""
    until = time.monotonic() + 20
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None and time.monotonic() < until, f"{library} is never loaded"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("command", "library"),
    [
        ("up", "_asyncio"),
        ("as", "pydantic_core"),
        ("as", "_zope_interface"),
        ("relay", "_zope_interface"),
        ("phone watch 1001 --number 1002 --server 127.0.0.1:9", "cv2"),
        ("demo", "numpy"),
        ("subscriber list", "_ssl"),
        ("calls", "pydantic_core"),
    ],
)
def test_an_interrupt_while_libraries_are_loaded_is_silent(command: str, library: str, tmp_path: Path) -> None:
    environment = os.environ | {"DIALCAST_DATA_DIR": str(tmp_path), "DIALCAST_SIP__PORT": "0"}
    process = subprocess.Popen(
        (*DIALCAST, *command.split()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    loaded(process, library)
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=20), process.returncode) == (b"", b"", 130)


@pytest.mark.parametrize("command", ["subscriber add 1010", "phone watch 1001 --number 1002 --pin"])
def test_an_interrupt_at_a_question_is_an_interrupt(command: str, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["DIALCAST_DATA_DIR"] = str(tmp_path)
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, [*DIALCAST, *command.split()])
    shown = b""
    while not shown.rstrip().endswith(b":"):
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # the terminal's other side is closed
        while more := os.read(terminal, 4096):
            shown += more
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"Traceback" not in shown
    os.close(terminal)
