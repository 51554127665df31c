"""The harnesses in C and the inputs they start from."""

import functools
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fuzz.native import build
from fuzz.target import Defect, Target

_SECONDS = 20
"""For one input, with the start of a process under sanitizers on a busy machine."""


def _replay(name: str, data: bytes) -> None:
    """One input through the compiled harness. Raises Defect with what the sanitizers say, NoCompiler without gcc."""
    program = build.replayer(name)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        done = subprocess.run([program, file.name], capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise Defect(done.stderr.decode("utf-8", "replace")[:4000])


def _payloads() -> Iterable[bytes]:
    rtp = bytes.fromhex("90e1000100000002000000030001000100000000ffff")
    stap = b"\x78\0\5\x67\x42\xe0\x1f\x8c\0\4\x68\xce\x3c\x80"
    sets = b"".join(len(unit).to_bytes(2, "big") + unit for unit in (stap, b"\x67\x42\xe0\x1f", b"\x7c\x85" + bytes(9)))
    yield b"\0" + rtp
    yield b"\1" + sets
    yield b"\3" + b"\xf0\x3c" + bytes(31)  # AMR 12.2, octet-aligned
    yield b"\3" + b"\xf0\xbc\x3c" + bytes(62)  # and two of them
    yield b"\2" + b"\xf3\xc0" + bytes(31)  # packed
    yield b"\5" + b"\xf0\x44" + bytes(60)  # AMR-WB 23.85
    yield b"\4" + b"\xf4\x40" + bytes(60)


def _datagram(peer: int, data: bytes) -> bytes:
    return bytes([peer]) + len(data).to_bytes(2, "big") + data


def _rtp(sequence: int, payload: bytes) -> bytes:
    return b"\x80\x61" + sequence.to_bytes(2, "big") + bytes(4) + b"SSRC" + payload


def _datagrams() -> Iterable[bytes]:
    stun = bytes.fromhex("000100002112a442") + bytes(12)
    others = [stun, b"\x16\xfe\xfd" + bytes(20), b"\x40\0\0\4" + bytes(4), b"\x81\xc9\0\7" + bytes(28), b"", b"\0\0"]
    yield bytes([11]) + b"".join(_datagram(peer, data) for peer in (0, 1) for data in others)
    edges = [(first, second) for first in (127, 128, 191, 192) for second in (191, 192, 223, 224)]
    for size in (11, 12):
        yield bytes([15]) + b"".join(_datagram(0, bytes(edge) + bytes(size - 2)) for edge in edges)
    yield bytes([5]) + b"".join(_datagram(0, _rtp(number, b"\x65" + bytes(50))) for number in range(6))
    yield bytes([1]) + _datagram(0, _rtp(0, bytes(16372))) + _datagram(1, _rtp(0, bytes(2040)))


_GROUP = bytes([0, 0xF8])
_SOURCE = bytes([1, 0, 2, 0, 1, 0, 0, 10, 4]) + b"\x67\x42\xe0\x1f" + bytes([4]) + b"\x68\xce\x3c\x80"
_AUDIO = bytes([1, 0, 2, 0, 1, 7, 0, 0])
_SEEN = bytes([12, 255, 1])


_ENCRYPTING = bytes([1, 0, 2, 0, 1, 0, 0, 0x10])


def _viewer(leg: int, kind: int, place: int, numbers: int = 3) -> bytes:
    return bytes([1, leg, 2, leg, 4, kind, place, numbers])


def _commands() -> Iterable[bytes]:
    packet = bytes([0x1C, 0]) + bytes(28)
    burst = bytes([7, 1, 7]) + 8 * packet
    run = bytes([8, 1, 0x0F, 40])
    tick = bytes([11, 2])
    through_socket = bytes([9, 0x80, 7]) + 8 * packet
    resend = bytes([10, 0x49, 60, 0, 7])
    live = _GROUP + _SOURCE + _viewer(1, 1, 2) + burst
    yield live + _viewer(2, 1, 4) + 4 * tick + _SEEN
    yield live + run + _viewer(2, 1, 4) + tick + run + tick + resend + _SEEN
    yield _GROUP + _SOURCE + _viewer(1, 1, 6) + through_socket + tick + through_socket + tick + _SEEN
    encrypted = bytes([9, 0xC0, 7]) + 8 * (packet + b"\0")
    yield _GROUP + _ENCRYPTING + _viewer(1, 1, 2, 4) + _viewer(2, 1, 4, 8) + 3 * (encrypted + tick) + resend + _SEEN
    yield live + bytes([2, 1, 4, 5, 2, 7]) + run + bytes([2, 1, 4, 1, 2, 7]) + 3 * tick + _SEEN
    yield (
        _GROUP + _AUDIO + _viewer(1, 8, 2) + _viewer(2, 16, 4) + bytes([8, 0, 8, 20]) + tick + bytes([10, 2, 20, 0, 7])
    )
    yield live + bytes([13, 2, 13, 0]) + through_socket + tick + bytes([4, 1, 4, 0, 5, 0]) + tick + _SEEN
    yield live + bytes([1, 3, 2, 3, 1, 0, 2, 0]) + run + bytes([11, 7]) + burst + _viewer(2, 1, 4) + tick + _SEEN


TARGETS = tuple(
    Target(f"native-{name}", functools.partial(_replay, name), seeds, most, functools.partial(build.fuzzer, name))
    for name, seeds, most in (
        ("payloads", _payloads, 8192),
        ("datagrams", _datagrams, 32_768),
        ("commands", _commands, 4096),
    )
)
