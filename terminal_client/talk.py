"""One conversation of the phone, as broadcaster or viewer: what follows what.

Everything that can happen in a call (signalling, media, keys, time) arrives in one inbox and is handled in order. As
broadcaster the 183 brings the answer and the phone joins before the 200; after it the phone forwards its own number to
the service number by itself (TS 24.604, TS 22.030), then offers to send. As viewer the 200 brings the answer, and
joining waits for "receive".
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from protocols.sdp import Direction
from terminal_client.codes import send_code
from terminal_client.happenings import Forwarded, Inbox, Joined, Key, Tick, TimeUp, alarm, each, keys, ticks
from terminal_client.journal import Journal
from terminal_client.keypad import KEYS, QUESTION_SECONDS, Keypad
from terminal_client.media import MediaSession
from terminal_client.messages import Answered, Ended, Progress, Reanswered, Reoffered, Said, Unsaid
from terminal_client.offer import SdpError, describe, read
from terminal_client.outcome import (
    INTERRUPTED,
    LOST,
    MEDIA_FAILED,
    OK,
    Outcome,
    PhoneOptions,
    judged,
)
from terminal_client.screen import Screen
from terminal_client.signalling import Call, Line, Lost
from terminal_client.sip_text import number_of
from terminal_client.streams import (
    ConsentLost,
    FirstPicture,
    FirstSound,
    JoinError,
    Live,
    RemoteMedia,
    Role,
    SourceEnded,
    SourceError,
    StreamSilent,
)

GOODBYE_SECONDS = 3.0
QUESTION = "sound but no picture yet: if a voice asks for a PIN, press its digits and #"
ANSWERED_BY_PIN = "sound but no picture yet: pressing the PIN you gave"


class Talk:
    """One conversation: a media session, and the call (after a redial: calls) that it is used in."""

    def __init__(
        self, options: PhoneOptions, screen: Screen, journal: Journal, media: MediaSession, role: Role
    ) -> None:
        self.media, self.role = media, role
        self.dialled_at: float | None = None
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.answered = False
        """The present call was answered."""
        self.left = False
        """The user hung up or left, rather than the far end."""
        self._options, self._screen, self._journal = options, screen, journal
        self._inbox = Inbox()
        self._ours = ""
        self._direction: Direction = "sendrecv"
        self._negotiated = self._joining = self._joined = False
        self._flowing = self._wanted = self._connected = False
        self._muted = self._received = self._expecting = self._awaiting_picture = False
        self._pictures = 0
        self._keypad = Keypad(media.press, lambda _: None)
        self._sound_since: float | None = None
        self._questioned = False
        """There was a voice, and no picture."""

    async def dial(self, line: Line, number: str, direction: Direction) -> Outcome:
        """Call the number and stay until the call is over."""
        await self._prepare(line, direction)
        self._wanted = (
            self._wanted or (self._options.send if self.role == "broadcast" else self._options.receive) == "now"
        )
        self._negotiated = self._joining = self._joined = False
        self._flowing = self._connected = self.answered = False
        call = line.dial(line.options.uri(number), self._ours)
        self.dialled_at = self.dialled_at or time.monotonic()
        self._journal.event("phone.dialled", to=number)
        self._screen.say(f"calling {number}")
        self._screen.offer("q")
        return await self._attended(line, call)

    async def take(self, line: Line, auto: bool) -> Outcome:
        """Wait for a call, ring (or not), and stay until it is over."""
        await self._prepare(line, "sendrecv")
        line.listen(self._ours)
        self._journal.event("phone.waiting")
        self._screen.say("waiting for calls")
        self._screen.offer("q")
        ringing = asyncio.create_task(line.incoming.get())
        leaving = asyncio.create_task(self._screen.keys.get())
        gone: set[asyncio.Future[Any]] = {ringing, leaving, line.lost}
        await asyncio.wait(gone, return_when=asyncio.FIRST_COMPLETED)
        if not ringing.done():
            ringing.cancel()
            self.left = leaving.done()
            leaving.cancel()
            return Outcome(OK) if self.left else Outcome(LOST, 0, line.lost.result())
        leaving.cancel()
        call = ringing.result()
        caller = number_of(call.caller)
        self._journal.event("phone.ringing", caller=caller)
        self._screen.say(f"{caller} is calling")
        self._screen.offer("aq")
        self.dialled_at, self._wanted = time.monotonic(), True
        try:
            self._agree(read(call.offer, self._ours))
            self._negotiated = True
        except SdpError as error:
            call.answer(488)
            return Outcome(OK, 488, str(error))
        call.answer(200 if auto else 180)
        return await self._attended(line, call)

    async def _prepare(self, line: Line, direction: Direction) -> None:
        if not self._ours or direction != self._direction:
            self._direction = direction
            self._ours = describe(await self.media.open(), direction, amr=line.amr)

    async def _attended(self, line: Line, call: Call) -> Outcome:
        """Pump every source into the inbox while the call lasts."""
        self._inbox = Inbox()
        self._keypad = Keypad(self.media.press, call.press)
        self._keypad.press(self._options.keys)
        for source in (each(call.update), each(self.media.events.get), keys(self._screen), ticks()):
            self._inbox.pump(source)
        try:
            outcome = await self._until_over(line, call)
        except SourceError as error:
            outcome = await self._hang_up(call, Outcome(MEDIA_FAILED, 0, str(error)))
        finally:
            await self._inbox.close()
        self.ended_at = time.monotonic()
        if self._flowing and outcome.redialable:
            await self.media.pause()
        self._journal.event("phone.ended", status=outcome.status, reason=outcome.reason, code=outcome.code)
        if outcome.code == OK:  # anything else is said by whoever acts on it
            self._screen.say(f"ended: {outcome.reason or 'hung up'}")
        return outcome

    async def _until_over(self, line: Line, call: Call) -> Outcome:
        """Handle what happens, in order. Returns when the far end has ended the call or we have."""
        while True:
            match await self._inbox.next():
                case Ended() as ended:
                    return judged(ended, answered=self.answered, nothing_received=self._nothing_received)
                case Lost(detail):
                    return Outcome(LOST, 0, detail, redialable=True)
                case Progress(status=status, reason=reason, sdp=sdp):
                    self._journal.event("phone.progress", status=status, reason=reason)
                    self._screen.say(f"{status} {reason}")
                    if sdp and not self._negotiate(sdp):
                        return await self._hang_up(call, Outcome(MEDIA_FAILED, status, "the answer is unusable"))
                    if sdp and self.role == "broadcast":
                        self._join()
                case Answered(status=status, reason=reason, sdp=sdp):
                    self.answered, self.answered_at = True, self.answered_at or time.monotonic()
                    self._journal.event("phone.answered", status=status, reason=reason)
                    if sdp and not self._negotiated and not self._negotiate(sdp):
                        return await self._hang_up(call, Outcome(MEDIA_FAILED, status, "the answer is unusable"))
                    self._after_answer(line, call)
                case Reoffered(sdp=sdp):
                    with contextlib.suppress(SdpError):
                        self.media.negotiated(read(sdp, self._ours))
                    self._screen.say("the far end changed the call")
                case Reanswered(status=status, reason=reason):
                    self._journal.event("phone.reoffer_answered", status=status, reason=reason)
                case Joined(failure=failure) if failure:
                    return await self._hang_up(call, Outcome(MEDIA_FAILED, 0, failure))
                case Joined():
                    self._joined = True
                    self._journal.event("phone.joined")
                    self._inbox.start(self._keypad.work())
                    await self._flow_if_due()
                case Forwarded(accepted=accepted, reason=reason):
                    self._forwarded(accepted, reason)
                    await self._flow_if_due()
                case Said(sender=sender, text=text):
                    self._journal.event("phone.text", sender=number_of(sender))
                    self._screen.say(f"{number_of(sender)}: {' '.join(text.split())}")
                case Unsaid(status=status, reason=reason):
                    self._screen.say(f"your text was not taken: {status} {reason}")
                case Key("t", text) if self.answered:
                    call.say(text)
                    self._screen.say(f"you: {text}")
                case Key("q"):
                    self.left = True
                    return await self._hang_up(call, Outcome(OK if self.answered else INTERRUPTED, 0, "hung up"))
                case Key("a") if call.caller and not self.answered:
                    call.answer(200)
                case Key(letter) if letter in KEYS:
                    if self.answered:
                        self._press(letter)
                case Key(letter):
                    await self._chosen(letter)
                case ConsentLost(medium=medium):
                    lost = Outcome(LOST, 0, f"the media server no longer answers ({medium})", redialable=True)
                    return await self._hang_up(call, lost)
                case TimeUp():
                    self.left = True
                    return await self._hang_up(call, Outcome(OK, 0, "time is up"))
                case Tick():
                    self._show_stats()
                    self._look_for_question()
                case SourceEnded(reason=reason, medium=medium):
                    self._journal.event("phone.source_ended", medium=medium, reason=reason)
                    if medium == "video":
                        code = MEDIA_FAILED if reason else OK
                        return await self._hang_up(call, Outcome(code, 0, reason or "the source is over"))
                case FirstPicture() | Live() | FirstSound() | StreamSilent() as seen:
                    self._media_seen(seen)
                case _:
                    """A keyframe request: the media side sees to it."""

    def _negotiate(self, sdp: str) -> bool:
        if self._negotiated:
            return True
        try:
            remote = read(sdp, self._ours)
        except SdpError:
            return False
        self._negotiated = remote.audio is not None or remote.video is not None
        if self._negotiated:
            self._agree(remote)
        return self._negotiated

    def _agree(self, remote: RemoteMedia) -> None:
        self._expecting = any(stream is not None and stream.receives for stream in (remote.audio, remote.video))
        self._awaiting_picture = remote.video is not None and remote.video.receives
        self.media.negotiated(remote)

    def _join(self) -> None:
        async def join() -> None:
            try:
                await self.media.join()
            except JoinError as error:
                self._inbox.put(Joined(str(error) or "the media server did not answer"))
            else:
                self._inbox.put(Joined())

        if not self._joining:
            self._joining = True
            self._journal.event("phone.joining")
            self._inbox.start(join())

    def _after_answer(self, line: Line, call: Call) -> None:
        if self._options.duration is not None:
            self._inbox.pump(alarm(self._options.duration))
        if self.role == "broadcast":
            self._join()  # a server may answer without waiting for the join
            self._inbox.start(self._forward_own_number(line))
            return
        self._connect()
        if self._wanted:
            self._receive()

    def _receive(self) -> None:
        """Be ready, then join: the relay sends the picture's latest keyframe the moment it knows us."""
        if not self._joining:
            self.media.start_receiving()
            self._journal.event("phone.receiving")
            self._join()

    async def _forward_own_number(self, line: Line) -> None:
        accepted, ended = await send_code(line, f"*21*{self._options.service}#")
        self._inbox.put(Forwarded(accepted, ended.reason))

    def _forwarded(self, accepted: bool, reason: str) -> None:
        if accepted:
            self._journal.event("phone.cfu_activated", reason=reason)
            silent = "" if self._wanted else "; not sending yet, press s"
            self._screen.say(f"live: whoever calls {self._options.line.number} watches{silent}")
        else:
            self._journal.event("phone.cfu_refused", "warning", reason=reason)
            self._screen.say(f"forwarding was refused ({reason}); the network may set it by itself")
        self._connect()

    def _connect(self) -> None:
        """The connected screen."""
        self._connected = True
        self._journal.event("phone.connected")
        self._screen.say("connected")
        self._offer("scmtpq" if self.role == "broadcast" else "rtpq")

    def _offer(self, choices: str) -> None:
        """What there is to choose: nothing a second time, and no other camera where there is but one."""
        done = ("sr" if self._wanted else "") + ("c" if len(self._options.media.cameras) == 1 else "")
        self._screen.offer("".join(key for key in choices if key not in done))

    async def _flow_if_due(self) -> None:
        """Media starts once the call is connected, the join done and the user's choice made."""
        if self._flowing or not (self._wanted and self._connected and self._joined):
            return
        self._flowing = True
        sends = self._direction in ("sendrecv", "sendonly")
        if sends:
            await self.media.start_sending()
            self._journal.event("phone.sending")
        if self.role == "broadcast":
            self._screen.say("sending")
        else:
            self._screen.say("waiting for the picture" if self._awaiting_picture else "receiving")
        self._offer("cmtpq" if sends else "tpq")

    async def _chosen(self, letter: str) -> None:
        match letter:
            case "s" | "r":
                self._wanted = True
                if self.role == "watch" and self._connected:
                    self._receive()
                await self._flow_if_due()
            case "c" if len(self._options.media.cameras) > 1:
                self.media.switch_camera()
                self._journal.event("phone.camera_switched")
            case "m":
                self._muted = not self._muted
                self.media.mute(self._muted)
                self._screen.say("muted" if self._muted else "no longer muted")
            case "p":
                self._pictures += 1
                chosen = self._options.media.snapshot
                stem = chosen.with_suffix("") if chosen else Path("snapshot")
                path = stem.with_name(f"{stem.name}-{self._pictures}.png")
                taken = await self.media.snapshot(path)
                self._screen.say(f"snapshot: {path}" if taken else "no picture yet")

    def _media_seen(self, seen: FirstPicture | Live | FirstSound | StreamSilent) -> None:
        match seen:
            case FirstPicture(at):
                self._received = True
                if self._flowing and self._awaiting_picture:
                    self._screen.say("receiving")
                self._awaiting_picture = False
                self._journal.event("phone.first_picture", mono=at)
            case Live(at):
                self._journal.event("phone.live", mono=at)
            case FirstSound(at):
                self._received, self._sound_since = True, at
                self._journal.event("phone.first_sound", mono=at)
            case StreamSilent(at, medium):
                self._journal.event("phone.silent", "warning", mono=at, medium=medium)
                if not (self._questioned and self._awaiting_picture):  # the voice waits for keys
                    self._screen.say(f"no {medium} is coming")

    def _show_stats(self) -> None:
        if not self._flowing:
            return
        stats = self.media.stats()
        self._screen.stats(self.role, stats)
        self._journal.event("phone.stats", **stats.glance)

    def _press(self, keys: str) -> None:
        """Keys travel beside the sound that they answer: who presses some receives."""
        if self.role == "watch" and self._connected and not self._wanted:
            self._wanted = True
            self._receive()
        self._keypad.press(keys)

    def _look_for_question(self) -> None:
        """Sound without the picture that is due: a voice may be asking for a PIN."""
        since = self._sound_since
        if self._questioned or not self._awaiting_picture or since is None:
            return
        if time.monotonic() - since < QUESTION_SECONDS:
            return
        self._questioned = True
        self._journal.event("phone.voice_only", pin_given=bool(self._options.pin))
        self._screen.say(ANSWERED_BY_PIN if self._options.pin else QUESTION)
        if self._options.pin:
            self._keypad.press(f"{self._options.pin}#")

    @property
    def _nothing_received(self) -> bool:
        return self._expecting and self._flowing and not self._received

    async def _hang_up(self, call: Call, outcome: Outcome) -> Outcome:
        """End the call ourselves and give the far end a moment to agree."""
        call.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while not isinstance(happening := await self._inbox.next(), Ended | Lost):
                    if isinstance(happening, FirstPicture | Live | FirstSound):
                        self._media_seen(happening)
        if outcome.code == OK and self._nothing_received:
            return Outcome(MEDIA_FAILED, outcome.status, "nothing was received")
        return outcome
