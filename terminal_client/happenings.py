"""What can happen in a call besides signalling and media, and the sources that all of it comes from."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from terminal_client.screen import Screen
from terminal_client.signalling import CallUpdate
from terminal_client.streams import MediaEvent

STATS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Joined:
    """Our checks were accepted, or not."""

    failure: str = ""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The code call that forwards our number is over."""

    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Key:
    """The user chose; `!` is Ctrl-C or SIGTERM. `text` is what was typed with the choice."""

    letter: str
    text: str = ""


class Tick(float):
    """A second went by."""


class TimeUp(float):
    """The duration is over."""


Happening = CallUpdate | MediaEvent | Joined | Forwarded | Key | Tick | TimeUp


class Inbox:
    """Collects what happens in one call, in order, from sources and from work under way."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Happening] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, happening: Happening) -> None:
        """It happened."""
        self._waiting.put_nowait(happening)

    async def next(self) -> Happening:
        """The oldest that was not handled yet."""
        return await self._waiting.get()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside, until `close`."""
        self._tasks.add(asyncio.create_task(work))

    def pump(self, source: AsyncIterator[Happening]) -> None:
        """Take all that comes from `source`, until `close`."""

        async def run() -> None:
            async for happening in source:
                self.put(happening)

        self.start(run())

    async def close(self) -> None:
        """Stop whatever was begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def each(get: Callable[[], Awaitable[Happening]]) -> AsyncIterator[Happening]:
    """Whatever `get` brings, for ever."""
    while True:
        yield await get()


async def keys(screen: Screen) -> AsyncIterator[Happening]:
    """The keys that the user presses."""
    while True:
        pressed = await screen.keys.get()
        yield Key(pressed[:1], pressed[1:])


async def ticks() -> AsyncIterator[Happening]:
    """One tick a second."""
    while True:
        await asyncio.sleep(STATS_SECONDS)
        yield Tick()


async def alarm(seconds: float) -> AsyncIterator[Happening]:
    """One alarm."""
    await asyncio.sleep(seconds)
    yield TimeUp()
