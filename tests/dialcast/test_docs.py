"""The documentation is complete: every chapter is in its page's contents, every event in the table of events."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dialcast", "media_relay", "protocols", "provisioning", "sip_app")
TOLD = frozenset(("info", "warning", "error", "exception", "critical"))
"""Methods of a logger at info and above."""


def anchor(heading: str) -> str:
    """Where a link leads to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["operations.md", "call-flows.md"])
def test_the_contents_of_a_page_are_its_headings(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    contents = re.findall(r"^(\d+)\. \[[^]]+\]\(#([^)]+)\)", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert contents == [(str(place), anchor(heading)) for place, heading in enumerate(headings, 1)]


def events(source: Path) -> Iterator[str]:
    """What a module logs at info and above."""
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[event, *_]) if level in TOLD:
                parts = (part.value for part in ast.walk(event) if isinstance(part, ast.Constant))
                yield from (part for part in parts if isinstance(part, str))
            case ast.Call(
                func=ast.Name(id="level"), args=[ast.Constant(value=str(name)), *_]
            ):  # log.info or so by case
                yield name


def test_the_table_of_events_has_every_event_and_no_other() -> None:
    logged = {event for name in PACKAGES for source in (ROOT / name).rglob("*.py") for event in events(source)}
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("| event | what happened |\n|---|---|\n")[2].partition("\n\n")[0]
    told = {name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert len(logged) > 50
    assert told == logged
