"""What breaks, and what must hold then: each part is killed as a crash would kill it, while a broadcast runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from live import OnAir, going_live, live_now, watching
from phone import Phone
from server import Server

from dialcast.live import ask

LEG_TIMEOUT = 3.0
GRACE = 6.0
PROBE = 1.0
FAST = {
    "relay.leg_timeout": str(LEG_TIMEOUT),
    "service.reconnect_grace": str(GRACE),
    "service.probe_timeout": str(PROBE),
    "relay.orphan_grace": "10",
}

Enter = Callable[[AbstractContextManager[OnAir]], OnAir]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", settings=FAST) as running:
        yield running


@pytest.fixture
def enter() -> Iterator[Enter]:
    with ExitStack() as stack:
        yield stack.enter_context


def test_a_killed_server_comes_back_with_its_calls_while_media_flows_on(
    server: Server, enter: Enter, tmp_path: Path
) -> None:
    broadcaster = enter(going_live(tmp_path, server, "1001"))
    viewer = enter(watching(tmp_path, server, "1002", "1001"))
    before = viewer.pictures()
    killed = server.kill_part("as")
    at = time.monotonic()
    server.restarted("as", killed)
    live = server.wait("its broadcast again", 5, lambda: live_now(server.data))
    # On a busy machine all takes longer, as its first start did, which was of two parts.
    assert time.monotonic() - at < max(5, server.seconds_to_start)
    assert (live["number"], live["viewers"], live["forwarded"]) == ("1001", ["1002"], True)
    assert viewer.more_pictures_than(before + 30), "the picture never stopped"
    assert ask(server.data, {"command": "stop", "number": "1001", "reason": "Enough"})["ok"]
    assert viewer.event("phone.ended")["reason"] == "Enough"
    assert broadcaster.event("phone.ended")["reason"] == "Enough"
    with watching(tmp_path / "later", server, "1003", "1001", wait=False) as late:
        assert "Not Live" not in late.event("phone.ended", 15)["reason"], (
            "no forwarding is left over: the phone is called"
        )


def test_a_killed_relay_ends_the_calls_with_a_reason(server: Server, enter: Enter, tmp_path: Path) -> None:
    broadcaster = enter(going_live(tmp_path, server, "1001"))
    viewer = enter(watching(tmp_path, server, "1002", "1001"))
    server.kill_part("relay")
    assert viewer.event("phone.ended")["reason"] == "Media relay lost"
    assert broadcaster.event("phone.ended")["reason"] == "Media relay lost"
    assert live_now(server.data) is None
    again = enter(going_live(tmp_path / "again", server, "1001"))
    assert again.event("phone.sending"), "a new broadcast runs on the new relay"


def test_a_broadcaster_who_is_back_within_the_grace_goes_on_for_the_same_viewers(
    server: Server, enter: Enter, tmp_path: Path
) -> None:
    crashed = enter(going_live(tmp_path, server, "1001"))
    viewer = enter(watching(tmp_path, server, "1002", "1001"))
    crashed.kill_all()
    enter(going_live(tmp_path / "again", server, "1001"))
    before = viewer.pictures()
    assert viewer.more_pictures_than(before + 30)
    assert not viewer.all_events("phone.ended")
    live = live_now(server.data)
    assert live is not None
    assert live["viewers"] == ["1002"]
    assert len(server.all_events("broadcast.opening")) == 1, "one broadcast, continued"


def test_a_broadcaster_who_stays_away_is_given_up_after_silence_and_grace(
    server: Server, enter: Enter, tmp_path: Path
) -> None:
    crashed = enter(going_live(tmp_path, server, "1001"))
    viewer = enter(watching(tmp_path, server, "1002", "1001"))
    crashed.kill_all()
    at = time.monotonic()
    assert viewer.event("phone.ended", LEG_TIMEOUT + PROBE + GRACE + 5)["reason"] == "Broadcaster lost"
    assert time.monotonic() - at > GRACE
    assert live_now(server.data) is None


def test_a_killed_viewer_is_gone_within_the_leg_timeout_and_the_others_see_nothing_of_it(
    server: Server, enter: Enter, tmp_path: Path
) -> None:
    enter(going_live(tmp_path, server, "1001"))
    stays = enter(watching(tmp_path / "stays", server, "1002", "1001"))
    crashes = enter(watching(tmp_path / "crashes", server, "1003", "1001"))
    crashes.kill_all()
    before = stays.pictures()

    def alone() -> bool | None:
        live = live_now(server.data)
        return True if live is not None and live["viewers"] == ["1002"] else None

    server.wait("only one viewer left", LEG_TIMEOUT + PROBE + 2, alone)
    assert stays.more_pictures_than(before + 15)


def test_forwarding_that_was_acknowledged_survives_a_kill_right_after(
    server: Server, enter: Enter, tmp_path: Path
) -> None:
    with Phone(tmp_path / "code", server.udp, "1005", "dialcast-1005", "codes", "dial", "*21*1006#") as phone:
        phone.event("phone.code_accepted")
        killed = server.kill_part("as")
    server.restarted("as", killed)
    with Phone(tmp_path / "ask", server.udp, "1005", "dialcast-1005", "codes", "dial", "*#21#") as phone:
        assert "1006" in phone.event("phone.code_accepted")["reason"]
