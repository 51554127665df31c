"""The phone: a line, registered while it is needed, and the talks on it: live, watching, taking calls, codes."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from terminal_client.codes import send_code
from terminal_client.journal import Journal
from terminal_client.media import MediaSession
from terminal_client.outcome import (
    LOST,
    LOST_STATUS,
    MEDIA_FAILED,
    OK,
    REFUSED_CALL,
    REFUSED_REGISTRATION,
    Outcome,
    PhoneOptions,
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
REDIAL_SECONDS = 1.0


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
        return await self._reported(talk, self._broadcast(talk))

    async def watch(self, number: str) -> Outcome:
        """Call a number and receive until somebody hangs up."""
        media = self._open_media(self._options.line.local_host, self._options.media, "watch")
        talk = Talk(self._options, self._screen, self._journal, media, "watch")
        return await self._reported(talk, self._once(lambda line: talk.dial(line, number, "recvonly")))

    async def take_calls(self, *, auto: bool, once: bool) -> Outcome:
        """Register and take calls, with sound and picture both ways, until `q` (or after the first with `once`)."""
        return await self._once(lambda line: self._take_calls(line, auto, once))

    async def dial_code(self, code: str) -> Outcome:
        """Dial a service code such as `*21*1002#` and say what became of it."""

        async def run(line: Line) -> Outcome:
            accepted, ended = await send_code(line, code)
            name = "phone.code_accepted" if accepted else "phone.code_refused"
            self._journal.event(name, code=code, status=ended.status, reason=ended.reason)
            self._screen.say(ended.reason if accepted else f"refused: {ended.status} {ended.reason}")
            return Outcome(OK if accepted else REFUSED_CALL, ended.status, ended.reason)

        return await self._once(run)

    async def _broadcast(self, talk: "Talk") -> Outcome:
        outcome = await self._once(lambda line: talk.dial(line, self._options.service, "sendonly"))
        lost_at = time.monotonic()
        while outcome.redialable and self._options.redial and time.monotonic() < lost_at + self._options.grace:
            self._journal.event("phone.redialling", "warning", reason=outcome.reason)
            self._screen.say(f"lost ({outcome.reason}); dialling again")
            await asyncio.sleep(REDIAL_SECONDS)
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

    async def _once(self, run: Callable[[Line], Awaitable[Outcome]]) -> Outcome:
        """A line up and registered for as long as `run` takes."""
        try:
            line = await self._open_line(self._options.line)
        except SignallingLostError as error:
            return Outcome(LOST, 0, str(error), redialable=True)
        try:
            if line.warning:
                self._journal.event("phone.warning", "warning", text=line.warning)
            registration = await line.register()
            options = self._options.line
            self._journal.event("phone.registered", number=options.number, expires=registration.expires)
            self._screen.say(f"{options.number} is registered at {options.server}")
            return await run(line)
        except RegistrationRefusedError as error:
            code = REFUSED_CALL if error.status in LOST_STATUS else REFUSED_REGISTRATION
            return Outcome(code, error.status, error.reason)
        except SignallingLostError as error:
            return Outcome(LOST, 0, str(error), redialable=True)
        finally:
            await line.close()

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
