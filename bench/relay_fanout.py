"""`python -m bench.relay_fanout`: CPU time of the relay's plain engine per delivered packet, against bare `sendto`.

A source sends frames to the engine over loopback; the engine reads, numbers and sends them to N viewers, each a socket
of its own. In the same run, turn by turn, the same packets go to the same viewers by `socket.sendto` alone: what the
kernel costs whoever sends. Only the sender's thread time counts; every packet is taken out at the viewers and counted,
so a packet that was not delivered fails the run. The ratio is the figure to keep: microseconds are this machine's.
"""

import argparse
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from media_relay.engine import EngineLeg, GroupSpec, Inlet, Outlet
from media_relay.engine.plain import PlainEngine
from media_relay.sockets import open_udp
from protocols.control import MediaKind
from protocols.net import Address
from protocols.rtp.packet import RtpPacket

LOOPBACK = "127.0.0.1"
GROUP, SOURCE = "1001@bench", "source"
FRAMES_PER_KEYFRAME = 30
"""A keyframe every two seconds at 15 frames a second."""
FRAMES_PER_TURN = 30
BUFFER_BYTES = 4_000_000
IDR, SLICE, SPS, PPS = b"\x65", b"\x61", b"\x67\x42\xe0\x0d", b"\x68\xce\x3c\x80"

Frame = list[bytes]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the source sends: packets a frame, payload bytes a packet."""

    medium: MediaKind
    codec: str
    clock_rate: int
    payload_type: int
    packets: int
    payload_bytes: int
    ticks: int
    """RTP time from one frame to the next."""


SHAPES = (
    Shape("video", "H264", 90_000, 96, packets=3, payload_bytes=1000, ticks=6000),
    Shape("audio", "AMR", 8000, 97, packets=1, payload_bytes=33, ticks=160),
)
"""360 kbit/s of video at 15 frames a second; AMR 12.2 octet-aligned in packets of 20 ms."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Median over all turns, microseconds of CPU for each delivered packet."""

    medium: MediaKind
    viewers: int
    delivered: int
    engine_us: float
    sendto_us: float
    ratio: float


class Source:
    """Makes frames without end, a keyframe where one is due."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._sequence = self._count = 0

    def frame(self) -> Frame:
        """The RTP packets of the next frame."""
        shape = self._shape
        payloads = [self._payload() for _ in range(shape.packets)]
        if shape.medium == "video" and self._count % FRAMES_PER_KEYFRAME == 0:
            payloads = [SPS, PPS, *payloads]
        timestamp = self._count * shape.ticks
        packets = [
            RtpPacket(
                payload_type=shape.payload_type,
                sequence=(self._sequence + i) & 0xFFFF,
                timestamp=timestamp,
                ssrc=0x1001,
                marker=payload is payloads[-1],
                payload=payload,
            ).serialise()
            for i, payload in enumerate(payloads)
        ]
        self._sequence += len(packets)
        self._count += 1
        return packets

    def _payload(self) -> bytes:
        first = (IDR if self._count % FRAMES_PER_KEYFRAME == 0 else SLICE) if self._shape.medium == "video" else b"\xf0"
        return first + bytes(self._shape.payload_bytes - 1)


class Bench:
    """An engine with one source and N viewers, all on loopback."""

    def __init__(self, shape: Shape, viewers: int, stack: ExitStack) -> None:
        def opened() -> socket.socket:
            return stack.enter_context(open_udp(Address(LOOPBACK, 0), buffer_bytes=BUFFER_BYTES, dscp=0))

        self.port, self.phone = opened(), opened()
        self.viewers = [opened() for _ in range(viewers)]
        self.destinations = [sock.getsockname() for sock in self.viewers]
        self.source = Source(shape)
        self.engine = PlainEngine()
        stack.callback(self.engine.close)
        self.engine.watch(self.port)
        self.engine.set_group(GroupSpec(GROUP))
        peer = Address(*self.phone.getsockname())
        inlet = Inlet(shape.medium, self.port, peer, shape.payload_type, True, shape.codec, shape.clock_rate)
        now = time.monotonic()
        self.engine.set_leg(EngineLeg(GROUP, SOURCE, inlets=(inlet,)), now)
        for number, destination in enumerate(self.destinations):
            outlet = Outlet(shape.medium, self.port, Address(*destination), shape.payload_type, ssrc=number + 1)
            self.engine.set_leg(EngineLeg(GROUP, f"viewer-{number}", outlets=(outlet,)), now)

    def through_engine(self, frame: Frame) -> float:
        """CPU seconds to read a frame and send it to all viewers."""
        for packet in frame:
            self.phone.sendto(packet, self.port.getsockname())
        return _cpu(lambda: self.engine.step(time.monotonic()))

    def by_sendto(self, frame: Frame) -> float:
        """CPU seconds to send the same frame to the same viewers with nothing around."""

        def send() -> None:
            sendto = self.port.sendto
            for destination in self.destinations:
                for packet in frame:
                    sendto(packet, destination)

        return _cpu(send)

    def turn(self, way: Callable[[Frame], float], frames: Sequence[Frame]) -> float:
        """CPU seconds for each packet delivered. RuntimeError when one was not."""
        spent, delivered = 0.0, 0
        for frame in frames:
            spent += way(frame)
            self.engine.events()
            delivered += self._taken()
        wanted = sum(map(len, frames)) * len(self.viewers)
        if delivered != wanted:
            raise RuntimeError(f"{delivered} packets arrived instead of {wanted}: the machine is too busy to measure")
        return spent / delivered

    def _taken(self) -> int:
        count = 0
        for viewer in self.viewers:
            try:
                while True:
                    viewer.recv(2048)
                    count += 1
            except BlockingIOError:
                continue
        return count


def _cpu(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


@contextmanager
def bench(shape: Shape, viewers: int) -> Iterator[Bench]:
    """A bench whose sockets are closed at the end."""
    with ExitStack() as stack:
        yield Bench(shape, viewers, stack)


def measure(shape: Shape, viewers: int, turns: int) -> Cost:
    """`turns` turns of each way, alternating, after one to warm up."""
    with bench(shape, viewers) as made:
        engine, bare = [], []
        for _ in range(turns + 1):
            frames = [made.source.frame() for _ in range(FRAMES_PER_TURN)]
            engine.append(made.turn(made.through_engine, frames))
            bare.append(made.turn(made.by_sendto, frames))
    ratios = [one / other for one, other in zip(engine[1:], bare[1:], strict=True)]
    delivered = turns * sum(map(len, frames)) * viewers
    return Cost(
        shape.medium,
        viewers,
        delivered,
        engine_us=round(1e6 * statistics.median(engine[1:]), 2),
        sendto_us=round(1e6 * statistics.median(bare[1:]), 2),
        ratio=round(statistics.median(ratios), 2),
    )


def main() -> None:
    """Prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_fanout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--viewers", type=int, nargs="+", default=[10, 100], help="numbers of viewers (10 100)")
    parser.add_argument("--turns", type=int, default=40, help=f"turns of {FRAMES_PER_TURN} frames each way (40)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    costs = [measure(shape, viewers, options.turns) for shape in SHAPES for viewers in options.viewers]
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return
    print(f"{'medium':<8}{'viewers':>8}{'delivered':>11}{'engine us':>11}{'sendto us':>11}{'ratio':>8}")
    for cost in costs:
        figures = f"{cost.engine_us:>11.2f}{cost.sendto_us:>11.2f}{cost.ratio:>8.2f}"
        print(f"{cost.medium:<8}{cost.viewers:>8}{cost.delivered:>11}{figures}")


if __name__ == "__main__":
    main()
