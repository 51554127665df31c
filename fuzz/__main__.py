"""`python -m fuzz [--seconds N] [--native-seconds N] [--only NAME] [--jobs N]`: fuzz every parser, then a table.

Each harness says a line when it is done. Exit status 1 on a finding.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fuzz.native import build
from fuzz.registry import TARGETS
from fuzz.run import Outcome, fuzz
from fuzz.target import ROOT

CORES = os.cpu_count() or 1
DEFAULT_SECONDS = 60


def planned(names: list[str], seconds: int, native_seconds: int) -> dict[str, int]:
    """How many seconds each harness runs, the longest first: or one core would wait for the other's last."""
    lasts = {name: native_seconds if TARGETS[name].program else seconds for name in names}
    return dict(sorted(lasts.items(), key=lambda each: -each[1]))


def lasting(seconds: list[int], jobs: int) -> str:
    """How long harnesses take that run so long each, in this order, for people."""
    busy = [0] * jobs
    for each in seconds:
        busy[busy.index(min(busy))] += each
    total = max(busy)
    many = f"{len(seconds)} harness{'es' * (len(seconds) > 1)}"
    return f"{many}, {jobs} at a time: " + (f"{total} s" if total < 100 else f"{total / 60:.0f} minutes")


ALL_OF_IT = f"Without options: {lasting([DEFAULT_SECONDS] * len(TARGETS), CORES)}."


def main(
    seconds: Annotated[int, typer.Option(min=1, help=f"Seconds for each harness. {ALL_OF_IT}")] = DEFAULT_SECONDS,
    native_seconds: Annotated[
        int | None, typer.Option(min=1, help="Seconds for each harness in C; as for the others if not given.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="A harness, may be repeated; all if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Harnesses at a time.")] = CORES,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable; 0 takes a random one.")] = 0,
) -> None:
    """Fuzz every parser with coverage guidance."""
    unknown = [name for name in only or () if name not in TARGETS]
    if unknown:
        raise typer.BadParameter(f"no harness {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    names = list(only or TARGETS)
    if (why := build.problem()) and any(TARGETS[name].program for name in names):
        if only or os.environ.get("CI"):
            raise typer.BadParameter(f"harnesses in C: {why}")
        names = [name for name in names if TARGETS[name].program is None]
        print(f"no fuzzing of the engine in C: {why}", flush=True)
    lasts = planned(names, seconds, native_seconds or seconds)
    print(lasting([*lasts.values()], jobs), flush=True)
    lock, done = threading.Lock(), 0

    def one(name: str) -> Outcome:
        nonlocal done
        outcome = fuzz(TARGETS[name], lasts[name], seed)
        with lock:
            done += 1
            print(f"[{done}/{len(lasts)}] {told(outcome)}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as runners:
        outcomes = list(runners.map(one, lasts))
    for outcome in outcomes:
        if outcome.failure:
            print(outcome.failure, file=sys.stderr)
    show(outcomes)
    raise typer.Exit(any(outcome.failure or outcome.findings for outcome in outcomes))


def told(outcome: Outcome) -> str:
    """One harness in a line."""
    found = f"findings: {len(outcome.findings) or 'none'}" if not outcome.failure else "failed"
    return f"{outcome.name}: {outcome.executed:,} inputs, {outcome.coverage} branches, {found}"


def show(outcomes: list[Outcome]) -> None:
    """The table."""
    table = Table("harness", "inputs", "inputs/s", "branches", "findings")
    for outcome in outcomes:
        found = ", ".join(str(path.relative_to(ROOT)) for path in outcome.findings) or (
            "failed" if outcome.failure else "none"
        )
        table.add_row(outcome.name, f"{outcome.executed:,}", f"{outcome.per_second:,.0f}", str(outcome.coverage), found)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
