"""Mistakes as whoever gave a command reads them: one line each, on stderr."""

import sys


def complain(text: str) -> None:
    """Say every line of `text` under our name."""
    for line in text.splitlines():
        print(f"dialcast: {line}", file=sys.stderr)
