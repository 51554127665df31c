"""The connected screen where there is no terminal: lines out, words in."""

import asyncio
import os
import sys

import pytest

from terminal_client.screen import TerminalScreen, choices_text, stats_text
from terminal_client.streams import MediaStats


def pressed(monkeypatch: pytest.MonkeyPatch, *chunks: bytes) -> str:
    """The keys that a screen reads from these pieces of stdin."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        async def story() -> str:
            keys = ""
            with TerminalScreen("test") as screen:
                for chunk in chunks:
                    os.write(write_end, chunk)
                    await asyncio.sleep(0.01)
                os.close(write_end)
                await asyncio.sleep(0.01)
                while not screen.keys.empty():
                    keys += screen.keys.get_nowait()
            return keys

        return asyncio.run(story())


def test_lines_are_keys_by_their_first_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pressed(monkeypatch, b"send\nR\nq\n") == "srq"


def test_a_line_may_come_in_pieces_and_what_is_no_choice_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pressed(monkeypatch, b"\n??\nmu", b"te\nc", b"\n", b"\xff\xfe\n") == "mc"


def test_endless_input_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pressed(monkeypatch, *[b"x" * 4000] * 20, b"\nq\n") == "q"


def test_without_a_terminal_every_word_is_a_line_and_choices_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = TerminalScreen.__new__(TerminalScreen)
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        screen = TerminalScreen("test")
    screen.say("connected")
    screen.offer("sq")
    screen.offer("sq")
    assert capsys.readouterr().out == "connected\n[s] send  [q] hang up\n"


def test_the_numbers_suit_the_role() -> None:
    assert choices_text("rpq") == "[r] receive  [p] snapshot  [q] hang up"
    sending = stats_text("broadcast", MediaStats(frames_sent=9, send_kbps=480.4, camera="clip.mp4", muted=True))
    assert sending == "9 pictures sent, 480 kbit/s, clip.mp4, muted"
    assert "2 lost" in stats_text("watch", MediaStats(frames_lost=2))


def test_a_line_of_digits_is_pressed_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pressed(monkeypatch, b"4711#\n*0\n47a\nq\n") == "4711#*0q"


def test_a_line_that_begins_with_t_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pressed(monkeypatch, b"t Hello  there\nt\ntext\nq\n") == "tHello  thereq"


def test_on_a_keyboard_t_begins_a_text_that_enter_sends_and_escape_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        async def story() -> list[str]:
            with TerminalScreen("test") as screen:
                os.write(ours, b"t")
                await asyncio.sleep(0.02)
                assert screen.keys.empty(), "not offered yet"
                screen.offer("tq")
                for typed in (b"tno\x1b", b"tqu\x7f\x7fHi \xc3\xa9\xc3\xbc\x7f!", b"\r", b"t\rq"):
                    os.write(ours, typed)
                    await asyncio.sleep(0.02)
                return [screen.keys.get_nowait() for _ in range(screen.keys.qsize())]

        assert asyncio.run(story()) == ["tHi é!", "q"]
    os.close(ours)
