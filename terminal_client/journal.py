"""What the phone did, as structured events on stderr: JSON lines for scripts, aligned words for people.

Every event has `ts` (Unix seconds), `mono` (CLOCK_MONOTONIC, comparable between processes of one machine), a name
such as `phone.answered`, and its own fields. Never a password.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from terminal_client.sip_text import printable

LEVELS = ("debug", "info", "warning", "error")
Level = Literal["debug", "info", "warning", "error"]
Value = str | int | float | bool | None


def _stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Journal:
    """Writes events at or above its level."""

    form: Literal["json", "console"] = "console"
    level: Level = "warning"
    write: Callable[[str], None] = field(default=_stderr, repr=False)

    def event(self, name: str, level: Level = "info", *, mono: float | None = None, **fields: Value) -> None:
        """Note an event; `mono` is when it happened, now if not given."""
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        now = time.monotonic()
        at = now if mono is None else mono
        wall = time.time() - (now - at)
        if self.form == "json":
            self.write(json.dumps({"event": name, "level": level, "ts": wall, "mono": at, **fields}))
        else:
            told = " ".join(f"{key}={value}" for key, value in fields.items())
            at_clock = time.strftime("%H:%M:%S", time.localtime(wall))
            self.write(printable(f"{at_clock} {level:7} {name} {told}".rstrip()))
