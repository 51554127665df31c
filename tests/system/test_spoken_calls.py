"""A stock phone (baresip) hears what the server says, and opens a private broadcast with its keypad."""

import subprocess
import sys
import time
from pathlib import Path

from baresip import Baresip
from evented import ROOT
from likeness import Samples, samples, speech_likeness
from server import Server
from test_stock_phones import goes_live, stock_phone

from dialcast.footage import Footage
from media_relay.prompts import FOLDER
from protocols.prompts import Prompt
from protocols.rtp.g711 import from_ulaw

PIN = "4711"


def recording(*prompts: Prompt, language: str = "en") -> bytes:
    """Shipped prompts as raw 16-bit samples."""
    data = b"".join((FOLDER / language / f"{prompt}.ulaw").read_bytes() for prompt in prompts)
    return b"".join(sample.to_bytes(2, sys.byteorder, signed=True) for sample in from_ulaw(data))


def press(phone: Baresip, keys: str) -> None:
    """Press keys one after the other, as a thumb does."""
    for key in keys:
        phone.command("sndcode", key)
        time.sleep(0.25)


def channel(server: Server, *arguments: str, given: str = "") -> None:
    """An operator's command about a number's viewers."""
    command = [sys.executable, "-m", "dialcast", "channel", *arguments, "--data-dir", str(server.data)]
    subprocess.run(command, cwd=ROOT, input=given, text=True, check=True, timeout=30)


def said(*prompts: Prompt) -> Samples:
    """Shipped prompts, but for the silence at their end, of which a recording may miss some."""
    return samples(recording(*prompts))[:-1600]


def test_a_stock_phone_hears_that_its_code_was_accepted(
    server: Server, tmp_path: Path, footage: Footage, reel: Path
) -> None:
    with stock_phone(server, tmp_path, "1004", footage, reel) as phone:
        phone.registered()
        phone.dial("*21*1003%23")
        phone.established()
        phone.closed(15)
        assert speech_likeness(said("active"), samples(phone.heard())) > 0.8
        phone.dial("*%2321%23")
        phone.established()
        phone.closed(20)
        assert speech_likeness(said("forwarded-to", "1", "0", "0", "3"), samples(phone.heard())) > 0.8
        phone.dial("%23%2321%23")
        phone.established()
        phone.closed(15)


def test_a_stock_phone_watches_a_private_broadcast_after_its_pin(
    server: Server, tmp_path: Path, footage: Footage, reel: Path
) -> None:
    channel(server, "pin", "1001", "--pin-stdin", given=f"{PIN}\n")
    try:
        with (
            stock_phone(server, tmp_path, "1001", footage, reel) as live,
            stock_phone(server, tmp_path, "1005", footage, reel) as viewer,
        ):
            viewer.registered()
            goes_live(server, live)
            viewer.dial("1001")
            viewer.established()
            time.sleep(1)
            press(viewer, "0000#")
            server.event("viewer.wrong_pin", 5)
            assert viewer.picture() is None
            time.sleep(4)
            press(viewer, f"{PIN}#")
            viewer.sees_frames(30, 20)
            viewer.hang_up()
            heard = samples(viewer.heard())
            assert speech_likeness(said("pin-wrong"), heard) > 0.8
            live.hang_up()
    finally:
        channel(server, "open", "1001")
