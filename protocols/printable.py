"""Words of strangers as an operator's terminal or log may show them."""


def printable(text: str) -> str:
    """The text in one line, with an escape (`\\n`, `\\x1b`) for what moves, colours, hides or turns words."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
