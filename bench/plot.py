"""`python -m bench.plot RESULTS.json OUT.svg`: bars from the JSON of `bench.sip_load`, a group for each work.

SVG is written by hand: every browser and GitHub show it, and no plotting library need be installed for ten bars.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

COLOURS: Final = ("#2b6cb0", "#c05621", "#d69e2e", "#718096")
WIDTH, LABELS, BAR, GAP = 720, 200, 18, 14
AIMS: Final = {"register": 0.6, "answered": 1.0, "relayed": 2.0}
"""CPU milliseconds dialcast aims at, drawn as a line."""


def drawn(results: Iterable[Mapping[str, Any]], machine: str) -> str:
    """The picture, with what is said of the machine below. Rows that do not count are left out."""
    rows = [row for row in results if row["counts"]]
    servers = list(dict.fromkeys(row["server"] for row in rows))
    scale = (WIDTH - LABELS - 60) / max(row["cpu_ms"] for row in rows)
    parts, y = [], 34.0
    for work in dict.fromkeys(row["work"] for row in rows):
        top, words = y, []
        for row in (row for row in rows if row["work"] == work):
            colour, long = COLOURS[servers.index(row["server"]) % len(COLOURS)], row["cpu_ms"] * scale
            words.append(_text(LABELS - 8, y + 13, f"{work}, {row['server']}", "end"))
            parts.append(f'<rect x="{LABELS}" y="{y}" width="{long:.1f}" height="{BAR - 3}" fill="{colour}"/>')
            words.append(_text(LABELS + long + 5, y + 13, f"{row['cpu_ms']:.2f}"))
            y += BAR
        if work in AIMS:
            x = LABELS + AIMS[work] * scale
            parts.append(f'<path d="M{x:.1f} {top - 3}V{y}" stroke="#1a202c" stroke-dasharray="3 2"/>')
        parts += words  # over the line
        y += GAP
    title = _text(8, 18, "CPU milliseconds each, one core; less is better; dashed: dialcast's aim")
    foot = []
    for line in machine.splitlines():
        foot.append(_text(8, y + 10, line))
        y += 16
    y += 4
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', title, *parts, *foot, "</svg>", ""])


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    halo = 'paint-order="stroke" stroke="#fff" stroke-width="3"'  # legible where the line of the aim passes
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {halo}>{escape(words)}</text>'


def main() -> None:
    """Reads the results, writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, help="what `bench.sip_load --json` wrote")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    options = parser.parse_args()
    story = json.loads(options.results.read_text())
    machine = story["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "kamailio")
    told = f"{machine['processor']}, {machine['cores']} cores, {machine['at'][:10]}"
    options.picture.write_text(drawn(story["results"], f"{told}\n{versions}"))


if __name__ == "__main__":
    main()
