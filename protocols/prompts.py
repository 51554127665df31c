"""The prompts a relay can speak, by name: what the application server asks for and the relay has recordings of.

A name is one recording in each language; sentences are lists of names ("forwarded-to", "1", "0", "0", "3").
"""

from typing import Literal, get_args

Language = Literal["en", "zh"]
Prompt = Literal[
    "active",
    "deactivated",
    "erased",
    "not-registered",
    "forwarded-to",
    "invalid",
    "pin-enter",
    "pin-wrong",
    "pin-failed",
    "private",
    "ended",
    "full",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
]
LANGUAGES: tuple[Language, ...] = get_args(Language)
PROMPTS: tuple[Prompt, ...] = get_args(Prompt)

_DIGITS: dict[str, Prompt] = {str(place): PROMPTS[PROMPTS.index("0") + place] for place in range(10)}


def digits(number: str) -> tuple[Prompt, ...]:
    """A number, digit by digit; what is no digit is not spoken."""
    return tuple(_DIGITS[digit] for digit in number if digit in _DIGITS)


def language_of(accepted: str, default: Language) -> Language:
    """The language an Accept-Language value likes best (RFC 3261 section 20.3), `default` where we speak none of it."""
    ranked: list[tuple[float, int, str]] = []
    for place, entry in enumerate(accepted.split(",")[:_MAX_RANGES]):
        tag, _, parameter = entry.partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            quality = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            quality = 0.0
        if quality > 0:
            ranked.append((-quality, place, tag.strip().lower().partition("-")[0]))
    for _, _, tag in sorted(ranked):
        for language in LANGUAGES:
            if tag == language:
                return language
    return default


_MAX_RANGES = 16
