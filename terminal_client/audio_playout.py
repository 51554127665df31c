"""The audio playout buffer: smooths the network's jitter, follows the sender's clock, conceals what is missing.

Every 20 ms of the monotonic clock one block is played. What steers the delay is how long before their turn packets
arrive: if even the most delayed packet of the last seconds came early enough, a block is skipped; if one came too
late or nearly so, a block is held. A sender whose clock runs faster or slower than ours is followed by the same rule.
"""

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from terminal_client.audio_codec import AudioCodec
from terminal_client.microphone import BLOCK_SAMPLES, BLOCK_SECONDS, SAMPLE_RATE, Samples
from terminal_client.report import AudioReport
from terminal_client.sinks import SoundSink

LOW_MARGIN: Final = 0.010
"""A packet that comes closer to its turn than this makes the buffer hold a block."""
WINDOW: Final = 2.0
"""Seconds over which the worst margin is looked for."""
STARVED_MS: Final = 500
"""After so much concealment in a row the stream counts as paused, and playout starts over with its next packet."""
JUMP: Final = 2 * SAMPLE_RATE
"""A timestamp this far from the playout position means a new stream, not a late packet."""
FADE: Final = 0.5


class PlayoutBuffer:
    """Frames ordered by RTP timestamp, handed out block by block. No clock of its own, no decoder.

    Timestamps are extended (they never wrap) and count samples at 8 kHz.
    """

    def __init__(self, frame_samples: int, delay: float, max_delay: float) -> None:
        self.counts = AudioReport()
        self._frame_samples = frame_samples
        self._delay = delay
        self._max_delay = max_delay
        self._frames: list[tuple[int, bytes]] = []
        self._cursor: int | None = None
        self._start_at = 0.0
        self._margins: deque[tuple[float, float]] = deque()
        self._missing = 0
        self._hold = False

    @property
    def delay_ms(self) -> float:
        """How much sound waits in the buffer now."""
        if self._cursor is None or not self._frames:
            return 0.0
        return max(0.0, (self._frames[-1][0] + self._frame_samples - self._cursor) * 1000 / SAMPLE_RATE)

    def put(self, timestamp: int, frames: Sequence[bytes], now: float) -> None:
        """Take the frames of one packet, which arrived at `now`."""
        if self._cursor is not None and abs(timestamp - self._cursor) > JUMP:
            self._restart()
        if self._cursor is None:
            self._cursor = timestamp
            self._start_at = now + self._delay
        elif now < self._start_at:
            self._cursor = min(self._cursor, timestamp)  # reordered ahead of the first block
        else:
            self._note_margin((timestamp - self._cursor) / SAMPLE_RATE, now)
        for number, frame in enumerate(frames):
            at = timestamp + number * self._frame_samples
            if at + self._frame_samples <= self._cursor:
                continue
            place = bisect_left(self._frames, at, key=lambda entry: entry[0])
            if place == len(self._frames) or self._frames[place][0] != at:
                insort(self._frames, (at, frame), key=lambda entry: entry[0])
        if self.delay_ms > self._max_delay * 1000:
            self._catch_up()

    def take(self, now: float) -> list[bytes | None] | None:
        """The frames of the block that is due at `now`, None standing for a missing frame; None: nothing plays yet."""
        if self._cursor is None or now < self._start_at:
            return None
        if self._hold:
            self._hold = False
            self.counts.held_blocks += 1
            return [None] * (BLOCK_SAMPLES // self._frame_samples)
        if self._too_much_delay(now):
            self.counts.skipped_blocks += 1
            self._margins.clear()
            self._cursor += BLOCK_SAMPLES
        block = [self._next_frame() for _ in range(BLOCK_SAMPLES // self._frame_samples)]
        self._count(block)
        return block

    def _next_frame(self) -> bytes | None:
        assert self._cursor is not None
        due, half = self._cursor, self._frame_samples // 2
        while self._frames and self._frames[0][0] < due - half:
            self._frames.pop(0)
        if self._frames and self._frames[0][0] < due + half:
            at, frame = self._frames.pop(0)
            self._cursor = at + self._frame_samples  # follows a stream that is not on our grid
            return frame
        self._cursor += self._frame_samples
        return None

    def _catch_up(self) -> None:
        """Too much came at once, after a stall on the way: what is old is dropped, live sound matters more."""
        assert self._cursor is not None
        newest = self._frames[-1][0] + self._frame_samples
        blocks = int((newest - self._cursor - self._delay * SAMPLE_RATE) / BLOCK_SAMPLES)
        self._cursor += blocks * BLOCK_SAMPLES
        self._margins.clear()
        self.counts.skipped_blocks += blocks

    def _note_margin(self, margin: float, now: float) -> None:
        self._margins.append((now, margin))
        if margin < 0:
            self.counts.late_packets += 1
        if margin < LOW_MARGIN and self.delay_ms < self._max_delay * 1000:
            self._hold = True

    def _too_much_delay(self, now: float) -> bool:
        while self._margins and self._margins[0][0] < now - WINDOW:
            self._margins.popleft()
        if len(self._margins) < WINDOW / BLOCK_SECONDS / 2:
            return False
        return min(margin for _, margin in self._margins) > self._delay + BLOCK_SECONDS

    def _count(self, block: list[bytes | None]) -> None:
        frame_ms = self._frame_samples * 1000 // SAMPLE_RATE
        missing = block.count(None)
        self._missing += missing
        if missing == len(block):
            if self._missing * frame_ms >= STARVED_MS:
                self._restart()
            return
        self.counts.played_ms += (len(block) - missing) * frame_ms
        # What is missing is a gap only once sound follows it; before that it may as well be the end.
        self.counts.concealed_ms += self._missing * frame_ms
        self.counts.gaps += self._missing > 0
        self._missing = 0

    def _restart(self) -> None:
        self._cursor = None
        self._frames.clear()
        self._margins.clear()
        self._missing = 0
        self._hold = False


class SoundPlayer:
    """The playout clock: a thread that takes, decodes and plays a block every 20 ms.

    `heard(samples, at)` is called from the thread for every block played, at monotonic time `at`.
    """

    def __init__(
        self,
        codec: AudioCodec,
        sink: SoundSink,
        heard: Callable[[Samples, float], None],
        delay: float,
        max_delay: float,
    ) -> None:
        self.buffer = PlayoutBuffer(codec.frame_samples, delay, max_delay)
        self._codec = codec
        self._sink = sink
        self._heard = heard
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._last = np.zeros(codec.frame_samples, np.int16)
        self._thread = threading.Thread(target=self._run, name="playout", daemon=True)

    def start(self) -> None:
        """Start the clock."""
        self._thread.start()

    def put(self, timestamp: int, payload: bytes, now: float) -> None:
        """A packet arrived: extended timestamp, payload as the codec defines it. Rubbish is dropped."""
        frames = self._codec.frames(payload)
        with self._lock:
            self.buffer.put(timestamp, frames, now)

    def close(self) -> None:
        """Stop the clock and finish the sink."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sink.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                block = self.buffer.take(due)
            if block is not None:
                samples = np.concatenate([self._samples(frame) for frame in block])
                self._sink.write(samples)
                self._heard(samples, due)
            due += BLOCK_SECONDS

    def _samples(self, frame: bytes | None) -> Samples:
        decoded = None if frame is None else self._codec.decode(frame)
        if decoded is None:
            decoded = (self._last * FADE).astype(np.int16)
        self._last = decoded
        return decoded
