"""The judge: did this viewer see and hear what that broadcaster showed and said, in time and all of it?

It believes nobody. Each picture of the viewer's recording is identified by the counter drawn into it, compared with
the very picture of the source clip that it claims to be, and its age is told by the two terminals' clocks (which are
one: CLOCK_MONOTONIC of the same machine). The sound is compared with the source in `hearing`.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt

from dialcast.hearing import Hearing, compare
from terminal_client.capture import clip_pictures
from terminal_client.report import CallReport, SentFrame
from terminal_client.stamp import Plane, outside_stamp, read_stamp
from terminal_client.streams import SourceError
from terminal_client.video_decoder import planes_of

CLOCK_RATE: Final = 90_000
IDENTICAL_DB: Final = 99.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still right."""

    counter_read_ratio: float = 0.95
    lost_ratio: float = 0.05
    psnr_median_db: float = 34.0
    psnr_p5_db: float = 28.0
    audio_correlation: float = 0.8
    audio_gap_ratio: float = 0.01
    live_latency: float = 0.2
    """Seconds: a picture younger than this is live."""
    dial_to_live: float = 1.0
    """Seconds a viewer who calls while the broadcast is live may wait for a live picture, wherever between two
    keyframes the call falls. Who called before the first picture waited for the broadcaster."""
    freeze: float = 1.0
    """Seconds without a new picture that count as a frozen stream."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one viewer got. Latencies are those after the viewer has caught up, in milliseconds."""

    frames_decoded: int
    frames_lost: int
    counter_read_ratio: float
    psnr_db: float | None
    psnr_p5: float | None
    ssim: float | None
    audio_correlation: float
    audio_gap_ratio: float
    audio_ok: bool
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    dial_to_picture_ms: float | None
    dial_to_live_ms: float | None
    replayed_ms: float | None
    """How long before the viewer dialled its first picture was captured; above 0 it came out of the relay's cache."""
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class _Seen:
    """One picture of the recording: which one it is (None: no counter we know), when shown, how well."""

    sent: SentFrame | None
    shown_at: float | None
    psnr: float
    ssim: float


def judge(
    broadcaster: CallReport,
    viewer: CallReport,
    recording: Path,
    *,
    clip: Path,
    voice: Path,
    fps: int = 15,
    limits: Limits = Limits(),
) -> Verdict:
    """Judge a viewer's `recording` of a broadcast of `clip` at `fps` pictures a second, stamped, and of `voice`."""
    failures: list[str] = []
    seen: list[_Seen] = []
    try:
        seen = list(_watch(recording, clip, fps, broadcaster, viewer))
    except (OSError, SourceError, av.error.FFmpegError) as error:
        failures.append(f"recording {recording} cannot be watched: {error}")
    known = [picture for picture in seen if picture.sent is not None]
    ratio = len(known) / len(seen) if seen else 0.0
    lost = _lost(known, broadcaster)
    failures += _picture_failures(seen, known, ratio, lost, limits)
    failures += _freezes(seen, broadcaster, viewer, limits.freeze)
    psnr = [picture.psnr for picture in known]
    ages = [
        (picture.shown_at, picture.shown_at - picture.sent.captured_at)
        for picture in known
        if picture.shown_at is not None and picture.sent is not None
    ]
    live = list(itertools.dropwhile(lambda age: age[1] >= limits.live_latency, ages))
    latencies = [1000 * age for _, age in live]
    if not live:
        failures.append(f"never live: no picture was younger than {limits.live_latency * 1000:.0f} ms")
    elif (late := _percentile(latencies, 50) or 0) >= limits.live_latency * 1000:
        failures.append(f"late: pictures are {late:.0f} ms old")
    dial_to_live = _since(viewer.dialled_at, live[0][0] if live else None)
    failures += _waits(dial_to_live, broadcaster, viewer, limits.dial_to_live)
    hearing = _listen(recording, voice, broadcaster, viewer, failures)
    audio_failures = list(_audio_failures(hearing, limits))
    return Verdict(
        frames_decoded=len(seen),
        frames_lost=lost,
        counter_read_ratio=ratio,
        psnr_db=_percentile(psnr, 50),
        psnr_p5=_percentile(psnr, 5),
        ssim=float(np.mean([picture.ssim for picture in known])) if known else None,
        audio_correlation=hearing.correlation,
        audio_gap_ratio=hearing.gap_ratio,
        audio_ok=not audio_failures,
        latency_ms_p50=_percentile(latencies, 50),
        latency_ms_p95=_percentile(latencies, 95),
        dial_to_picture_ms=_since(viewer.dialled_at, viewer.media.first_picture_at),
        dial_to_live_ms=dial_to_live,
        replayed_ms=_since(known[0].sent.captured_at, viewer.dialled_at) if known and known[0].sent else None,
        failures=(*failures, *audio_failures),
    )


def _watch(recording: Path, clip: Path, fps: int, broadcaster: CallReport, viewer: CallReport) -> Iterator[_Seen]:
    sent = {frame.counter: frame for frame in broadcaster.media.sent}
    shown = {frame.pts: frame.shown_at for frame in viewer.media.received}
    originals: list[Plane] = []
    with av.open(str(recording)) as container:
        if not container.streams.video:
            raise SourceError("no picture in it")
        for frame in container.decode(container.streams.video[0]):
            planes = planes_of(frame)
            if not originals:
                originals = [
                    picture[: frame.height].copy() for picture in clip_pictures(clip, frame.width, frame.height, fps)
                ]
            counter = read_stamp(planes[: frame.height])
            which = None if counter is None else sent.get(counter)
            at = (
                None
                if frame.pts is None or frame.time_base is None
                else round(frame.pts * frame.time_base * CLOCK_RATE)
            )
            shown_at = None if at is None else shown.get(at)
            if which is None:
                yield _Seen(None, shown_at, 0.0, 0.0)
                continue
            original = originals[which.source_frame % len(originals)]
            mask = outside_stamp(frame.height, frame.width)
            luma = planes[: frame.height]
            yield _Seen(which, shown_at, psnr(luma, original, mask), ssim(luma, original, mask))


def psnr(a: Plane, b: Plane, mask: npt.NDArray[np.bool_]) -> float:
    """Peak signal to noise ratio of two luma planes where `mask` is True, in dB."""
    difference = a[mask].astype(np.int32) - b[mask]
    error = float((difference * difference).mean())
    return min(IDENTICAL_DB, 10 * float(np.log10(255**2 / error))) if error > 0 else IDENTICAL_DB


def ssim(a: Plane, b: Plane, mask: npt.NDArray[np.bool_]) -> float:
    """Mean structural similarity where `mask` is True (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5)."""

    def blurred(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(image, (11, 11), 1.5), dtype=np.float32)

    x, y = a.astype(np.float32), b.astype(np.float32)
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x * mean_x, blurred(y * y) - mean_y * mean_y
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2)
    )
    return float(similarity[mask].mean())


def _lost(known: Sequence[_Seen], broadcaster: CallReport) -> int:
    counters = {picture.sent.counter for picture in known if picture.sent is not None}
    if not counters:
        return 0
    expected = {frame.counter for frame in broadcaster.media.sent if min(counters) <= frame.counter <= max(counters)}
    return len(expected - counters)


def _picture_failures(
    seen: Sequence[_Seen], known: Sequence[_Seen], ratio: float, lost: int, limits: Limits
) -> Iterator[str]:
    if not seen:
        yield "no picture"
        return
    if ratio < limits.counter_read_ratio:
        yield f"counter read in only {ratio:.1%} of the pictures"
    if lost > limits.lost_ratio * (lost + len(known)):
        yield f"{lost} pictures lost"
    counters = [picture.sent.counter for picture in known if picture.sent is not None]
    repeated = sum(after <= before for before, after in itertools.pairwise(counters))
    if repeated:
        yield f"{repeated} pictures shown again as new"
    levels = [picture.psnr for picture in known]
    for percent, limit in ((50, limits.psnr_median_db), (5, limits.psnr_p5_db)):
        level = _percentile(levels, percent)
        if level is not None and level < limit:
            yield f"PSNR: percentile {percent} is {level:.1f} dB, less than {limit:g}"


def _freezes(seen: Sequence[_Seen], broadcaster: CallReport, viewer: CallReport, longest: float) -> Iterator[str]:
    times = [picture.shown_at for picture in seen if picture.shown_at is not None]
    if seen and len(times) < len(seen):
        yield f"{len(seen) - len(times)} recorded pictures were never shown"
    if not times or not broadcaster.media.sent:
        return
    ends = [broadcaster.media.sent[-1].captured_at, viewer.media.ended_at]
    times.append(max(times[-1], min(end for end in ends if end is not None)))
    pause = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
    if pause > longest:
        yield f"picture frozen for {pause:.1f} s"


def _waits(dial_to_live: float | None, broadcaster: CallReport, viewer: CallReport, longest: float) -> Iterator[str]:
    sent = broadcaster.media.sent
    called_while_live = bool(sent) and viewer.dialled_at is not None and viewer.dialled_at > sent[0].captured_at
    if called_while_live and dial_to_live is not None and dial_to_live > 1000 * longest:
        yield f"slow: live only {dial_to_live:.0f} ms after dialling, more than {1000 * longest:.0f}"


def _listen(recording: Path, voice: Path, broadcaster: CallReport, viewer: CallReport, failures: list[str]) -> Hearing:
    """Compare the sound up to the broadcast's end; gaps are the larger of what we miss and what was concealed."""
    sent, first = broadcaster.media.sent, viewer.media.first_picture_at
    until = sent[-1].captured_at - first if sent and first is not None else None
    try:
        hearing = compare(recording, voice, until)
    except (OSError, SourceError) as error:
        failures.append(f"sound cannot be heard: {error}")
        return Hearing(0.0, 1.0)
    audio = viewer.media.audio
    concealed = audio.concealed_ms / max(1, audio.concealed_ms + audio.played_ms)
    return Hearing(hearing.correlation, max(hearing.gap_ratio, concealed))


def _audio_failures(hearing: Hearing, limits: Limits) -> Iterator[str]:
    if hearing.correlation < limits.audio_correlation:
        yield f"sound: correlation with the source is only {hearing.correlation:.2f}"
    if hearing.gap_ratio > limits.audio_gap_ratio:
        yield f"sound: {hearing.gap_ratio:.1%} is missing"


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _since(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000
