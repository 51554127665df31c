"""The fan-out benchmark judges right: a good relay is valid, and each thing a relay may do wrong is found."""

import json
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.fanout.__main__ import memory
from bench.fanout.peers import RELAYS
from bench.fanout.peers.bencode import decoded, encoded
from bench.fanout.peers.process import VIEWER_PORTS, Relay, compiled, missing, ports_in_a_row, started
from bench.fanout.plot import curves, drawn
from bench.fanout.runs import FIRST, Latency, Row, Run, Work, measured, row
from bench.machine import BenchError

SEED, PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
RUN = Run(2.0, 1.0, 0.0, True, Latency(0.1, 0.2, 0.3), 1_000_000, 0.0)
ROW = row("dialcast", Work(10, 1, "steady", "", 5.0), [RUN])


def check(data: bytes) -> int:
    """The checksum at a payload's end, as packet.h says."""
    value = SEED
    whole = len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        value = (value ^ word) * PRIME & MASK
    for octet in data[whole:]:
        value = (value ^ octet) * PRIME & MASK
    return (value ^ value >> 32) & 0xFFFFFFFF


def packet(number: int, *, ssrc: int = 7, counter: int | None = None, late: int = 0, group: int = 0) -> bytes:
    """A packet that was the source's `counter`-th, its timestamp `late` ticks off."""
    counter = number if counter is None else counter
    payload = struct.pack("!BQIIH", 0x61, time.time_ns(), counter, 3000 * counter, group) + bytes(40)
    header = struct.pack("!BBHII", 0x80, 96, number & 0xFFFF, 3000 * number + 5 + late, ssrc)
    return header + payload + struct.pack("!I", check(payload))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fanout")


Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def judge(programs: Path) -> Judge:
    """What the viewers say of the packets that the video port of each of some viewers got."""

    def judged(
        *packets: bytes, viewers: int = 1, read: int = 1, options: tuple[str, ...] = (), later: Iterable[bytes] = ()
    ) -> dict[str, Any]:
        first = ports_in_a_row(2 * viewers, *VIEWER_PORTS)
        command = [str(compiled("viewers", programs)), str(first), "1", str(viewers), str(read), "30", *options]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watching,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            assert watching.stdin is not None
            assert watching.stdout is not None
            assert watching.stdout.readline() == "ready\n"
            for viewer in range(viewers):
                for each in packets:
                    sender.sendto(each, ("127.0.0.1", first + 2 * viewer))
            time.sleep(FIRST if later else 0)
            for each in later:
                sender.sendto(each, ("127.0.0.1", first))
            watching.stdin.close()
            return dict(json.loads(watching.stdout.read()))

    return judged


def test_viewers_find_nothing_wrong_with_a_stream_as_it_was_sent(judge: Judge) -> None:
    found = judge(*map(packet, range(65_530, 65_545)), later=(packet(number) for number in range(65_545, 65_550)))
    assert (found["packets"], found["lost"], found["strange"], found["broken"]) == (20, 0, 0, 0)
    assert 0 <= found["first_p50"] <= found["last_p99"] < 60_000
    assert judge(packet(1), packet(2))["first_p50"] < 0, "the first second tells no latency"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([packet(1), packet(3)], {"lost": 1, "strange": 0, "broken": 0}),
        ([packet(1), packet(3), packet(2)], {"lost": 1, "strange": 1, "broken": 0}),
        ([packet(1), packet(1)], {"lost": 0, "strange": 1, "broken": 0}),
        ([packet(1), packet(2, ssrc=8)], {"lost": 0, "strange": 1, "broken": 0}),
        ([packet(1), packet(2, counter=3)], {"lost": 0, "strange": 2, "broken": 0}),
        ([packet(1), packet(2, late=90)], {"lost": 0, "strange": 1, "broken": 0}),
        ([packet(1, group=1)], {"lost": 0, "strange": 1, "broken": 0}),
        ([packet(1)[:-9] + b"\xff" + packet(1)[-8:]], {"lost": 0, "strange": 0, "broken": 1}),
        ([b"\x80\x60" + bytes(10)], {"lost": 0, "strange": 0, "broken": 1}),
    ],
    ids=["gap", "order", "twice", "ssrc", "number", "timestamp", "group", "payload", "short"],
)
def test_viewers_find_what_a_relay_did_wrong(judge: Judge, wrong: list[bytes], told: dict[str, int]) -> None:
    found = judge(*wrong)
    assert {name: found[name] for name in told} == told


def test_what_is_not_read_is_counted_by_the_kernel_and_reports_are_not(judge: Judge) -> None:
    report = bytes([0x80, 200, 0, 6]) + bytes(24)
    found = judge(*map(packet, range(5)), report, viewers=4, read=2)
    assert found["judged"] == 2 * 3  # two spread evenly, and the last
    assert found["packets"] + found["unread"] == 4 * 5
    assert found["unread"] == 5


def test_recorded_video_is_known_by_its_hash_and_its_times_by_a_shared_file(judge: Judge, tmp_path: Path) -> None:
    payloads = [bytes([0x61, number]) * 100 for number in range(6)]
    trace, times = tmp_path / "trace", tmp_path / "times"
    trace.write_bytes(b"".join(struct.pack("<IH", i // 2, 200) + payload for i, payload in enumerate(payloads)))
    times.write_bytes(struct.pack("<6Q", *[time.time_ns()] * 6))

    def sent(number: int, payload: bytes) -> bytes:
        return struct.pack("!BBHII", 0x80, 96, number, number // 2 * 3000, 7) + payload

    good = [sent(number, payload) for number, payload in enumerate(payloads)]
    options = ("-t", str(trace), str(times))
    found = judge(*good, options=options)
    assert (found["packets"], found["lost"], found["strange"], found["broken"]) == (6, 0, 0, 0)
    swapped = [*good[:3], sent(3, payloads[4]), sent(4, payloads[3]), good[5]]
    assert judge(*swapped, options=options)["broken"] == 2


@pytest.mark.parametrize(("groups", "viewers", "source"), [(1, 3, "steady"), (5, 2, "300k")])
def test_the_floor_is_valid(programs: Path, groups: int, viewers: int, source: str) -> None:
    run = measured("limit", Work(viewers, groups, source, "", 0.5), programs)
    assert run.valid
    assert run.loss_pct == 0
    assert run.cpu_us > 0
    assert run.rss_bytes > 0


def test_a_relay_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"ls did not start: .*no-such-place"),
        started(["ls", "/no-such-place"], "up", tmp_path),
    ):
        pass


@pytest.mark.parametrize("engine", ["python", "dialcast"])
def test_our_relay_forwards_what_the_viewers_judge(programs: Path, engine: str) -> None:
    run = measured(engine, Work(2, 2, "300k", "", 0.5), programs)
    assert run.valid
    assert run.loss_pct == 0
    assert run.latency.last_p50 > 0


def test_a_row_is_the_median_and_only_as_good_as_its_worst_run() -> None:
    runs = [replace(RUN, cpu_us=cost) for cost in (3.0, 1.0, 9.0)]
    made = row("rtpengine", Work(10, 1, "steady", "", 5.0), [*runs[:2], replace(runs[2], valid=False, loss_pct=2.5)])
    assert (made.cpu_us_per_packet, made.spread) == (3.0, (1.0, 9.0))
    assert (made.valid, made.loss_pct) == (False, 2.5)
    assert (made.rewrites, made.encrypts) == (False, False)
    assert row("dialcast", Work(10, 1, "steady", "AEAD_AES_128_GCM", 5.0), [RUN]).encrypts


def test_memory_is_told_from_rows_that_differ_in_one_thing() -> None:
    def held(groups: int, viewers: int, size: int) -> Row:
        return replace(ROW, groups=groups, viewers=viewers, rss_bytes=size)

    assert list(memory([ROW])) == []
    (found,) = memory([held(1, 10, 1_000_000), held(1, 110, 1_500_000)])
    assert (found.bytes_per_leg, found.bytes_per_group) == (5_000, None)
    (found,) = memory([held(1, 3, 1_000_000), held(1, 103, 1_500_000), held(101, 3, 4_500_000)])
    assert (found.bytes_per_leg, found.bytes_per_group) == (5_000, 35_000 - 3 * 5_000)


def test_a_picture_leaves_out_rows_that_are_not_valid(tmp_path: Path) -> None:
    rows = [
        {"relay": relay, "viewers": viewers, "groups": 1, "source": "steady", "cpu_us_per_packet": cost, "valid": valid}
        for relay, viewers, cost, valid in (
            ("limit", 100, 1.5, True),
            ("limit", 10, 4.5, True),
            ("janus", 10, 9.0, True),
            ("janus", 100, 0.2, False),
        )
    ]
    found = curves(rows)
    assert [(curve.relay, curve.points) for curve in found] == [
        ("limit", ((10, 4.5), (100, 1.5))),
        ("janus", ((10, 9.0),)),
    ]
    picture = drawn(found, "costs <here>", ["a machine"])
    assert "limit 1.50" in picture.svg()
    assert "costs &lt;here&gt;" in picture.svg()
    with suppress(ImportError):  # OpenCV is of the `phone` extra
        picture.png(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_bencoding_goes_there_and_back() -> None:
    said = encoded({"command": "publish", "sdp": "v=0\r\né", "flags": ["a", "b"], "codec": {"accept": ["x"]}, "n": -3})
    assert said.startswith(b"d7:command7:publish3:sdp7:v=0\r\n\xc3\xa9")
    assert decoded(said) == {"command": "publish", "sdp": "v=0\r\né"}
    for wrong in (b"i3e", b"d3:abc", b"", b"d1:a"):
        with pytest.raises(ValueError):
            decoded(wrong)


def test_a_peer_that_is_missing_is_told_how_to_get() -> None:
    assert missing(RELAYS["limit"]) is None
    lacking = Relay(RELAYS["janus"].start, rewrites=True, program="no-such-relay", packages="some-package")
    assert missing(lacking) == "there is no no-such-relay here: apt-get install some-package"
