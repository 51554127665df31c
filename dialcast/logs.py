"""Structured events on stderr: JSON lines for machines, aligned text for people; below the level they cost nothing."""

import logging
import sys

import structlog

from provisioning.config import LogConfig


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
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, config.level.upper())),
        # One write a line: the lines of several processes must not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
