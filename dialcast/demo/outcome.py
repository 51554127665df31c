"""What the demonstration prints and writes: the ladder line by line, a row a viewer, the report."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialcast.demo.ladder import AS, RELAY, Arrow, Ladder
from dialcast.demo.scene import View

_COLOURS = {AS: "cyan", RELAY: "magenta"}


def print_heading(console: Console) -> None:
    """What the columns of the ladder are."""
    console.print(f"\n{'seconds':>8}  {'from':>5}    {'to':<5}  {'message':<34} meaning", style="bold")


def print_arrow(console: Console, arrow: Arrow, start: float) -> None:
    """One line of the ladder."""
    line = Text(f"{arrow.at - start:8.3f}  ", no_wrap=True, overflow="ellipsis")
    line.append(f"{arrow.source:>5}", _COLOURS.get(arrow.source, "green"))
    line.append(" -> ")
    line.append(f"{arrow.target:<5}", _COLOURS.get(arrow.target, "green"))
    line.append(f"  {arrow.message:<34} ", "bold")
    line.append(arrow.meaning, "dim")
    console.print(line)


def print_views(console: Console, views: Iterable[View]) -> None:
    """Two rows for each viewer, in two tables that fit a terminal of 80 columns."""
    arrival = _table("what the viewers saw", "dial to picture", "dial to live", "decoded", "lost", "")
    quality = _table("how well", "PSNR-Y", "worst 5%", "SSIM", "sound", "late p50", "late p95")
    for view in views:
        verdict, who = view.verdict, f"{view.number} of {view.channel}"
        mark = "[red]failed[/]" if view.failures else "[green]good[/]"
        if verdict is None:
            arrival.add_row(who, *["-"] * 4, mark)
            continue
        arrival.add_row(
            who,
            _ms(verdict.dial_to_picture_ms),
            _ms(verdict.dial_to_live_ms),
            str(verdict.frames_decoded),
            str(verdict.frames_lost),
            mark,
        )
        quality.add_row(
            who,
            _number(verdict.psnr_db, "{:.1f} dB"),
            _number(verdict.psnr_p5, "{:.1f} dB"),
            _number(verdict.ssim, "{:.3f}"),
            f"{verdict.audio_correlation:.2f}",
            _ms(verdict.latency_ms_p50),
            _ms(verdict.latency_ms_p95),
        )
    console.print(arrival)
    console.print(quality)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("viewer", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def print_outcome(console: Console, out: Path, problems: list[str], seconds: float) -> None:
    """The end: what is wrong, if anything, and where the files are."""
    for problem in problems:
        console.print(f"[red]failed:[/] {problem}")
    verdict = (
        "[red]the demonstration failed[/]" if problems else "[green]all fourteen steps, in order; all views good[/]"
    )
    console.print(f"{verdict} ({seconds:.0f} s). Report, recordings and snapshots are in {out}/")


def write_report(path: Path, ladder: Ladder, views: Iterable[View], problems: list[str]) -> None:
    """The same for machines."""
    start = ladder.arrows[0].at if ladder.arrows else 0.0
    steps = [
        {
            "step": step.number,
            "at_ms": round((step.arrow.at - start) * 1000, 1),
            "from": step.arrow.source,
            "to": step.arrow.target,
            "what": f"{step.arrow.message}: {step.arrow.meaning}".strip(": "),
        }
        for step in ladder.steps
    ]
    report = {"ok": not problems, "problems": problems, "steps": steps, "viewers": [_row(view) for view in views]}
    path.write_text(json.dumps(report, indent=1) + "\n")


def _row(view: View) -> dict[str, Any]:
    verdict = view.verdict
    row: dict[str, Any] = {"number": view.number, "channel": view.channel, "failures": list(view.failures)}
    for name in (
        *("dial_to_picture_ms", "dial_to_live_ms", "frames_decoded", "frames_lost", "counter_read_ratio"),
        *("psnr_db", "psnr_p5", "ssim", "audio_ok", "audio_correlation", "audio_gap_ratio"),
        *("latency_ms_p50", "latency_ms_p95", "replayed_ms"),
    ):
        value = getattr(verdict, name, None)
        row[name] = round(value, 3) if isinstance(value, float) else value
    return row


def _ms(value: float | None) -> str:
    return _number(value, "{:.0f} ms")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
