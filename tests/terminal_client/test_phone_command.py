"""The phone as a command: what a user at a terminal sees of a server that says nothing, and of the help."""

import os
import signal
import socket
import subprocess
import sys
import time

PHONE = (sys.executable, "-m", "dialcast", "phone")


def test_ctrl_c_while_a_silent_server_is_asked_ends_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(20)
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        command = (*PHONE, "watch", "1005", "--number", "1001", "--server", server)
        phone = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert silent.recv(65535).startswith(b"REGISTER")
        pressed = time.monotonic()
        phone.send_signal(signal.SIGINT)
        told, complaint = phone.communicate(timeout=20)
        waited = time.monotonic() - pressed
    assert (phone.returncode, complaint) == (130, b"dialcast phone: interrupted\n")
    assert told.startswith(f"registering 1001 at {server} ...\n".encode())
    assert waited < 4  # a silent server used to be waited for, 15 s


def test_the_help_names_devices_as_the_configuration_does() -> None:
    wide = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run((*PHONE, "answer", "--help"), capture_output=True, text=True, env=wide, check=True).stdout
    for option in ("--microphone", "--speaker"):
        line = next(line for line in shown.splitlines() if option in line)
        assert "`default`" in line and "`device`" not in line
