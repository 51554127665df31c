"""A data directory is one server's, and stopping takes no longer than it may."""

import time
from pathlib import Path

from cluster import ApplicationServer, Relay
from evented import Evented
from server import Server, account

from sipp_scenarios.calls import Call


def test_a_second_server_in_the_same_folder_ends_by_itself_and_leaves_the_first_ones_calls_alone(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as first, Call("go_live", first.address, account("1001"), "8888", hold=60) as live:
        live.answered()
        environment = {"DIALCAST_LOG__FORMAT": "json"}
        with Evented("up", "--sip-port", "0", "--data-dir", str(tmp_path), environment=environment) as second:
            assert second.exited(20) == 2
            assert any("in use by process" in line and str(first.part("as")) in line for line in second.noise)
        time.sleep(0.5)
        assert not first.all_events("broadcast.ended")
        assert not any(message.start_line.startswith("BYE") for message in live.sipp.messages())


def test_a_start_that_fails_ends_no_call_it_found(tmp_path: Path) -> None:
    with Relay(23_000) as relay:
        server = ApplicationServer("as1", "127.0.0.6", "", [relay.control], tmp_path)
        del server.environment["DIALCAST_STORE__URL"]
        settings = server.environment
        with server, Call("go_live", server.address, account("1001"), "8888", hold=60) as live:
            live.answered()
            server.kill_all()
            elsewhere = {"DIALCAST_SIP__BIND": "192.0.2.77", "DIALCAST_SUBSCRIBERS": "[]"}
            with Evented("as", environment=settings | elsewhere) as failing:
                assert failing.exited(20) == 2
            with Evented("as", environment=settings) as again:
                again.event("broadcast.restored", groups=1)
                time.sleep(1)
                assert not again.all_events("broadcast.ended")
                assert not any(message.start_line.startswith("BYE") for message in live.sipp.messages())
