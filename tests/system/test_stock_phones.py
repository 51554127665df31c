"""baresip, a stock phone, broadcasts and watches with nothing special configured, among itself and with our phone."""

from pathlib import Path

import phone
import pytest
from baresip import Baresip
from likeness import loudness, picture_likeness, samples, speech_likeness
from server import PASSWORDS, Server

from dialcast.footage import Footage

CHANNEL = "1001@dialcast.internal"


def stock_phone(
    server: Server,
    folder: Path,
    number: str,
    footage: Footage,
    reel: Path,
    *,
    transport: str = "udp",
    auto_answer: bool = False,
    loopback_in_sdp: bool = True,
) -> Baresip:
    """A baresip registered as `number`, with `bikes` before its camera and a story before its microphone."""
    return Baresip(
        folder / f"baresip-{number}",
        number,
        registrar=server.tcp if transport == "tcp" else server.udp,
        password=PASSWORDS[number],
        clip=reel,
        size=(640, 272),
        voice=footage.voices[0],
        transport=transport,
        auto_answer=auto_answer,
        loopback_in_sdp=loopback_in_sdp,
    )


def goes_live(server: Server, phone: Baresip) -> None:
    """The phone, as 1001, dials the service number and is live; its number forwards there a moment later."""
    server.forget("broadcast.forwarded")
    phone.registered()
    phone.dial("8888")
    phone.established()
    server.event("broadcast.forwarded", 8, channel=CHANNEL)


def assert_sees_and_hears(viewer: Baresip, footage: Footage, voice: Path) -> None:
    """The phone, in a call, soon shows the clip and, once hung up, has heard the voice."""
    viewer.sees_frames(1, 5)
    viewer.sees_frames(40, 20)
    assert picture_likeness(viewer.snapshot(), footage.clips["bikes"]) > 26
    viewer.hang_up()
    heard = samples(viewer.heard())
    assert loudness(heard) > 0.005
    assert speech_likeness(heard, samples(voice)) > 0.8


def test_two_stock_phones_talk_without_any_server(tmp_path: Path, footage: Footage, reel: Path) -> None:
    """Proves the harness: what follows fails because of the server, not because of baresip."""
    voice, size = footage.voices[0], (640, 272)
    with (
        Baresip(tmp_path / "one", "1", clip=reel, size=size, voice=voice) as caller,
        Baresip(tmp_path / "other", "2", clip=reel, size=size, voice=voice, auto_answer=True) as callee,
    ):
        caller.dial(callee.uri)
        caller.established()
        assert_sees_and_hears(caller, footage, voice)


def test_stock_phones_call_each_other_through_the_server(
    server: Server, tmp_path: Path, footage: Footage, reel: Path
) -> None:
    with (
        stock_phone(server, tmp_path, "1001", footage, reel) as caller,
        stock_phone(server, tmp_path, "1002", footage, reel, auto_answer=True) as callee,
    ):
        caller.registered()
        callee.registered()
        caller.dial("1002")
        caller.established()
        assert_sees_and_hears(caller, footage, footage.voices[0])
        callee.closed()


def test_a_stock_phone_is_live_and_a_stock_phone_and_ours_watch_it(
    server: Server, tmp_path: Path, footage: Footage, reel: Path
) -> None:
    with (
        stock_phone(server, tmp_path, "1001", footage, reel) as live,
        stock_phone(server, tmp_path, "1003", footage, reel) as viewer,
    ):
        viewer.registered()
        goes_live(server, live)
        with phone.viewer(tmp_path / "ours", server.address, "1002", "1001") as ours:
            ours.event("phone.first_picture", 15)
            viewer.dial("1001")
            viewer.established()
            assert_sees_and_hears(viewer, footage, footage.voices[0])
            live.hang_up()
            assert ours.exited(10) == 0
    assert ours.report()["media"]["frames_decoded"] > 40
    assert speech_likeness(samples(ours.recording)[8000:-8000], samples(footage.voices[0])) > 0.8


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ours_is_live_and_a_stock_phone_that_calls_the_number_watches(
    server: Server, tmp_path: Path, footage: Footage, reel: Path, transport: str
) -> None:
    voice = footage.voices[1]
    clip = footage.clips["bikes"]
    with (
        phone.broadcaster(tmp_path / "live", server.address, "1001", clip=clip, voice=voice, size="640x272") as live,
        stock_phone(server, tmp_path, "1003", footage, reel, transport=transport) as viewer,
    ):
        live.event("phone.sending", 20)
        viewer.registered()
        viewer.dial("1001")
        viewer.established()
        assert_sees_and_hears(viewer, footage, voice)
        viewer.dial("1001")
        viewer.established()
        live.stop()
        viewer.closed()


def test_a_stock_phone_that_names_another_address_for_media_watches(
    server: Server, tmp_path: Path, footage: Footage, reel: Path
) -> None:
    """Behind a NAT the SDP names an address that is not where packets come from: the relay latches."""
    with (
        stock_phone(server, tmp_path, "1001", footage, reel, loopback_in_sdp=False) as live,
        stock_phone(server, tmp_path, "1003", footage, reel, loopback_in_sdp=False) as viewer,
    ):
        viewer.registered()
        goes_live(server, live)
        viewer.dial("1001")
        viewer.established()
        assert_sees_and_hears(viewer, footage, footage.voices[0])


def test_stopping_the_server_hangs_up(tmp_path: Path, footage: Footage, reel: Path) -> None:
    with Server(tmp_path / "data") as server, stock_phone(server, tmp_path, "1001", footage, reel) as live:
        goes_live(server, live)
        assert server.stop(within=10) == 0
        live.closed()
