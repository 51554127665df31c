"""The plot: 1001 goes live with real footage and real speech, three watch, roles swap, all hang up.

Everything runs as separate processes on loopback, through `dialcast up` and `dialcast phone`, as anybody would use
them: the terminals are asked by keys, told their numbers, and report by events.
"""

import asyncio
import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from dialcast.demo.actor import Actor, DemoError, Event
from dialcast.demo.ladder import Arrow, Ladder, check, draw, endings
from dialcast.demo.outcome import print_arrow, print_heading, print_outcome, print_views, write_report
from dialcast.demo.scene import (
    BEFORE_STREAM,
    BROADCASTER,
    MID_PICTURE_GROUP,
    OVER_TCP,
    SERVICE,
    Scene,
    View,
    look,
    scenes,
)
from dialcast.footage import Footage, footage

MID_GROUP = 5.0
"""Seconds of streaming before the next viewer dials: half-way between two keyframes, which come every two seconds."""
WATCHING = 10.0
"""Seconds the first broadcast is watched by all three."""
SWAPPED = 7.0
"""Seconds the second broadcast is watched."""
LADDER_DELAY = 0.4
"""Seconds the ladder runs behind, so that the events of all processes are in before a line is printed."""


@dataclass(slots=True)
class Stage:
    """What is running and where its traces go."""

    out: Path
    logs: Path
    console: Console
    server: Actor = field(init=False)
    phones: list[tuple[str, Actor]] = field(default_factory=list)
    swapped_at: float = 0.0
    _address: dict[str, str] = field(default_factory=dict)
    _printed: int = 0

    def __post_init__(self) -> None:
        self.server = Actor(
            "server",
            *("up", "--bind", "127.0.0.1", "--sip-port", "0", "--data-dir", str(self.logs / "data")),
            *("--log-level", "debug", "--log-format", "json"),
            log=self.logs / "server.log",
        )

    async def open(self, stack: AsyncExitStack) -> None:
        """Start the server, to be stopped by `stack`; returns when it is ready."""
        await self.server.start()
        stack.push_async_callback(self._close)
        ready = await self.server.line("ready ")
        self.console.print(ready)
        self._address = dict(part.split(":", 1) for part in ready.split()[1].removeprefix("sip=").split(","))
        print_heading(self.console)

    async def _close(self) -> None:
        """End everything that still runs, the server last."""
        for _, phone in self.phones:
            await phone.stop()
        await self.server.stop()

    def broadcaster(self, scene: Scene, *, send: str) -> Actor:
        """A phone that dials the service number, showing the scene's clip and saying its voice."""
        options = ("--camera", str(scene.clip), "--microphone", str(scene.voice), "--send", send, "--stamp")
        return self._phone(scene.broadcaster, "udp", "broadcast", *options, "--report", str(scene.report(self.out)))

    def viewer(self, scene: Scene, number: str, *, transport: str = "udp") -> Actor:
        """A phone that calls the scene's broadcaster, records, and takes a picture of what it sees."""
        report, recording, snapshot = scene.traces(self.out, number)
        files = ("--report", str(report), "--record", str(recording), "--snapshot", str(snapshot))
        return self._phone(number, transport, "watch", scene.broadcaster, "--receive", "now", *files)

    def _phone(self, number: str, transport: str, *arguments: str) -> Actor:
        actor = Actor(
            number,
            *("phone", *arguments, "--server", self._address[transport], "--transport", transport),
            *("--number", number, "--password", f"dialcast-{number}", "--log-format", "json"),
            log=self.logs / f"phone-{len(self.phones) + 1}-{number}.log",
        )
        self.phones.append((number, actor))
        return actor

    def arrows(self) -> list[Arrow]:
        """The ladder so far."""
        reports: dict[str, list[Event]] = {}
        for number, actor in self.phones:
            reports.setdefault(number, []).extend(actor.events)
        return draw(self.server.events, reports)

    def acts(self, arrows: list[Arrow]) -> tuple[list[Arrow], list[Arrow]]:
        """The arrows before and after the roles were swapped."""
        swap = self.swapped_at or float("inf")
        return [arrow for arrow in arrows if arrow.at < swap], [arrow for arrow in arrows if arrow.at >= swap]

    async def print_ladder(self) -> None:
        """Print arrows as they happen, until cancelled."""
        while True:
            await asyncio.sleep(LADDER_DELAY)
            self.print_until(time.time() - LADDER_DELAY)

    def print_until(self, until: float) -> None:
        """Print what happened before `until` and was not printed yet."""
        arrows = self.arrows()
        while self._printed < len(arrows) and arrows[self._printed].at <= until:
            print_arrow(self.console, arrows[self._printed], arrows[0].at)
            self._printed += 1


async def show(out: Path, console: Console) -> int:
    """The whole demonstration; the exit status. Leaves report, snapshots and recordings in `out`.

    Raises DemoError when another one uses `out`, FootageError when there is nothing to show.
    """
    started = time.monotonic()
    console.print("footage and voices (fetched the first time) ...")
    clips = await asyncio.to_thread(footage)
    with _alone(out):
        stage = Stage(out, _clean(out), console)
        problems = await _perform(stage, clips)
        stage.print_until(time.time() + 1)
        console.print("judging what was seen and heard ...")
        views = [
            await asyncio.to_thread(look, scene, number, out) for scene in scenes(clips) for number in scene.viewers
        ]
        ladder = _check(stage, clips, views, problems)
        print_views(console, views)
        write_report(out / "report.json", ladder, views, problems)
        print_outcome(console, out, problems, time.monotonic() - started)
    return 1 if problems else 0


async def _perform(stage: Stage, clips: Footage) -> list[str]:
    """Play it all; what could not be played."""
    async with AsyncExitStack() as stack:
        try:
            await stage.open(stack)
            printer = asyncio.create_task(stage.print_ladder())
            stack.callback(printer.cancel)
            await _play(stage, clips)
        except DemoError as error:
            return [str(error)]
    return []


def _check(stage: Stage, clips: Footage, views: list[View], problems: list[str]) -> Ladder:
    """The first broadcast's ladder; whatever is wrong with anything goes to `problems`."""
    arrows = stage.arrows()
    ladder = Ladder()
    for scene, part in zip(scenes(clips), stage.acts(arrows), strict=True):
        found = check(part, SERVICE, scene.broadcaster, scene.viewers)
        wrong = [*found.problems, *endings(part, scene.broadcaster, scene.stayed)]
        problems += [f"broadcast of {scene.broadcaster}: {problem}" for problem in wrong]
        if not ladder.arrows:
            ladder = found
    problems += [f"viewer {view.number} of {view.channel}: {failure}" for view in views for failure in view.failures]
    return ladder


async def _play(stage: Stage, clips: Footage) -> None:
    """The story; every wait in it has an end."""
    first, second = scenes(clips)
    broadcaster = stage.broadcaster(first, send="ask")
    early = stage.viewer(first, BEFORE_STREAM)
    await broadcaster.start()
    await broadcaster.wait("phone.cfu_activated")
    started = time.time()
    await early.start()
    to_dial = (await early.wait("phone.dialled"))["ts"] - started
    await early.wait("phone.joined")
    broadcaster.press("s")
    sending = (await broadcaster.wait("phone.sending"))["ts"]
    await early.wait("phone.live")
    await asyncio.sleep(sending + MID_GROUP - to_dial - time.time())
    late, reliable = stage.viewer(first, MID_PICTURE_GROUP), stage.viewer(first, OVER_TCP, transport="tcp")
    await late.start()
    await late.wait("phone.dialled")
    await reliable.start()
    await late.wait("phone.live")
    await reliable.wait("phone.live")
    await asyncio.sleep(WATCHING)
    broadcaster.press("q")
    for phone in (early, late, reliable, broadcaster):
        await phone.ended()

    stage.swapped_at = time.time()
    swapped = stage.broadcaster(second, send="now")
    viewer = stage.viewer(second, BROADCASTER)
    await swapped.start()
    await swapped.wait("phone.sending")
    await swapped.wait("phone.cfu_activated")
    await viewer.start()
    await viewer.wait("phone.live")
    await asyncio.sleep(SWAPPED)
    viewer.press("q")
    await viewer.ended()
    swapped.press("q")
    await swapped.ended()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder against a second demonstration. Raises DemoError when one runs."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demonstration runs in {out}: wait for it, or choose another --out") from None
        yield


def _clean(out: Path) -> Path:
    """The folder for logs. What an earlier demonstration left is removed, nothing else: it is the user's."""
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(logs / "data", ignore_errors=True)
    ours = ("report.json", "broadcaster-*.json", "viewer-*-of-*.*", "logs/server.log", "logs/phone-*.log")
    for old in (path for pattern in ours for path in out.glob(pattern)):
        old.unlink()
    return logs
