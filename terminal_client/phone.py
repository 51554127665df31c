"""The phone: a line, registered while it is needed, and the talks on it: live, watching, taking calls, codes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from terminal_client.codes import send_code
from terminal_client.journal import Journal
from terminal_client.media import MediaSession
from terminal_client.outcome import (
    INTERRUPTED,
    LOST,
    LOST_STATUS,
    MEDIA_FAILED,
    OK,
    REFUSED_CALL,
    REFUSED_REGISTRATION,
    Outcome,
    PhoneOptions,
    advised,
)
from terminal_client.report import CallReport
from terminal_client.screen import Screen
from terminal_client.signalling import (
    Line,
    LineOptions,
    RegistrationRefusedError,
    SignallingLostError,
)
from terminal_client.streams import (
    MediaOptions,
    Role,
    SourceError,
)
from terminal_client.talk import Talk

OpenLine = Callable[[LineOptions], Awaitable[Line]]
OpenMedia = Callable[[str, MediaOptions, Role], MediaSession]
T = TypeVar("T")
REDIAL_SECONDS = 1.0
WRONG_STATUS = frozenset({401, 404, 407})
SILENCE = 408
NO_CODE = frozenset({404, 484})


class LeftError(Exception):
    """The user left before the line was up."""


class Phone:
    """One line, one call at a time (and a code call beside it)."""

    def __init__(
        self, options: PhoneOptions, screen: Screen, journal: Journal, open_line: OpenLine, open_media: OpenMedia
    ) -> None:
        self._options, self._screen, self._journal = options, screen, journal
        self._open_line, self._open_media = open_line, open_media

    async def broadcast(self) -> Outcome:
        """Dial the service number and be live until hang-up; come back within the grace when the call is lost."""
        media = self._open_media(self._options.line.local_host, self._options.media, "broadcast")
        talk = Talk(self._options, self._screen, self._journal, media, "broadcast")
        outcome = await self._reported(talk, self._broadcast(talk))
        return advised(outcome, self._options.service, self._options.line.number, service=True)

    async def watch(self, number: str) -> Outcome:
        """Call a number and receive until somebody hangs up."""
        media = self._open_media(self._options.line.local_host, self._options.media, "watch")
        talk = Talk(self._options, self._screen, self._journal, media, "watch")
        outcome = await self._reported(talk, self._once(lambda line: talk.dial(line, number, "recvonly")))
        return advised(outcome, number, self._options.line.number, service=False)

    async def take_calls(self, *, auto: bool, once: bool) -> Outcome:
        """Register and take calls, with sound and picture both ways, until `q` (or after the first with `once`)."""
        return await self._once(lambda line: self._take_calls(line, auto, once))

    async def dial_code(self, code: str) -> Outcome:
        """Dial a service code such as `*21*1002#` and say what became of it."""

        async def run(line: Line) -> Outcome:
            accepted, ended = await send_code(line, code)
            name = "phone.code_accepted" if accepted else "phone.code_refused"
            self._journal.event(name, code=code, status=ended.status, reason=ended.reason)
            if accepted:
                self._screen.say(ended.reason)
            outcome = Outcome(OK if accepted else REFUSED_CALL, ended.status, ended.reason)
            if ended.status not in NO_CODE:
                return outcome
            return replace(outcome, words=f"{outcome.told}: `dialcast phone codes list` names the codes there are")

        return await self._once(run)

    async def _broadcast(self, talk: "Talk") -> Outcome:
        outcome = await self._once(lambda line: talk.dial(line, self._options.service, "sendonly"))
        lost_at = time.monotonic()
        while outcome.redialable and self._options.redial and time.monotonic() < lost_at + self._options.grace:
            self._journal.event("phone.redialling", "warning", reason=outcome.reason)
            self._screen.say(f"lost ({outcome.reason}); dialling again")
            await asyncio.sleep(REDIAL_SECONDS)
            talk.answered = False
            again = await self._once(lambda line: talk.dial(line, self._options.service, "sendonly"))
            if talk.answered:
                lost_at = time.monotonic()
            elif again.code in (REFUSED_REGISTRATION, REFUSED_CALL, MEDIA_FAILED):
                continue  # busy with our own dead leg, or not up again: the first loss stays the outcome
            outcome = again
        return outcome

    async def _take_calls(self, line: Line, auto: bool, once: bool) -> Outcome:
        while True:
            media = self._open_media(self._options.line.local_host, self._options.media, "watch")
            talk = Talk(self._options, self._screen, self._journal, media, "watch")
            outcome = await self._reported(talk, talk.take(line, auto))
            if once or talk.left or outcome.code == LOST:
                return outcome
            if outcome.code:
                self._screen.say(f"ended: {outcome.told}")

    async def _once(self, run: Callable[[Line], Awaitable[Outcome]]) -> Outcome:
        """A line up and registered for as long as `run` takes; the user may leave before it is."""
        options, line = self._options.line, None
        self._screen.say(f"registering {options.number} at {options.server} ...")
        self._screen.offer("q")
        try:
            line = await self._unless_left(self._open_line(options))
            if line.warning:
                self._journal.event("phone.warning", "warning", text=line.warning)
            registration = await self._unless_left(line.register())
            self._journal.event("phone.registered", number=options.number, expires=registration.expires)
            self._screen.say(f"{options.number} is registered at {options.server}")
            return await run(line)
        except LeftError:
            return Outcome(INTERRUPTED, 0, "interrupted")
        except RegistrationRefusedError as error:
            code = REFUSED_CALL if error.status in LOST_STATUS else REFUSED_REGISTRATION
            return Outcome(code, error.status, error.reason, words=self._refusal(error))
        except SignallingLostError as error:
            return Outcome(LOST, 0, str(error), redialable=True)
        finally:
            if line is not None:
                await line.close()

    async def _unless_left(self, work: Awaitable[T]) -> T:
        """What `work` brings. Raises LeftError if the user presses q first; other keys wait for the call."""
        pressed: list[str] = []

        async def left() -> None:
            while "q" not in pressed:
                pressed.append(await self._screen.keys.get())

        doing, leaving = asyncio.ensure_future(work), asyncio.create_task(left())
        try:
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise LeftError
            for key in pressed:
                self._screen.keys.put_nowait(key)
            return doing.result()
        finally:
            doing.cancel()
            leaving.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)

    def _refusal(self, error: RegistrationRefusedError) -> str:
        """What the status alone would not tell a person."""
        if error.status in WRONG_STATUS:
            return f"wrong number or password for {self._options.line.number} ({error})"
        return error.reason if error.status == SILENCE else ""

    async def _reported(self, talk: "Talk", run: Awaitable[Outcome]) -> Outcome:
        outcome = Outcome(LOST, 0, "interrupted")
        try:
            outcome = await run
        except SourceError as error:
            outcome = Outcome(MEDIA_FAILED, 0, str(error))
        finally:
            media = await talk.media.close()
            if self._options.report is not None:
                report = CallReport(
                    role=talk.role,
                    number=self._options.line.number,
                    dialled_at=talk.dialled_at,
                    answered_at=talk.answered_at,
                    ended_at=talk.ended_at,
                    status=outcome.status,
                    reason=outcome.reason,
                    media=media,
                )
                await asyncio.to_thread(report.write, self._options.report)
        return outcome
