"""A stock phone's buddy list shows who is live, with nothing configured but the buddy's number."""

from pathlib import Path

from baresip import Baresip
from server import PASSWORDS, Server


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
            live.dial("8888")
            live.established()
            friend.wait_for_log(r"sip:1001@\S+> changed status from \S*Online\S* to \S*Busy", 10)
            live.hang_up()
            friend.wait_for_log(r"sip:1001@\S+> changed status from \S*Busy\S* to \S*Online", 10)
