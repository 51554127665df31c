"""Structured events on stderr: JSON lines for machines, aligned text for people; below the level they cost nothing.

One event is one line, whatever a stranger put into it: JSON escapes control characters, and for people `_inert` does,
so that nothing from the network starts a line of its own or speaks to the terminal.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from protocols.printable import printable
from provisioning.config import LogConfig

_METHODS = ("debug", "info", "warning", "error", "critical", "exception", "log", "msg")
_Leveled: Any = type("Leveled", (structlog.make_filtering_bound_logger(logging.DEBUG),), {})
"""The class of all our loggers. They are made once and kept, so a changed level changes their class."""


def set_level(level: str) -> None:
    """Write events of this severity and above, from now on, in loggers that exist already too."""
    source = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    for name in _METHODS:
        setattr(_Leveled, name, getattr(source, name))


def configure(config: LogConfig, part: str) -> None:
    """Set up logging for this process; every event carries its wall-clock time `ts` (Unix seconds) and its `part`."""
    structlog.contextvars.bind_contextvars(part=part)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt=None, key="ts"),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if config.format == "console":
        shared[2] = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)
        shared.append(_inert)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    set_level(config.level)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=_Leveled,
        # One write a line: the lines of several processes must not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _inert(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What is to be read by people, without a character that a terminal would obey; a traceback is indented."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(f"  | {printable(line)}" for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[key] = printable(value)
        elif not (shown := repr(value)).isprintable():
            event[key] = printable(shown)
    return event
