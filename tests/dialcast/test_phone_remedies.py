"""What `dialcast phone` finds by itself, and what it advises when it is refused, against a server of its own."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DIALCAST = (sys.executable, "-m", "dialcast")


def told(*words: str) -> tuple[int, str]:
    """Exit status and complaint of the phone."""
    done = subprocess.run((*DIALCAST, "phone", *words), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a running server, at a port that only the configuration names."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = folder / "dialcast.yaml"
    none = "{as_port: null, relay_port: null}"
    file.write_text(f"data_dir: {folder}\nsip: {{port: {port}}}\nxcap: {{port: null}}\noperations: {none}\n")
    command = (*DIALCAST, "up", "-c", str(file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"ready")
        yield file
        server.terminate()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["watch", "1005"], "1005 is not live and no phone of it is registered"),
        (["codes", "dial", "hello"], "`dialcast phone codes list`"),
        (["codes", "dial", "*99#"], "`dialcast phone codes list`"),
    ],
)
def test_the_phone_finds_the_server_of_its_file_and_a_refusal_names_its_remedy(
    config: Path, words: list[str], remedy: str
) -> None:
    status, complaint = told("-c", str(config), *words, "--number", "1002")
    assert status == 3
    assert remedy in complaint
    assert len(complaint.splitlines()) == 1


def test_a_server_that_does_not_answer_is_told_with_how_to_name_another(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        file = tmp_path / "dialcast.yaml"
        file.write_text(f"sip: {{port: {silent.getsockname()[1]}}}\n")
        status, complaint = told("-c", str(file), "watch", "1005", "--number", "1002")
        assert silent.recv(65535).startswith(b"REGISTER")
    assert status == 3
    assert "--server or terminal.server names another" in complaint
