"""The connected screen in a terminal: what the call is doing, and the choices a user has.

On a tty it is a panel kept up to date and single keys; elsewhere plain lines on stdout and one word a line on stdin, so
that a script can drive it. Keys arrive as their first letter in `keys`, `t` with the text that was typed after it;
digits, `*` and `#` one by one. Digits may be a PIN: what is shown of them is how many there were.
"""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from terminal_client.keypad import KEYS
from terminal_client.sip_text import printable
from terminal_client.streams import MediaStats, Role

CHOICES = {
    "a": "answer",
    "s": "send",
    "r": "receive",
    "c": "switch camera",
    "m": "mute",
    "t": "text",
    "p": "snapshot",
    "q": "hang up",
}
RECENT_LINES = 8
MAX_INPUT = 4096
MAX_BULLETS = 16
MAX_TEXT = 800
"""Bytes of text typed at once; the server takes as many."""
ENTER, RUBOUT, ESCAPE = b"\r\n", b"\x08\x7f", b"\x1b"


class Screen(Protocol):
    """What the phone needs of a screen."""

    keys: asyncio.Queue[str]

    def say(self, text: str) -> None:
        """Tell the user something."""

    def offer(self, keys: str) -> None:
        """Show these choices (letters of CHOICES) from now on."""

    def stats(self, role: Role, stats: MediaStats) -> None:
        """Show how media flows."""


def choices_text(keys: str) -> str:
    """The choices as one line: `[s] send  [q] hang up`."""
    return "  ".join(f"[{key}] {CHOICES[key]}" for key in keys)


def stats_text(role: Role, stats: MediaStats) -> str:
    """The numbers that matter to this role as one line."""
    if role == "broadcast":
        words = [f"{stats.frames_sent} pictures sent", f"{stats.send_kbps:.0f} kbit/s", stats.camera]
        return ", ".join([word for word in words if word] + (["muted"] if stats.muted else []))
    words = [f"{stats.frames_decoded} pictures", f"{stats.frames_lost} lost", f"{stats.receive_kbps:.0f} kbit/s"]
    return ", ".join([*words, f"{stats.fps:.0f} fps", f"sound {stats.playout_ms:.0f} ms behind"])


class TerminalScreen:
    """The screen on this process's stdin and stdout; use as a context manager inside a running loop."""

    def __init__(self, title: str) -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue()
        self._title = title
        self._choices, self._numbers, self._half = "", "", b""
        self._pressed = 0
        """Digits since the last `#`."""
        self._text: bytes | None = None
        """What is being typed."""
        self._recent: deque[str] = deque(maxlen=RECENT_LINES)
        self._stdin = sys.stdin.fileno()
        self._keyboard = sys.stdin.isatty()
        self._saved: list[int | list[bytes | int]] | None = None
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        # A closed stdin, a regular file or /dev/null cannot be watched: then there is nobody to press keys.
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().add_reader(self._stdin, self._typed)
        if self._keyboard:
            self._saved = termios.tcgetattr(self._stdin)
            tty.setcbreak(self._stdin)
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._stdin)
        if self._live:
            self._choices, self._text, self._pressed = "", None, 0  # there is nothing to choose any more
            self._draw()
            self._live.stop()
        if self._saved is not None:
            termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._saved)

    def say(self, text: str) -> None:
        """One more line."""
        text = printable(text)
        self._recent.append(text)
        if self._live is None:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        self._draw()

    def offer(self, keys: str) -> None:
        """The choices, printed again only when they change."""
        text = choices_text(keys)
        if text and text != self._choices and self._live is None:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        self._choices = text
        self._draw()

    def stats(self, role: Role, stats: MediaStats) -> None:
        """The numbers; on a tty only, lines would flood."""
        self._numbers = stats_text(role, stats)
        self._draw()

    def _draw(self) -> None:
        if self._live is None:
            return
        words = [Text(line) for line in self._recent]
        words += [Text(self._numbers, style="cyan")] if self._numbers else []
        typing = self._text is not None and "> " + printable((self._text or b"").decode(errors="ignore"))
        pressed = "  keys " + "\N{BULLET}" * min(self._pressed, MAX_BULLETS) if self._pressed else ""
        below = typing or self._choices + pressed
        body = Group(*words, *([Text(below, style="bold")] if below else []))
        self._live.update(Panel(body, title=self._title, title_align="left"), refresh=True)

    def _typed(self) -> None:
        try:
            data = os.read(self._stdin, MAX_INPUT)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._stdin)
            return
        if self._keyboard:
            words = [word for byte in data if (word := self._key(bytes((byte,))))]
        else:
            *lines, self._half = (self._half + data)[-MAX_INPUT:].split(b"\n")
            words = [line.decode(errors="replace").strip() for line in lines]
        for word in words:
            if word and set(word) <= set(KEYS):
                for key in word:
                    self.keys.put_nowait(key)
                self._pressed = 0 if "#" in word else self._pressed + len(word)
                self._draw()
                continue
            letter, _, text = word.partition(" ")
            letter = letter[:1].lower()
            if letter in CHOICES and (letter != "t" or text):
                self.keys.put_nowait(letter + text if letter == "t" else letter)

    def _key(self, byte: bytes) -> str:
        """What a key on a keyboard means: a choice, part of a text (nothing yet), or the end of the text."""
        if self._text is None:
            if byte.lower() == b"t" and f"[t] {CHOICES['t']}" in self._choices:
                self._text = b""
                self._draw()
                return ""
            return byte.decode("latin-1")
        done = None
        if byte in ENTER or byte == ESCAPE:
            done, self._text = self._text.decode(errors="replace") if byte in ENTER else "", None
        elif byte in RUBOUT:
            self._text = self._text.decode(errors="ignore")[:-1].encode()
        elif byte >= b" " and len(self._text) < MAX_TEXT:
            self._text += byte
        self._draw()
        return f"t {done}" if done else ""
