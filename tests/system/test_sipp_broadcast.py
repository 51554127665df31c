"""The whole mission with SIPp in place of the broadcaster's and the viewers' phones."""

import time
from pathlib import Path

import phone
from likeness import loudness, picture_likeness, samples, speech_likeness
from server import Server, account

from dialcast.footage import Footage
from sipp_scenarios.calls import Call, dial_code
from sipp_scenarios.sipp import Sipp


def broadcaster(server: Server, footage: Footage, number: str = "1001", hold: float = 30) -> Call:
    """A stock phone that shows `bikes` and tells a story."""
    server.forget("broadcast.forwarded")
    clip, voice = footage.clips["bikes"], footage.voices[0]
    return Call("go_live", server.address, account(number), "8888", hold=hold, clip=clip, voice=voice)


def forwarded(server: Server) -> None:
    """Waits until the number forwards to the service: a stock phone dials no code, so the server does it."""
    server.event("broadcast.forwarded", 8, channel="1001@dialcast.internal")


def test_one_phone_is_live_and_another_that_calls_it_sees_and_hears_it(server: Server, footage: Footage) -> None:
    with broadcaster(server, footage, hold=9) as live:
        live.answered()
        forwarded(server)
        with Call("watch", server.address, account("1002"), "1001", hold=4) as watching:
            answer = watching.answered()
            seen = watching.finished()
            pictures = watching.media.pictures()
            heard = samples(watching.media.sound(watching.answer["audio"]))
            received = watching.media.received
        live.finished()
    diverted = next(m for m in seen if m.start_line.startswith("SIP/2.0 181"))
    assert diverted.header("To") == answer.header("To"), "one dialog, so one tag"
    assert "isfocus" in answer.header("Contact")
    assert received["video"].lost() == received["audio"].lost() == 0
    assert len(received["video"].sources()) == 1
    assert len(pictures) > 50
    assert picture_likeness(pictures[0], footage.clips["bikes"]) > 28
    assert picture_likeness(pictures[-1], footage.clips["bikes"]) > 28
    assert loudness(heard) > 0.005
    assert speech_likeness(heard, samples(footage.voices[0])) > 0.8


def test_when_the_broadcaster_hangs_up_the_viewer_is_told_and_the_number_is_not_live(
    server: Server, footage: Footage
) -> None:
    with broadcaster(server, footage, hold=3) as live:
        live.answered()
        forwarded(server)
        with Call("watch", server.address, account("1002"), "1001", hold=20) as watching:
            watching.answered()
            live.finished()
            bye = watching.sipp.received("BYE", 5)
            watching.finished(5)
    assert bye.header("Reason") == 'Q.850;cause=16;text="Broadcast ended"'
    with Sipp("watch", server.address, [(account("1002"), "1001")]) as late:
        assert late.received("SIP/2.0 480")


def test_nothing_is_played_before_the_phone_has_taken_the_answer(server: Server, footage: Footage) -> None:
    """baresip drops what comes before its 200, which would be the keyframe, and asks for no other."""
    with broadcaster(server, footage, hold=5) as live:
        live.answered()
        forwarded(server)
        with Call("watch", server.address, account("1002"), "1001", hold=1) as watching:
            watching.answered()
            taken = next(
                m.at for m in watching.finished() if m.sent and m.start_line.startswith("ACK") and "2 ACK" in m.text
            )
            monotonic = taken - time.time() + time.monotonic()
            for received in watching.media.received.values():
                assert received.packets[0][0] > monotonic
                assert received.packets[0][0] < monotonic + 0.5
        live.finished()


def test_two_viewers_do_not_disturb_each_other(server: Server, footage: Footage) -> None:
    with broadcaster(server, footage, hold=7) as live:
        live.answered()
        forwarded(server)
        with (
            Call("watch", server.address, account("1002"), "1001", hold=3) as one,
            Call("watch", server.address, account("1003"), "1001", hold=3) as other,
        ):
            for watching in (one, other):
                watching.answered()
            for watching in (one, other):
                watching.finished()
                assert watching.media.received["video"].lost() == 0
                assert len(watching.media.pictures()) > 30
        live.finished()


def test_our_phone_watches_a_stock_phone(server: Server, footage: Footage, tmp_path: Path) -> None:
    with broadcaster(server, footage, hold=12) as live:
        live.answered()
        forwarded(server)
        with phone.viewer(tmp_path / "viewer", server.address, "1002", "1001", duration="5") as viewer:
            assert viewer.exited(20) == 0
        live.finished()
    media = viewer.report()["media"]
    assert media["frames_decoded"] > 50
    assert media["frames_lost"] == 0
    assert speech_likeness(samples(viewer.recording)[8000:-8000], samples(footage.voices[0])) > 0.8


def test_a_stock_phone_watches_our_phone(server: Server, footage: Footage, tmp_path: Path) -> None:
    clip, voice = footage.clips["bikes"], footage.voices[1]
    with phone.broadcaster(tmp_path / "live", server.address, "1001", clip=clip, voice=voice, size="640x272") as live:
        live.event("phone.sending", 15)
        with Call("watch", server.address, account("1002"), "1001", hold=5) as watching:
            watching.answered()
            watching.finished()
            pictures = watching.media.pictures()
            heard = samples(watching.media.sound(watching.answer["audio"]))
        assert live.stop() == 0
    assert len(pictures) > 50
    assert speech_likeness(heard, samples(voice)) > 0.8


def test_the_broadcasters_own_forwarding_is_the_same_after_the_broadcast(server: Server, footage: Footage) -> None:
    dial_code(server.address, account("1001"), "*21*1005#")
    with broadcaster(server, footage, hold=3) as live:
        live.answered()
        live.finished()
    said = dial_code(server.address, account("1001"), "##21#")
    assert "Forwarding to 1005 erased" in next(m for m in said if m.start_line.startswith("BYE")).header("Reason")


def test_it_is_all_the_same_over_ipv6(footage: Footage, tmp_path: Path) -> None:
    with Server(tmp_path / "data", bind="::1") as server:
        assert server.address.startswith("[::1]:")
        with broadcaster(server, footage, hold=6) as live:
            live.answered()
            forwarded(server)
            with Call("watch", server.address, account("1002"), "1001", hold=2) as watching:
                watching.answered()
                watching.finished()
                assert picture_likeness(watching.media.pictures()[-1], footage.clips["bikes"]) > 28
            live.finished()
