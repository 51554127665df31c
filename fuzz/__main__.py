"""`python -m fuzz [--seconds N] [--only NAME] [--jobs N]`: fuzz every parser, then a table.

Exit status 1 on a finding.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fuzz.registry import TARGETS
from fuzz.run import Outcome, fuzz
from fuzz.target import ROOT


def main(
    seconds: Annotated[int, typer.Option(min=1, help="Seconds for each harness.")] = 60,
    only: Annotated[list[str] | None, typer.Option(help="A harness, may be repeated; all if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Harnesses at a time.")] = os.cpu_count() or 1,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable; 0 takes a random one.")] = 0,
) -> None:
    """Fuzz every parser with coverage guidance."""
    unknown = [name for name in only or () if name not in TARGETS]
    if unknown:
        raise typer.BadParameter(f"no harness {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    with ThreadPoolExecutor(jobs) as runners:
        outcomes = list(runners.map(lambda name: fuzz(TARGETS[name], seconds, seed), only or TARGETS))
    for outcome in outcomes:
        if outcome.failure:
            print(outcome.failure, file=sys.stderr)
    show(outcomes)
    raise typer.Exit(any(outcome.failure or outcome.findings for outcome in outcomes))


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
