"""Broadcasts between our own terminals for tests: going live, watching, and what the operator sees of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phone import broadcaster, viewer
from server import Server

from dialcast.live import NoServerError, ask


class OnAir:
    """One of our terminals in a broadcast: its events, and whether its picture runs."""

    def __init__(self, phone: Any) -> None:
        self.phone = phone
        self.event = phone.event
        self.all_events = phone.all_events
        self.kill_all = phone.kill_all
        self.type_line = phone.type_line

    def pictures(self) -> int:
        """Pictures decoded so far, by its own count."""
        counts = self.all_events("phone.stats")
        return int(counts[-1]["frames_decoded"]) if counts else 0

    def more_pictures_than(self, count: int, within: float = 8.0) -> bool:
        """Waits until it has decoded more; fails the test when the picture stands still."""
        return bool(self.phone.wait(f"more than {count} pictures", within, lambda: self.pictures() > count or None))


@contextmanager
def going_live(folder: Path, server: Server, number: str, **more: str) -> Iterator[OnAir]:
    """A terminal of ours that sends a test picture and has its forwarding set."""
    options = {"clip": "synthetic", "voice": "synthetic", **more}
    with broadcaster(folder / f"live-{number}", server.udp, number, **options) as phone:
        phone.event("phone.cfu_activated")
        phone.event("phone.sending")
        yield OnAir(phone)


@contextmanager
def watching(folder: Path, server: Server, number: str, channel: str, *, wait: bool = True) -> Iterator[OnAir]:
    """A terminal of ours that calls the channel; with `wait` its picture is there."""
    with viewer(folder / f"watch-{number}", server.udp, number, channel) as phone:
        if wait:
            phone.event("phone.live")
        yield OnAir(phone)


def live_now(data: Path) -> dict[str, Any] | None:
    """The one broadcast the operator sees that is not about to end, or None (also while no server is up)."""
    try:
        broadcasts = ask(data, {"command": "list"})["broadcasts"]
    except NoServerError:
        return None
    standing = [broadcast for broadcast in broadcasts if broadcast["state"] != "closing"]
    assert len(standing) <= 1
    return standing[0] if standing else None
