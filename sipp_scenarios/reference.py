"""`python -m sipp_scenarios.reference` writes the table of behaviours into README.md; a test demands equality."""

from pathlib import Path
from typing import Final

from sipp_scenarios.behaviours import CATALOGUE

README: Final = Path(__file__).with_name("README.md")
BEGIN: Final = "<!-- behaviours: written by python -m sipp_scenarios.reference -->"
END: Final = "<!-- end of behaviours -->"
TITLES: Final = {"flow": "Flows", "misbehaviour": "Misbehaving phones", "load": "Load"}


def table() -> str:
    """The behaviours by kind, as Markdown."""
    parts: list[str] = []
    for kind, title in TITLES.items():
        parts += [f"### {title}", "", "| behaviour | what it shows | by |", "|---|---|---|"]
        entries = [entry for entry in CATALOGUE.values() if entry.kind == kind]
        parts += [f"| `{entry.name}` | {entry.shows.replace('*', chr(92) + '*')} | {entry.by} |" for entry in entries]
        parts.append("")
    return "\n".join(parts)


def with_table(text: str) -> str:
    """README.md with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
