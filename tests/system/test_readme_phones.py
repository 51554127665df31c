"""Stock phones set up with the README's own lines, word by word: what they send is taken."""

import os
import re
import subprocess
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server import Server

README = (Path(__file__).parents[2] / "README.md").read_text()
OURS = "127.0.0.1:5060"
"""The server as the README has it."""


def blocks(phone: str) -> list[str]:
    """The indented blocks of the paragraphs on a phone."""
    text = README.partition(f"\n*{phone}*")[2].partition("\n*")[0].partition("\nDebian's")[0]
    return [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", text)]


@contextmanager
def running(command: list[str], home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | {"HOME": str(home)}
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=home) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_baresip_as_the_readme_sets_it_up_is_live_and_its_media_is_taken(server: Server, tmp_path: Path) -> None:
    with running(["baresip", "-f", str(tmp_path), "-t", "1"], tmp_path):  # the first start writes its settings
        settled = time.monotonic() + 10
        while not ((tmp_path / "config").exists() and (tmp_path / "accounts").exists()):
            assert time.monotonic() < settled, (tmp_path / "log").read_text()
            time.sleep(0.1)
    listen, account, silent = blocks("baresip")
    config = (tmp_path / "config").read_text()
    for module in ("avcodec", "amr", "ausine", "fakevideo"):
        config, found = re.subn(rf"(?m)^#(module\s+{module}\.so)", r"\1", config)
        assert found == 1, module
    for begin in (r"module\s+alsa\.so", "audio_source", "audio_player", "audio_alert", "video_source", "video_display"):
        config = re.sub(rf"(?m)^({begin})", r"#\1", config)
    (tmp_path / "config").write_text(config + listen + silent)
    (tmp_path / "accounts").write_text(account.replace(OURS, server.udp))
    server.forget("broadcast.media_started")
    with running(["baresip", "-f", str(tmp_path), "-e", "d 8888"], tmp_path):
        server.event("broadcast.media_started", 15, channel="1003@dialcast.internal", kind="audio")


def test_linphonec_without_a_sound_card_sends_what_it_plays(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".local/share/linphone").mkdir(parents=True)
    with wave.open(str(tmp_path / "voice.wav"), "wb") as voice:
        voice.setparams((1, 2, 8000, 0, "NONE", ""))
        voice.writeframes(bytes(2 * 8000 * 10))
    (session,) = blocks("Linphone")
    register, call = re.findall(r"linphonec> (.*)", session)
    assert "`soundcard use files`" in README and "`play FILE.wav`" in README
    register = register.replace(OURS, server.udp).replace("1003", "1004")  # 1003 may be live yet
    words = ["soundcard use files", register, f"play {tmp_path / 'voice.wav'}", call]
    server.forget("broadcast.media_started")
    with running(["linphonec", "-d", "0"], tmp_path) as phone:
        assert phone.stdin is not None
        time.sleep(3)  # what comes before it has read its settings is lost
        for word in words:
            phone.stdin.write(f"{word}\n".encode())
            phone.stdin.flush()
            time.sleep(1)
        server.event("broadcast.media_started", 15, channel="1004@dialcast.internal", kind="audio")
        phone.stdin.write(b"terminate\nquit\n")
        phone.stdin.flush()
        phone.wait(15)
