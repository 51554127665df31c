"""The C engine does what the plain one does: every octet to every viewer, every event, every counter.

`DIALCAST_ENGINE_SEEDS` plays more seeds than the default, `DIALCAST_ENGINE_SEED` one again.
"""

import os
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from engine_play import UNREADABLE, Play

from media_relay.engine import Engine
from media_relay.engine.native import NativeEngine
from media_relay.engine.plain import PlainEngine

ONE = os.environ.get("DIALCAST_ENGINE_SEED")
SEEDS = [int(ONE)] if ONE else list(range(int(os.environ.get("DIALCAST_ENGINE_SEEDS", "400"))))
PART = 50


def played(make: Callable[[Random], Engine], seed: int) -> list[object]:
    play = Play(make, seed)
    try:
        play.run()
        return play.did
    finally:
        play.engine.close()  # type: ignore[attr-defined]
        play.close()


@pytest.mark.parametrize(
    "seeds", [SEEDS[at : at + PART] for at in range(0, len(SEEDS), PART)], ids=lambda part: part[0]
)
def test_both_engines_send_and_tell_the_same(seeds: list[int]) -> None:
    for seed in seeds:
        plain, native = (played(make, seed) for make in (PlainEngine, partial(NativeEngine, threaded=False)))
        first = next((at for at, pair in enumerate(zip(plain, native, strict=False)) if pair[0] != pair[1]), None)
        assert first is None, f"seed {seed}: plain {plain[first]!r}, native {native[first]!r}"
        assert len(plain) == len(native)
        assert not any(isinstance(did, tuple) and did[-1] == UNREADABLE for did in plain), f"seed {seed}"
