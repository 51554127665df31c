"""`python -m bench.fanout.plot [--ratio] RESULTS.json ... OUT.svg|OUT.png`: what each relay costs for how many viewers.

The results are those of `bench.fanout --json`. Those of several runs, between which the machine may have become slower,
go into one picture by `--ratio`: costs over those of `limit` in the same run. Both axes are logarithmic. Rows that are
not valid are left out. A PNG needs OpenCV's drawing (the `phone` extra); an SVG is written by hand.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

COLOURS: Final = {
    "limit": "#1a202c",
    "dialcast": "#2b6cb0",
    "python": "#63b3ed",
    "rtpengine": "#c05621",
    "janus": "#b7791f",
    "gstreamer": "#2f855a",
}
OTHER: Final = "#718096"
WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 50, 92
DASHED: Final = "limit"
LINE, LABEL_STEP = 2, 16
TICKS: Final = (1, 1.5, 2, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class Curve:
    """One relay: viewers and microseconds, by viewers."""

    relay: str
    points: tuple[tuple[int, float], ...]


def curves(results: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The valid rows of one group that sends steadily in the clear, or of whatever the first row was."""
    good = [row for row in results if row["valid"]]
    alike = [row for row in good if all(row[key] == good[0][key] for key in ("groups", "source"))]
    found = []
    for relay in dict.fromkeys(row["relay"] for row in alike):
        points = sorted((row["viewers"], row["cpu_us_per_packet"]) for row in alike if row["relay"] == relay)
        found.append(Curve(relay, tuple(points)))
    return found


def relative(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their cost as a multiple of what `limit` took for the same work; without it none."""
    floor = {_work(row): row["cpu_us_per_packet"] for row in results if row["relay"] == DASHED}
    known = (row for row in results if _work(row) in floor)
    return [{**row, "cpu_us_per_packet": row["cpu_us_per_packet"] / floor[_work(row)]} for row in known]


def _work(row: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(row[key] for key in ("viewers", "groups", "source"))


class Canvas:
    """What a picture is made of, as SVG; `png` draws the same."""

    def __init__(self) -> None:
        self.lines: list[tuple[Sequence[tuple[float, float]], str, int, bool]] = []
        self.dots: list[tuple[float, float, str]] = []
        self.words: list[tuple[float, float, str, str, str]] = []
        """x, y of the baseline, text, anchor, colour."""

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int = 1, *, dashed: bool = False) -> None:
        """A line through these points."""
        self.lines.append((points, colour, width, dashed))

    def text(self, x: float, y: float, words: str, anchor: str = "start", colour: str = "#1a202c") -> None:
        """Words whose baseline begins, is centred or ends there."""
        self.words.append((x, y, words, anchor, colour))

    def svg(self) -> str:
        """The picture for a browser."""
        size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
        parts = [head, '<rect width="100%" height="100%" fill="#fff"/>']
        for points, colour, width, dashed in self.lines:
            way = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            dash = ' stroke-dasharray="7 4"' if dashed else ""
            parts.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y, colour in self.dots]
        for x, y, words, anchor, colour in self.words:
            where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
            parts.append(f"<text {where}>{escape(words)}</text>")
        return "\n".join([*parts, "</svg>", ""])

    def png(self, path: Path, scale: int = 2) -> None:
        """The picture as pixels. Raises ImportError without OpenCV."""
        import cv2  # noqa: PLC0415 - only for PNG
        import numpy as np  # noqa: PLC0415

        picture = np.full((HEIGHT * scale, WIDTH * scale, 3), 255, np.uint8)

        def at(x: float, y: float) -> tuple[int, int]:
            return round(x * scale), round(y * scale)

        for points, colour, width, dashed in self.lines:
            for (x, y), (to_x, to_y) in pairwise(points):
                pieces = max(1, int(math.dist((x, y), (to_x, to_y)) // 11)) if dashed else 1
                drawn = 0.64 if dashed else 1.0
                for piece in range(pieces):
                    begin, end = piece / pieces, (piece + drawn) / pieces
                    one = at(x + (to_x - x) * begin, y + (to_y - y) * begin)
                    other = at(x + (to_x - x) * end, y + (to_y - y) * end)
                    cv2.line(picture, one, other, _bgr(colour), width * scale, cv2.LINE_AA)
        for x, y, colour in self.dots:
            cv2.circle(picture, at(x, y), 4 * scale, _bgr(colour), -1, cv2.LINE_AA)
        font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42 * scale
        for x, y, words, anchor, colour in self.words:
            (wide, _), _ = cv2.getTextSize(words, font, size, scale // 2)
            left = x - wide / scale * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            cv2.putText(picture, words, at(left, y), font, size, _bgr(colour), scale // 2, cv2.LINE_AA)
        if not cv2.imwrite(str(path), picture):
            raise OSError(f"cannot write {path}")


def _bgr(colour: str) -> tuple[int, int, int]:
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)


def drawn(found: Sequence[Curve], title: str, foot: Sequence[str]) -> Canvas:
    """The curves with their axes, each named beside its end."""
    canvas = Canvas()
    counts = sorted({viewers for curve in found for viewers, _ in curve.points})
    costs = [cost for curve in found for _, cost in curve.points]
    ticks = [tick * 10**power for power in range(-2, 4) for tick in TICKS]
    low = max(tick for tick in ticks if tick <= min(costs))
    high = min(tick for tick in ticks if tick >= max(costs))
    across = _axis(counts[0], counts[-1], LEFT, WIDTH - RIGHT)
    up = _axis(low, high, HEIGHT - BOTTOM, TOP)
    canvas.text(LEFT, 24, title)
    for tick in (tick for tick in ticks if low <= tick <= high):
        canvas.line([(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))], "#e2e8f0")
        canvas.text(LEFT - 8, up(tick) + 4, f"{tick:g}", "end")
    for count in counts:
        canvas.line([(across(count), TOP), (across(count), HEIGHT - BOTTOM)], "#e2e8f0")
        canvas.text(across(count), HEIGHT - BOTTOM + 18, f"{count:,}", "middle")
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 36, "viewers", "middle")
    for number, line in enumerate(foot):
        canvas.text(LEFT, HEIGHT - 32 + 18 * number, line, colour=OTHER)
    taken = float(TOP - LABEL_STEP)
    for curve in sorted(found, key=lambda curve: -curve.points[-1][1]):
        colour = COLOURS.get(curve.relay, OTHER)
        points = [(across(viewers), up(cost)) for viewers, cost in curve.points]
        canvas.line(points, colour, LINE, dashed=curve.relay == DASHED)
        canvas.dots += [(x, y, colour) for x, y in points]
        x, y = points[-1]
        taken = max(taken + LABEL_STEP, y + 4)
        canvas.text(x + 10, taken, f"{curve.relay} {curve.points[-1][1]:.2f}", colour=colour)
    return canvas


def _axis(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    """Where a value stands, by its logarithm."""
    width = math.log(high / low) or 1.0
    return lambda value: begin + (end - begin) * math.log(value / low) / width


def _number(version: str) -> str:
    """The number in what a program says of its version; a program's name may have one too, before it."""
    return next(reversed(re.findall(r"\d+\.[\w.+~-]*", version)), version)


def main() -> int:
    """Reads the results, writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.fanout.plot", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ratio", action="store_true", help="costs over those of `limit` in the same run")
    parser.add_argument("results", type=Path, nargs="+", help="what `bench.fanout --json` wrote")
    parser.add_argument("picture", type=Path, help="the SVG or PNG file to write")
    options = parser.parse_args()
    stories = [json.loads(path.read_text()) for path in options.results]
    rows = [row for each in stories for row in (relative(each["results"]) if options.ratio else each["results"])]
    found = curves(rows)
    if not found:
        print("there is no valid row to draw", file=sys.stderr)
        return 2
    machine = stories[0]["machine"]
    versions = machine["versions"]
    shown = {"python", *(curve.relay for curve in found)}
    foot = [
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['at'][:10]}",
        ", ".join(f"{name} {_number(versions[name])}" for name in COLOURS if versions.get(name) and name in shown),
    ]
    first = next(row for row in rows if row["valid"])
    unit = "CPU time over that of bare system calls" if options.ratio else "CPU microseconds for each packet delivered"
    title = f"{unit} ({first['source']}); less is better"
    canvas = drawn(found, title, list(dict.fromkeys(foot)))
    if options.picture.suffix == ".png":
        canvas.png(options.picture)
    else:
        options.picture.write_text(canvas.svg())
    return 0


if __name__ == "__main__":
    sys.exit(main())
