"""How well one source is received: loss, jitter, round trip (RFC 3550 appendices A.1, A.3, A.8 and section 6.4.1).

There is no probation as in A.1: here a source is only counted after its address was verified.
"""

from protocols.rtp.reports import ReportBlock, SenderReport
from protocols.rtp.sequence import TIMESTAMP_BITS, difference

MAX_DROPOUT = 3000
"""A forward jump of fewer packets is loss; a longer one is a restart, once a second packet confirms it."""
MAX_MISORDER = 100
"""A packet at most this far behind is late, not a restart."""

_CYCLE = 1 << 16


class Reception:
    """Statistics of one SSRC. `now` is in seconds on any one clock."""

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self.ssrc = ssrc
        self.jitter = 0.0
        """In timestamp units."""
        self._clock_rate = clock_rate
        self._last: tuple[float, int] | None = None
        self._restart_at: int | None = None
        self._sender_report: tuple[int, float] | None = None
        self._begin(None)

    def _begin(self, sequence: int | None) -> None:
        self._base = self.highest = sequence
        """`highest` is extended: wraps are counted in the upper bits."""
        self.packets = 0
        self._expected_before = self._packets_before = 0
        self._restart_at = None

    @property
    def expected(self) -> int:
        """How many packets the source has sent, judged by its numbers."""
        return 0 if self.highest is None or self._base is None else self.highest - self._base + 1

    @property
    def lost(self) -> int:
        """Expected minus received; negative when duplicates came."""
        return self.expected - self.packets

    def received(self, sequence: int, timestamp: int, now: float) -> bool:
        """Count a packet. False for one that jumps so far that only its successor can tell a restart from a stray."""
        step = 0 if self.highest is None else difference(sequence, self.highest)
        if not -MAX_MISORDER <= step < MAX_DROPOUT:
            if sequence != self._restart_at:
                self._restart_at = (sequence + 1) % _CYCLE
                return False
            self._begin(None)
            self._last = None
        if self.highest is None:
            self._begin(sequence)
        else:
            self.highest += max(0, step)
        self.packets += 1
        self._measure_jitter(timestamp, now)
        return True

    def measured(self, numbers: tuple[int, int] | None, packets: int, jitter: float, *, restarted: bool) -> None:
        """What somebody else counted of this source, in place of `received`: first and highest number, packets."""
        if restarted:
            self._begin(None)
        self._base, self.highest = numbers if numbers is not None else (None, None)
        self.packets, self.jitter = packets, jitter

    def _measure_jitter(self, timestamp: int, now: float) -> None:
        if self._last is not None:
            last_now, last_timestamp = self._last
            sent_apart = difference(timestamp, last_timestamp, TIMESTAMP_BITS)
            deviation = abs((now - last_now) * self._clock_rate - sent_apart)
            self.jitter += (deviation - self.jitter) / 16
        self._last = now, timestamp

    def sender_report(self, report: SenderReport, now: float) -> None:
        """Remember the source's own report, so that the next block lets it measure the round trip."""
        self._sender_report = report.ntp >> 16 & 0xFFFFFFFF, now

    def report(self, now: float) -> ReportBlock:
        """The block for the next RR or SR; its fraction covers the time since the last call."""
        expected = self.expected - self._expected_before
        lost = expected - (self.packets - self._packets_before)
        self._expected_before, self._packets_before = self.expected, self.packets
        last_report, delay = 0, 0
        if self._sender_report is not None:
            last_report, arrived = self._sender_report
            delay = min(0xFFFFFFFF, max(0, int((now - arrived) * 65536)))
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0,
            cumulative_lost=self.lost,
            highest_sequence=(self.highest or 0) & 0xFFFFFFFF,
            jitter=int(self.jitter),
            last_report=last_report,
            delay=delay,
        )


def round_trip(block: ReportBlock, now_middle_ntp: int) -> float | None:
    """Seconds to the reporter and back, from its block about us; None before it saw a sender report of ours.

    `now_middle_ntp` is the wall clock when the block arrived, in 1/65536 s (`rtcp.middle_ntp`).
    """
    if not block.last_report:
        return None
    elapsed = difference(now_middle_ntp, block.last_report + block.delay, TIMESTAMP_BITS)
    return max(0, elapsed) / 65536
