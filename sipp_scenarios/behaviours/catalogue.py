"""How a behaviour is written down: a function that plays it, whose docstring says what it shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from sipp_scenarios.world import World

Kind = Literal["flow", "misbehaviour", "load"]
Play = Callable[[World], str | None]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One entry of the suite. `play` raises SippError if it did not go as it should, and may return a remark."""

    name: str
    kind: Kind
    shows: str
    by: str
    """The section that asks for it."""
    play: Play
    slow: bool = False
    """Takes half a minute, mostly of waiting: started first."""


CATALOGUE: Final[dict[str, Behaviour]] = {}


def behaviour(kind: Kind, by: str, *, slow: bool = False) -> Callable[[Play], Play]:
    """Puts a function into the catalogue under its own name."""

    def enter(play: Play) -> Play:
        name = str(getattr(play, "__name__", ""))
        CATALOGUE[name] = Behaviour(name, kind, (play.__doc__ or "").strip(), by, play, slow)
        return play

    return enter
