"""Announcements: the relay speaks prompts to a leg, and hears the keys its user presses (RFC 3550, RFC 4733).

Plain RTP, one packet every 20 ms by the relay's clock. A leg's stream keeps its SSRC, its sequence numbers have no
gaps, its timestamps run on while it is silent, and the marker bit tells where speech begins (RFC 3551 section 4.1).
Nothing is sent before the leg's address is vouched for, so a prompt waits for that, and keys count only from there. All
of it is outside the engine, to which these legs are strangers: so few packets need no fast path.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from struct import Struct

from media_relay.groups import Groups
from media_relay.legs import Leg, LegMedium
from media_relay.metrics import KEYS, LIMITED, PROMPTS
from media_relay.prompts import payloads
from protocols.control import ControlError, Digit, PlayPrompt, PromptEnd, PromptEnded
from protocols.rtp.packet import RtpError, RtpPacket
from protocols.rtp.telephone_event import CLOCK_RATE, EventReceiver, Press, TelephoneEventError

FRAME = 0.02
"""Seconds of sound in a packet."""
FRAME_UNITS = 160
"""The same in timestamp units of 8 kHz."""
LATE_FRAMES = 5
"""Packets sent at once after the relay was held up; a longer gap becomes silence instead of a burst."""
KEY_HELD = 1.0
"""Seconds without a packet after which a key whose release was lost counts as released."""

_HEADER = Struct("!BBHII")
_VERSION = 0x80


@dataclass(slots=True)
class _Play:
    """One wish to speak: its payloads, and how far they are spoken."""

    number: int
    payloads: Sequence[bytes]
    spoken: int = 0


@dataclass(slots=True, eq=False)
class _Voice:
    """What is spoken to one leg, and heard from it. Timestamps are in units of 8 kHz."""

    leg: Leg
    medium: LegMedium
    sequence: int
    epoch: int
    """The timestamp of tick 0."""
    queue: deque[_Play] = field(default_factory=deque)
    last_play: int = -1
    tick: int = 0
    """When the next packet is due, in frames since the clock's zero: all voices speak at the same moments, so that the
    relay wakes up 50 times a second however many there are."""
    speaking: bool = False
    """False before a talkspurt."""
    give_up_at: float = 0.0
    """When prompts are dropped that nobody could be sent."""
    keys: EventReceiver = field(default_factory=EventReceiver)
    key_at: float = 0.0
    packets: int = 0
    octets: int = 0

    @property
    def open(self) -> bool:
        """True while its address may be sent to."""
        medium = self.medium
        return medium.peer is not None and medium.proven and medium.rtp_latch is None and not self.leg.cut


class Announcements:
    """Speaks to the legs of announcements; `step` is to be called when due."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._voices: dict[Leg, _Voice] = {}

    def play(self, leg: Leg, command: PlayPrompt, now: float) -> None:
        """Put prompts behind those that wait. ControlError for too many, or a codec nobody recorded them in."""
        voice = self._voice(leg)
        if command.play <= voice.last_play:
            return
        waiting = sum(len(play.payloads) > play.spoken for play in voice.queue)
        if waiting + len(command.prompts) > self._groups.config.max_prompts:
            LIMITED.labels("relay.max_prompts").inc()
            raise ControlError("limit", f"{self._groups.config.max_prompts} prompts wait")
        spec = voice.medium.spec
        spoken = [payload for name in command.prompts for payload in payloads(name, command.language, spec)]
        voice.last_play = command.play
        if not voice.queue:
            voice.give_up_at = now + self._groups.config.latch_window
        voice.queue.append(_Play(command.play, spoken))

    def stop(self, leg: Leg) -> None:
        """Be silent at once."""
        voice = self._voices.get(leg)
        if voice is not None:
            self._drop(voice, "stopped")

    def key(self, medium: LegMedium, data: bytes, now: float) -> None:
        """A telephone event from the leg's accepted address; others than announcements have nobody to tell."""
        if medium.leg.role != "announcement":
            return
        voice = self._voice(medium.leg)
        with suppress(RtpError, TelephoneEventError):
            packet = RtpPacket.parse(data)
            voice.key_at = now
            self._tell(voice, voice.keys.receive(packet.timestamp, packet.payload))

    def sent(self, leg: Leg) -> tuple[int, int]:
        """Packets and payload octets sent to a leg."""
        voice = self._voices.get(leg)
        return (voice.packets, voice.octets) if voice is not None else (0, 0)

    def step(self, now: float) -> float | None:
        """Send what is due; when to be called again, None while nobody is spoken to."""
        for leg in [leg for leg in self._voices if leg.removed or leg.role != "announcement"]:
            del self._voices[leg]
        return min(
            (due for voice in self._voices.values() if (due := self._speak(voice, now)) is not None), default=None
        )

    def _voice(self, leg: Leg) -> _Voice:
        voice = self._voices.get(leg)
        medium = leg.media.get("audio")
        if medium is None:
            raise ControlError("unsupported", f"leg {leg.leg_id} has no sound")
        if voice is None:
            voice = self._voices[leg] = _Voice(leg, medium, self._random() & 0x7FFF, self._random())
        voice.medium = medium  # a new negotiation may have changed it
        return voice

    def _random(self) -> int:
        return self._groups.new_ssrc()

    def _speak(self, voice: _Voice, now: float) -> float | None:
        if voice.keys.pending:
            if now - voice.key_at >= KEY_HELD:
                self._tell(voice, voice.keys.flush())
            elif not voice.queue:
                return voice.key_at + KEY_HELD
        if not voice.queue:
            return None
        if not voice.open or not voice.medium.spec.sends:
            return self._wait(voice, now)
        if now - voice.tick * FRAME > LATE_FRAMES * FRAME:  # the first prompt, after a silence, or held up too long
            voice.speaking = False
            voice.tick = ceil(now / FRAME)
        while voice.queue and voice.tick * FRAME <= now:
            play = voice.queue[0]
            if play.spoken < len(play.payloads):
                self._send(voice, play.payloads[play.spoken])
                play.spoken += 1
                voice.tick += 1
                if play.spoken < len(play.payloads):
                    continue
            voice.queue.popleft()
            self._ended(voice, play, "played")
        voice.speaking = voice.speaking and bool(voice.queue)
        return voice.tick * FRAME if voice.queue else None

    def _wait(self, voice: _Voice, now: float) -> float | None:
        """Nobody to speak to yet, or on hold: the prompts stand, for a while."""
        voice.speaking = False
        if now < voice.give_up_at:
            return voice.give_up_at
        self._drop(voice, "unheard")
        return None

    def _send(self, voice: _Voice, payload: bytes) -> None:
        medium = voice.medium
        assert medium.peer is not None
        timestamp = voice.epoch + voice.tick * FRAME_UNITS
        second = (not voice.speaking) << 7 | medium.spec.payload_type
        header = _HEADER.pack(_VERSION, second, voice.sequence & 0xFFFF, timestamp & 0xFFFFFFFF, medium.ssrc)
        packet = medium.security.protect(medium.spec.send_security, medium.ssrc, voice.sequence, header + payload)
        voice.sequence += 1
        voice.speaking = True
        if packet is None:
            return
        with suppress(OSError):  # a full socket or an unreachable peer is a loss like any other
            medium.port.rtp.sendto(packet, medium.peer)
            voice.packets += 1
            voice.octets += len(payload)

    def _drop(self, voice: _Voice, cause: PromptEnd) -> None:
        while voice.queue:
            self._ended(voice, voice.queue.popleft(), cause)
        voice.speaking = False

    def _ended(self, voice: _Voice, play: _Play, cause: PromptEnd) -> None:
        leg = voice.leg
        PROMPTS.labels(cause).inc()
        self._groups.emit(leg, PromptEnded(leg.group_id, leg.epoch, leg.leg_id, play.number, cause))

    def _tell(self, voice: _Voice, presses: Sequence[Press]) -> None:
        leg = voice.leg
        for press in presses:
            KEYS.inc()
            held = press.duration * 1000 // CLOCK_RATE
            self._groups.emit(leg, Digit(leg.group_id, leg.epoch, leg.leg_id, press.digit, held))
