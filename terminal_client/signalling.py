"""The phone's line, for asyncio: starts the pjsua2 child, registers, makes and takes calls.

The child may die at any moment (the wheel asserts). That is one event: `Lost` on every call that was up, and
`SignallingLostError` for whoever waits for the line itself. Nothing here blocks, and nothing the child says raises.
"""

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, TypeVar

from protocols.net import Address
from terminal_client.messages import (
    MAX_LINE,
    Answer,
    Answered,
    Command,
    Dial,
    Ended,
    Event,
    Hangup,
    Incoming,
    Listen,
    MessageError,
    Press,
    Progress,
    Quit,
    Ready,
    Reanswered,
    Register,
    Registration,
    Reoffer,
    Reoffered,
    Said,
    Say,
    Start,
    Trouble,
    Unsaid,
    decode_event,
    encode,
)

T = TypeVar("T")

START_SECONDS = 10.0
QUIT_SECONDS = 6.0
REGISTER_SECONDS = 8.0
"""An unanswered REGISTER would go on for 64*T1 = 32 s (RFC 3261 timer F); a user has understood sooner."""
DEBUG_LEVEL = 5
KEY_IN_INFO = re.compile(r"Signal=\S")
"""In the messages that debug shows; the keys may be a PIN."""


class SignallingLostError(Exception):
    """The signalling process is gone; the text is what it said last."""


class RegistrationRefusedError(Exception):
    """The registrar refused, or did not answer (status 408)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Lost:
    """The signalling process died under the call: the far end still believes that it is up."""

    detail: str


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Where and as whom the phone registers."""

    server: Address
    number: str
    password: str = field(repr=False)
    transport: Literal["udp", "tcp"] = "udp"
    local_host: str = "127.0.0.1"
    expires: int = 300
    debug: bool = False

    def uri(self, number: str) -> str:
        """The SIP URI of a number, or of a code with its `#` escaped, at our server."""
        suffix = ";transport=tcp" if self.transport == "tcp" else ""
        return f"sip:{number.replace('#', '%23')}@{self.server}{suffix}"


CallUpdate = Progress | Answered | Reoffered | Reanswered | Said | Unsaid | Ended | Lost


class Call:
    """One call of the line. Its updates come in order; `Ended` or `Lost` is the last."""

    def __init__(self, line: "Line", number: int, offer: str = "", caller: str = "") -> None:
        self.line, self.number = line, number
        self.offer, self.caller = offer, caller
        self.over = False
        self._updates: asyncio.Queue[CallUpdate] = asyncio.Queue()

    async def update(self) -> CallUpdate:
        """The next thing that happened to the call."""
        return await self._updates.get()

    def answer(self, status: int, reason: str = "") -> None:
        """Answer an incoming call: 180 rings, 200 accepts, anything higher refuses."""
        self.line.command(Answer(self.number, status, reason))

    def reoffer(self, media: str) -> None:
        """Offer other media inside the call."""
        self.line.command(Reoffer(self.number, media))

    def say(self, text: str) -> None:
        """Send text to the far end; `Unsaid` follows where it is not taken."""
        self.line.command(Say(self.number, text))

    def press(self, key: str) -> None:
        """Send a key in INFO."""
        self.line.command(Press(self.number, key))

    def hang_up(self, reason: str = "") -> None:
        """End it, whatever state it is in; `Ended` follows."""
        if not self.over:
            self.line.command(Hangup(self.number, reason))

    def put(self, update: CallUpdate) -> None:
        """Called by the line."""
        self.over = self.over or isinstance(update, Ended | Lost)
        self._updates.put_nowait(update)


class Line:
    """The child process and the one registration that it holds. Use `open_line`."""

    def __init__(self, options: LineOptions, process: Process) -> None:
        self.options = options
        self.incoming: asyncio.Queue[Call] = asyncio.Queue()
        self.troubles: deque[str] = deque(maxlen=20)
        """What the stack complained of last."""
        self.warning = ""
        """What the stack has to do without."""
        self.amr = False
        """AMR can be offered."""
        self.address = Address(options.local_host, 0)
        """Where the SIP stack listens."""
        self._process = process
        self._numbers = count(1)
        self._calls: dict[int, Call] = {}
        self._last_words: deque[str] = deque(maxlen=5)
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._registration: asyncio.Future[Registration] | None = None
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves, with the detail, when the child has died."""
        self._quitting = False
        self._tasks = [asyncio.create_task(self._read_events()), asyncio.create_task(self._read_errors())]

    def command(self, command: Command) -> None:
        """Tell the child. A dead child is told nothing: its end has been or will be reported."""
        if self._process.stdin and not self.lost.done():
            self._process.stdin.write(encode(command))

    async def ready(self) -> None:
        """Start the stack. Raises SignallingLostError."""
        level = DEBUG_LEVEL if self.options.debug else 0
        self.command(Start(self.options.local_host, self.options.transport, level))
        started = await self._answer_of(self._ready, START_SECONDS, "the SIP stack did not start")
        self.warning, self.address = started.warning, started.address
        self.amr = any(codec.startswith("AMR/") for codec in started.codecs)

    async def register(self, contact_params: str = ";+g.dialcast.join") -> Registration:
        """Register, and stay registered until `close`. Raises RegistrationRefusedError, SignallingLostError."""
        options = self.options
        self._registration = asyncio.get_running_loop().create_future()
        suffix = ";transport=tcp" if options.transport == "tcp" else ""
        self.command(
            Register(
                uri=options.uri(options.number),
                registrar=f"sip:{options.server}{suffix}",
                user=options.number,
                password=options.password,
                expires=options.expires,
                contact_params=contact_params,
            )
        )
        try:
            outcome = await self._answer_of(self._registration, REGISTER_SECONDS, "")
        except TimeoutError:
            silence = (
                f"{options.server} does not answer; is `dialcast up` running there? "
                "--server or terminal.server names another"
            )
            raise RegistrationRefusedError(408, silence) from None
        if not 200 <= outcome.status < 300:
            raise RegistrationRefusedError(outcome.status, outcome.reason)
        return outcome

    def listen(self, media: str) -> None:
        """Take one incoming call with these m-sections; it will come through `incoming`."""
        self.command(Listen(media))

    def dial(self, uri: str, media: str, headers: tuple[tuple[str, str], ...] = ()) -> Call:
        """Call `uri`, offering our m-sections."""
        call = Call(self, next(self._numbers))
        if self.lost.done():
            call.put(Lost(self.lost.result()))
            return call
        self._calls[call.number] = call
        self.command(Dial(call.number, uri, media, headers))
        return call

    def kill(self) -> None:
        """End the child as a crash would."""
        self._process.kill()

    async def close(self) -> None:
        """Hang up what is up, deregister, end the child. Idempotent; kills a child that does not go."""
        self._quitting = True
        if self._process.returncode is None:
            self.command(Quit())
            try:
                async with asyncio.timeout(QUIT_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)

    async def _answer_of(self, future: "asyncio.Future[T]", seconds: float, complaint: str) -> T:
        either: set[asyncio.Future[Any]] = {future, self.lost}
        done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future in done:
            return future.result()
        if self.lost in done:
            raise SignallingLostError(self.lost.result())
        raise TimeoutError(complaint)

    async def _read_events(self) -> None:
        assert self._process.stdout
        detail = ""
        try:
            while line := await self._process.stdout.readline():
                self._heard(decode_event(line))
        except (MessageError, ValueError) as error:  # ValueError: a line beyond the reader's limit
            detail = f"unintelligible: {error}"
            self._process.kill()
        status = await self._process.wait()
        await asyncio.wait({self._tasks[1]}, timeout=1)
        self._child_ended(detail or " | ".join(self._last_words) or f"exit status {status}")

    async def _read_errors(self) -> None:
        """Keep the child's last words (an assert names its line there); in debug show all of them."""
        assert self._process.stderr
        while line := await self._process.stderr.readline():
            text = KEY_IN_INFO.sub("Signal=?", line.decode(errors="replace"))
            if self.options.debug:
                sys.stderr.write(text)
            if text.strip():
                self._last_words.append(text.strip()[:300])

    def _heard(self, event: Event) -> None:
        match event:
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(event)
            case Registration():
                if self._registration and not self._registration.done():
                    self._registration.set_result(event)
            case Incoming():
                call = self._calls[event.call] = Call(self, event.call, event.sdp, event.caller)
                self.incoming.put_nowait(call)
            case Trouble():
                self.troubles.append(event.text)
            case Said(call=0):
                for call in self._calls.values():
                    call.put(event)
            case _ if event.call in self._calls:
                self._calls[event.call].put(event)
                if isinstance(event, Ended):
                    del self._calls[event.call]
            case _:
                """An update of a call that has ended."""

    def _child_ended(self, detail: str) -> None:
        self.lost.set_result(detail)
        for call in self._calls.values():
            call.put(Lost("the phone was closed" if self._quitting else f"signalling process died: {detail}"))
        self._calls.clear()


async def open_line(options: LineOptions) -> Line:
    """Start the child and its SIP stack. Raises SignallingLostError when it does not come up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "terminal_client.signalling_child",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=MAX_LINE,
        start_new_session=True,  # Ctrl-C is for the phone; it hangs up properly and then ends the child
    )
    line = Line(options, process)
    try:
        await line.ready()
    except (SignallingLostError, TimeoutError) as error:
        await line.close()
        raise SignallingLostError(str(error)) from None
    except asyncio.CancelledError:
        line.kill()
        await line.close()
        raise
    return line
