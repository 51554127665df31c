"""The two scenes of the demonstration: who is live with what, who watches, which files tell of it, and the verdict."""

from dataclasses import dataclass
from pathlib import Path

from dialcast.footage import Footage
from dialcast.judge import Verdict, judge
from terminal_client.report import CallReport

SERVICE = "8888"
BROADCASTER = "1001"
BEFORE_STREAM, MID_PICTURE_GROUP, OVER_TCP = "1002", "1003", "1004"


@dataclass(frozen=True, slots=True)
class Scene:
    """One broadcast."""

    broadcaster: str
    viewers: tuple[str, ...]
    clip: Path
    voice: Path

    @property
    def stayed(self) -> tuple[str, ...]:
        """The viewers whose calls the end of the broadcast has to end: a single one hangs up before."""
        return self.viewers if len(self.viewers) > 1 else ()

    def report(self, out: Path) -> Path:
        """The broadcaster's own report."""
        return out / f"broadcaster-{self.broadcaster}.json"

    def traces(self, out: Path, viewer: str) -> tuple[Path, Path, Path]:
        """A viewer's report, recording and snapshot."""
        stem = f"viewer-{viewer}-of-{self.broadcaster}"
        return out / f"{stem}.json", out / f"{stem}.mp4", out / f"{stem}.png"


@dataclass(frozen=True, slots=True)
class View:
    """What one viewer got; `verdict` is None when it left nothing to judge."""

    number: str
    channel: str
    verdict: Verdict | None
    failures: tuple[str, ...]


def scenes(clips: Footage) -> tuple[Scene, Scene]:
    """The first broadcast with three viewers; then a viewer is live and the former broadcaster watches."""
    return (
        Scene(BROADCASTER, (BEFORE_STREAM, MID_PICTURE_GROUP, OVER_TCP), clips.clips["bikes"], clips.voices[0]),
        Scene(BEFORE_STREAM, (BROADCASTER,), clips.clips["bigbuckbunny"], clips.voices[1]),
    )


def look(scene: Scene, viewer: str, out: Path) -> View:
    """Judge one view from the files both terminals left."""
    report, recording, snapshot = scene.traces(out, viewer)
    try:
        shown, seen = CallReport.read(scene.report(out)), CallReport.read(report)
    except (OSError, ValueError) as error:
        return View(viewer, scene.broadcaster, None, (f"no report to judge: {error}".splitlines()[0],))
    verdict = judge(shown, seen, recording, clip=scene.clip, voice=scene.voice)
    failures = [*verdict.failures]
    if not snapshot.is_file():
        failures.append("no snapshot was taken")
    if viewer == MID_PICTURE_GROUP and (verdict.replayed_ms or 0) <= 0:
        failures.append("did not begin with the picture before its call: not called between two keyframes")
    return View(viewer, scene.broadcaster, verdict, tuple(failures))
