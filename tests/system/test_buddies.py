"""A stock phone's buddy list shows who is live, with nothing configured but the buddy's number."""

import time
from pathlib import Path

from baresip import Baresip
from server import PASSWORDS, Server


def shows(phone: Baresip, status: str, within: float = 10.0) -> None:
    """Waits until the phone's buddy list says so of its one buddy."""
    deadline = time.monotonic() + within
    while status not in (shown := phone.command("contacts")):
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_a_buddy_list_shows_a_broadcast_begin_and_end(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        buddies = [server.uri("1001")]
        with (
            Baresip(tmp_path / "live", "1001", registrar=server.udp, password=PASSWORDS["1001"]) as live,
            Baresip(
                tmp_path / "friend", "1002", registrar=server.udp, password=PASSWORDS["1002"], buddies=buddies
            ) as friend,
        ):
            live.registered()
            friend.registered()
            shows(friend, "Online")
            live.dial("8888")
            live.established()
            shows(friend, "Busy", 3)
            live.hang_up()
            shows(friend, "Online", 3)
