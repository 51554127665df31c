"""A private broadcast watched by our own terminal: it hears the question for the PIN and answers it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from likeness import samples, speech_likeness
from live import going_live
from phone import Phone
from server import Server
from test_spoken_calls import channel, said

PIN = "47110815"


@pytest.fixture(scope="module")
def private(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, with 1001 live and private."""
    channel(server, "pin", "1001", "--pin-stdin", given=f"{PIN}\n")
    with going_live(tmp_path_factory.mktemp("live"), server, "1001"):
        yield server
    channel(server, "open", "1001")


def watching(folder: Path, server: Server, number: str, *more: str, **known: str) -> Phone:
    """A viewer whose speaker is a file."""
    arguments = ("watch", "1001", "--speaker", str(folder / "heard.wav"), *more)
    return Phone(folder, server.address, number, f"dialcast-{number}", *arguments, **known)


def test_the_pin_from_the_environment_opens_it_and_shows_nowhere(private: Server, tmp_path: Path) -> None:
    with watching(tmp_path, private, "1002", "--log-level", "debug", DIALCAST_PIN=PIN) as viewer:
        viewer.event("phone.voice_only", 15, pin_given=True)
        viewer.event("phone.first_picture", 15)
        viewer.type_line("q")
        assert viewer.exited(10) == 0
    assert "receiving" in viewer.output
    assert viewer.report()["media"]["frames_decoded"] > 0
    everything = "\n".join([*viewer.output, *viewer.noise, *map(str, viewer.events), viewer.report_file.read_text()])
    assert "INVITE" in everything, "debug shows messages"
    assert PIN not in everything
    heard = samples(tmp_path / "heard.wav")
    assert speech_likeness(said("pin-enter")[:12000], heard) > 0.8


def test_a_viewer_types_a_wrong_pin_hears_so_and_types_the_right_one(private: Server, tmp_path: Path) -> None:
    private.forget("viewer.wrong_pin")
    with watching(tmp_path, private, "1003", "--receive", "now") as viewer:
        viewer.wait("the hint", 15, lambda: any("asks for a PIN" in line for line in viewer.output) or None)
        viewer.type_line("0000#")
        private.event("viewer.wrong_pin", 10)
        assert not viewer.all_events("phone.first_picture")
        viewer.type_line(f"{PIN}#")
        viewer.event("phone.first_picture", 15)
        viewer.type_line("q")
        assert viewer.exited(10) == 0


def test_who_does_not_know_it_is_refused(private: Server, tmp_path: Path) -> None:
    with watching(tmp_path, private, "1004", "--keys", "1111#,2222#,3333#") as viewer:
        assert viewer.exited(30) == 3
    assert "dialcast phone: Wrong PIN" in viewer.noise
