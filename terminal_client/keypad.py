"""Keys pressed in a call: telephone events in RTP (RFC 4733), or INFO where the far end knows none.

Nothing in a call says that a voice asks for a PIN. What a phone can tell is that there is sound and no picture although
one is due; then it presses the PIN its user gave, once, or tells its user to.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from protocols.rtp.telephone_event import CLOCK_RATE, DIGITS, build
from terminal_client.rtp_session import RtpSession

KEYS: Final = DIGITS[:12]
"""Those a phone has."""
PAUSE: Final = ","
PAUSE_SECONDS: Final = 1.0
GAP_SECONDS: Final = 0.1
MAX_KEYS: Final = 256
"""Keys that wait to be sent; more are forgotten."""
QUESTION_SECONDS: Final = 1.0
"""How long sound may come without a picture: a relay sends the latest keyframe as soon as it knows its viewer."""
_DURATION: Final = CLOCK_RATE // 10
_STEP: Final = CLOCK_RATE // 50


async def send_key(session: RtpSession, key: str, clock: int) -> bool:
    """Send a press of 0.1 s that began at `clock` (units of 1/8000 s); False if the far end knows no such events."""
    for number, event in enumerate(build(key, _DURATION, _STEP)):
        if not session.send_event(event.serialise(), clock, first=number == 0):
            return False
        await asyncio.sleep(_STEP / CLOCK_RATE)
    return True


class Keypad:
    """Sends the keys of one call, one after another."""

    def __init__(self, by_media: Callable[[str], Awaitable[bool]], by_signalling: Callable[[str], None]) -> None:
        self._by_media, self._by_signalling = by_media, by_signalling
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_KEYS)

    def press(self, keys: str) -> None:
        """Press these, after those that wait; `,` is a pause of a second."""
        for key in keys:
            if not self._waiting.full():
                self._waiting.put_nowait(key)

    async def work(self) -> None:
        """Send what is pressed, for ever. Begin when the far end takes our media."""
        while True:
            key = await self._waiting.get()
            if key == PAUSE:
                await asyncio.sleep(PAUSE_SECONDS)
            elif not await self._by_media(key):
                self._by_signalling(key)
            await asyncio.sleep(GAP_SECONDS)
