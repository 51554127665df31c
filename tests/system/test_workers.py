"""Several relay workers: what the death of one costs its own broadcasts, and that it costs the others nothing."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from evented import Evented
from live import OnAir, going_live, watching
from server import Server, account

from sipp_scenarios.calls import Call

GAP = 3.0
"""Seconds without sound, or without picture, that the death of a worker may cost its viewers."""
BACK_WITHIN = 15.0
"""Seconds that are waited for a broadcast to be back: past `GAP`, so that a failure tells how long it took."""
LISTEN = 4.0
"""Seconds of media that are looked at afterwards."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", workers=2, settings={"log.level": "debug"}) as running:
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def on_air(stack: ExitStack, server: Server, folder: Path, number: str) -> None:
    """This number is live, and calls to it are forwarded."""
    stack.enter_context(going_live(folder, server, number))
    server.event("broadcast.forwarded", 15, channel=f"{number}@dialcast.internal")


def stock_viewer(stack: ExitStack, server: Server, number: str, channel: str) -> Call:
    """A phone without ICE that watches, long enough for any of these tests."""
    call = stack.enter_context(Call("watch", server.address, account(number), channel, hold=60))
    call.answered()
    server.wait(f"a picture for {number}", 10, lambda: call.media.received["video"].packets or None)
    return call


def worker_of(call: Call) -> str:
    """The worker whose ports this call got: the first has the lower half."""
    return "relay1" if call.answer["audio"].port < 30_000 else "relay2"


def longest_gap(call: Call, kind: str, since: float, until: float) -> float:
    """Seconds between two packets, the longest from `since` to `until`."""
    return longest([at for at, _ in call.media.received[kind].packets], since, until)


def longest(times: Iterable[float], since: float, until: float) -> float:
    """The longest pause of what happened at these times, from `since` to `until`."""
    between = [at for at in times if since < at < until]
    return max(after - before for before, after in pairwise([since, *between, until]))


def shown_at(ours: OnAir) -> list[float]:
    """When our terminal, which hangs up now, showed each of its pictures: on the clock of `time.monotonic`."""
    ours.type_line("q")
    assert ours.phone.exited(10) == 0
    return [picture["shown_at"] for picture in ours.phone.report()["media"]["received"]]


def video_since(call: Call, since: float) -> int:
    """Packets of the picture that came later."""
    return sum(at > since for at, _ in call.media.received["video"].packets)


def requests(call: Call) -> set[str]:
    """What the phone was asked by the server, by method."""
    seen = [message for message in call.sipp.messages() if not message.sent]
    return {message.start_line.split()[0] for message in seen} - {"SIP/2.0"}


def test_a_killed_workers_viewers_see_a_gap_and_the_others_nothing(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    on_air(stack, server, tmp_path, "1001")
    on_air(stack, server, tmp_path, "1004")
    plain = stock_viewer(stack, server, "1002", "1001")
    other = stock_viewer(stack, server, "1005", "1004")
    ours = stack.enter_context(watching(tmp_path, server, "1003", "1001"))
    doomed = worker_of(plain)
    assert worker_of(other) != doomed, "spread over both"
    invites = dialled(server)
    time.sleep(2)  # the relay has told by then where its phones are
    at = time.monotonic()
    server.restarted(doomed, server.kill_part(doomed))
    server.wait("the picture again", BACK_WITHIN, lambda: video_since(plain, at + 0.1) > 20 or None)
    pictures = ours.pictures()
    assert ours.more_pictures_than(pictures + 15, within=BACK_WITHIN)
    time.sleep(LISTEN)
    until = time.monotonic()
    gaps = {kind: round(longest_gap(plain, kind, at, until), 2) for kind in ("audio", "video")}
    print(f"gap of a stock phone {gaps}, of the other broadcast {longest_gap(other, 'audio', at, until):.2f} s")
    assert max(gaps.values()) <= GAP, gaps
    assert len(plain.media.received["video"].sources()) == 2, "one stream before, another after"
    assert [len(received.sources()) for received in other.media.received.values()] == [1, 1]
    assert [received.lost() for received in other.media.received.values()] == [0, 0]
    assert requests(plain) | requests(other) <= {"OPTIONS"}, "neither INVITE nor BYE"
    assert not ours.all_events("phone.ended")
    assert dialled(server) == invites, "nobody called again, nor was called"
    gap = longest(shown_at(ours), at, until)
    print(f"gap of our terminal's picture {gap:.2f} s")
    assert gap <= GAP


def dialled(server: Server) -> int:
    """How many INVITEs have come and gone."""
    messages = (*server.all_events("sip.received"), *server.all_events("sip.sent"))
    return sum(message.get("method") == "INVITE" for message in messages)


def media_ports(process: int) -> set[int]:
    """The UDP ports a process has bound, as Linux tells it."""
    inodes = {found[1] for name in Path(f"/proc/{process}/fd").iterdir() if (found := _socket(name))}
    rows = [row.split() for row in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[9] in inodes}


def _socket(descriptor: Path) -> re.Match[str] | None:
    try:
        return re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
    except OSError:
        return None


def test_media_whose_ports_were_taken_moves_by_reinvite(server: Server, stack: ExitStack, tmp_path: Path) -> None:
    broadcaster = stack.enter_context(going_live(tmp_path, server, "1001"))
    server.event("broadcast.forwarded", 15)
    viewer = stack.enter_context(watching(tmp_path, server, "1002", "1001"))
    worker = next(name for name in ("relay1", "relay2") if media_ports(server.part(name)))
    before = media_ports(server.part(worker))
    os.kill(server.process.pid, signal.SIGSTOP)  # the supervisor: nobody is started until all ports are taken
    try:
        killed = server.kill_part(worker)
        for port in before:
            stack.enter_context(server.wait(f"port {port}, which the dead relay lets go", 5, partial(taken, port)))
    finally:
        at = time.monotonic()
        os.kill(server.process.pid, signal.SIGCONT)
    new = server.restarted(worker, killed)
    server.event("broadcast.reopened", BACK_WITHIN)
    assert not media_ports(new) & before
    moved = {message["call_id"] for message in server.all_events("sip.sent") if message.get("method") == "INVITE"}
    assert len(moved) == 2, "one to the broadcaster, one to the viewer"
    pictures = viewer.pictures()
    assert viewer.more_pictures_than(pictures + 15, within=BACK_WITHIN)
    assert not viewer.all_events("phone.ended") and not broadcaster.all_events("phone.ended")
    until = time.monotonic()
    gap = longest(shown_at(viewer), at, until)
    print(f"gap of our terminal's picture, from when the relay may start again: {gap:.2f} s")
    assert gap <= GAP


def taken(port: int) -> socket.socket | None:
    """A socket on this port, once nobody has it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    return sock


def test_relay_workers_alone_are_named_in_one_line_and_come_back_on_their_ports() -> None:
    free = {"DIALCAST_OPERATIONS__RELAY_PORT": "0", "DIALCAST_LOG__FORMAT": "json"}
    with Evented("relay", "--workers", "3", environment=free) as relay:
        ready = relay.wait("the ready line", 30, lambda: next(iter(relay.output), None))
        found = re.fullmatch(r"ready control=(\S+) metrics=(\S+)", ready)
        assert found is not None
        controls = [place.rpartition(":")[2] for place in found[1].split(",")]
        assert len(set(controls)) == len(set(found[2].split(","))) == 3
        killed = relay.all_events("process.started", name="relay2")[-1]["pid"]
        os.kill(killed, signal.SIGKILL)
        again = relay.wait("a second life", 20, lambda: relay.all_events("relay.started", part="relay2")[1:] or None)
        assert again[0]["control"].rpartition(":")[2] == controls[1]
        with socket.create_connection(("127.0.0.1", int(controls[1])), 5):
            assert relay.stop() == 0
