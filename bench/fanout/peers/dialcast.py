"""`dialcast relay`, told by its control link what an application server would tell it."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, cast

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from bench.fanout.peers.process import (
    AUDIO_TYPE,
    HOST,
    STOP_WITHIN,
    VIDEO_TYPE,
    Inlet,
    Places,
    Running,
    started,
)
from bench.machine import BenchError
from protocols.control import AddViewer, Event, Hello, LegInfo, LegSpec, MediaKind, MediaSpec, OpenGroup
from protocols.net import Address
from protocols.srtp import KEY_BYTES, Profile, Srtp
from provisioning.config import Config
from sip_app.broadcast.relay_link import RelayLink

START_WITHIN: Final = 20.0
AT_ONCE: Final = 16
"""Groups opened at a time."""


@contextmanager
def dialcast(folder: Path, places: Places, engine: Literal["native", "plain"]) -> Iterator[Running]:
    """A relay of ours with all its groups and viewers."""
    relay = {
        "engine": engine,
        "leg_timeout": 3600,
        "unanswered_timeout": 3600,
        "source_bitrate_max": 50_000_000,
        "max_groups": places.groups + 1,
        "max_legs_per_group": places.viewers + 1,
    }
    settings = {"relay": relay, "operations": {"as_port": 0, "relay_port": 0}, "data_dir": str(folder / "data")}
    written = folder / f"{engine}.yaml"
    written.write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "dialcast", "relay", "--config", str(written)]
    with started(command, r"control=\S+:(\d+)", folder) as (pid, port):
        told = _Told(places)
        with told.to(int(port)) as inlets:
            yield Running(inlets, pid, told.keys)


class _Listener:
    """Of a control link that needs nothing told."""

    async def relay_up(self, link: RelayLink) -> None:
        """Nothing to reconcile."""

    def relay_down(self, link: RelayLink) -> None:
        """It is dialled again."""

    def relay_event(self, event: Event) -> None:
        """Joined, keyframe wanted: the broadcaster of a benchmark sends what it sends."""


@dataclass(slots=True)
class _Told:
    """What the relay is told of groups and viewers; a thread keeps the control link up."""

    places: Places
    keys: dict[int, Srtp] = field(default_factory=dict)

    @contextmanager
    def to(self, control: int) -> Iterator[list[Inlet]]:
        """Everybody is there; where the broadcasters are to send."""
        inlets: list[Inlet] = []
        failed: list[BaseException] = []
        ready, over = threading.Event(), threading.Event()

        async def hold() -> None:
            link = RelayLink(
                AsyncioSelectorReactor(asyncio.get_running_loop()),
                Address(HOST, control),
                Hello("bench", 1, ""),
                Config().control,
            )
            link.start(_Listener())
            try:
                await asyncio.wait_for(link.settled.wait(), START_WITHIN)
                inlets.extend(await self._opened(link))
                ready.set()
                await asyncio.to_thread(over.wait)
            except Exception as error:  # told on the thread that waits for us
                failed.append(error)
            finally:
                ready.set()
                await link.stop()

        thread = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
        thread.start()
        ready.wait()
        if failed:
            raise BenchError(f"the relay did not take the groups: {failed[0]}")
        try:
            yield inlets
        finally:
            over.set()
            thread.join(STOP_WITHIN)

    async def _opened(self, link: RelayLink) -> list[Inlet]:
        room = asyncio.Semaphore(AT_ONCE)

        async def group(number: int) -> Inlet:
            name = f"{number}@bench"
            async with room:
                info = await link.call(OpenGroup(name, 1, self._source(number)), LegInfo)
                for viewer in range(self.places.viewers):
                    await link.call(AddViewer(name, 1, self._viewer(number, viewer)), LegInfo)
            ports = {medium.kind: medium.rtp.port for medium in info.media}
            return Inlet(ports["video"], ports["audio"])

        return list(await asyncio.gather(*map(group, range(self.places.groups))))

    def _source(self, group: int) -> LegSpec:
        port = self.places.source(group)
        media = _medium("audio", port + 1, source=True), _medium("video", port, source=True)
        return LegSpec("source", str(group), HOST, media)

    def _viewer(self, group: int, viewer: int) -> LegSpec:
        port, place = self.places.viewer(group, viewer), self.places.place(group, viewer)
        video, audio = _medium("video", port, source=False), _medium("audio", port + 1, source=False)
        if self.places.profile:
            video, audio = self._keyed(video, place), self._keyed(audio, place + 1)
        return LegSpec(f"viewer-{viewer}", str(viewer), HOST, (audio, video))

    def _keyed(self, medium: MediaSpec, place: int) -> MediaSpec:
        profile = cast("Profile", self.places.profile)
        self.keys[place] = Srtp(profile, os.urandom(KEY_BYTES[profile]))
        return replace(medium, send_security=self.keys[place])


def _medium(kind: MediaKind, port: int, *, source: bool) -> MediaSpec:
    codec, payload_type, rate = ("H264", VIDEO_TYPE, 90_000) if kind == "video" else ("PCMU", AUDIO_TYPE, 8000)
    here = Address(HOST, port)
    spec = MediaSpec(kind, codec, payload_type, rate, not source, source, here, here, rtcp_mux=True)
    return replace(spec, fmtp="packetization-mode=1;profile-level-id=42e01f") if kind == "video" else spec
