"""Runs `dialcast phone broadcast` and `dialcast phone watch` for a test, and reads their events and reports."""

import json
from pathlib import Path
from typing import Any

from evented import Evented


class Phone(Evented):
    """One of our own terminals as a process of its own; use it as a context manager."""

    def __init__(self, folder: Path, server: str, number: str, password: str, *arguments: str, **known: str) -> None:
        """`arguments` as on the command line: ("broadcast", "--camera", ...) or ("watch", "1001", ...).

        `known` is its environment.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.number = number
        self.report_file = folder / "report.json"
        self.recording = folder / "recording.mp4"
        self.picture = folder / "snapshot.png"
        super().__init__(
            "phone",
            *arguments,
            *("--server", server, "--number", number, "--log-format", "json"),
            *("--report", str(self.report_file)),
            environment={"DIALCAST_PASSWORD": password, **known},
        )

    def report(self) -> dict[str, Any]:
        """The report it wrote at the end of its call."""
        content: dict[str, Any] = json.loads(self.report_file.read_text())
        return content


def broadcaster(folder: Path, server: str, number: str, *, clip: Path | str, voice: Path | str, **more: str) -> Phone:
    """A phone that goes live at once with this clip and voice; `more` are further options by name."""
    options = {"camera": str(clip), "microphone": str(voice), "send": "now", **more}
    return Phone(folder, server, number, f"dialcast-{number}", "broadcast", *_flags(options))


def viewer(folder: Path, server: str, number: str, channel: str, **more: str) -> Phone:
    """A phone that calls `channel` and receives at once, recording what it sees and hears."""
    options = {"receive": "now", "record": str(folder / "recording.mp4"), **more}
    return Phone(folder, server, number, f"dialcast-{number}", "watch", channel, *_flags(options))


def _flags(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
